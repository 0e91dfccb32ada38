//! Whom a message goes to: its recipients, with everybody behind their aliases.

use mailroot_common::address::Domain;
use mailroot_common::id::QueueId;
use smtpd_core::queue::envelope::Recipient;
use smtpd_core::route::alias::Locals;
use smtpd_core::smtp::refusal::Refusal;

use super::message::Client;

impl Client<'_> {
    /// The recipients with everybody behind their aliases.
    pub(super) async fn follow_aliases(
        &self,
        id: QueueId,
        recipients: Vec<Recipient>,
    ) -> Result<Vec<Recipient>, Refusal> {
        let (parts, table) = (&self.inner.parts, &self.settings.table);
        let is_local = |domain: &Domain| table.is_local(domain);
        let locals = Locals { default: table.default_domain(), is_local: &is_local };
        let followed = parts.aliases.follow(recipients, locals, (&parts.name, id)).await;
        followed.map_err(|_| Refusal::AliasTooLarge)
    }
}
