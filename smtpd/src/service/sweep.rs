//! Entries of access lists that have ended, taken out of their files after a while.
//!
//! What they say has no force any more, so taking them out changes no decision. The daemon edits
//! a file by itself only where nobody minds: no lock, no trial, no edit by hand that waits to be
//! loaded, and no doubt about which entry is meant.

use mailroot_common::config::ServerConfig;
use mailroot_common::config::ServerName;
use mailroot_common::config::access::ListEntry;
use mailroot_common::control::{KeyEdit, Terms};
use mailroot_common::units::{Span, Timestamp};

use super::change::Asked;
use super::{Service, ServiceError};
use crate::config::EditError;
use crate::observe::Level;

/// An entry is shown as expired for so long.
const SHOWN: Span = Span::hours(1);

impl Service {
    /// Takes entries that have long ended out of the files of all virtual servers, as a revision
    /// of the daemon's own.
    pub async fn sweep_lists(&self) {
        let now = self.0.clock.now();
        for server in self.all() {
            let edits = ended(&server.config(), now);
            if edits.is_empty() {
                continue;
            }
            match self.sweep(server.name(), &edits).await {
                Ok(())
                | Err(
                    ServiceError::OnTrial { .. }
                    | ServiceError::Edit(EditError::Sealed(_) | EditError::Busy),
                ) => {}
                Err(error) => {
                    let line = self.0.log.line(Level::Warn, "sweep-failed");
                    line.word("server", server.name()).text("reason", error).send();
                }
            }
        }
    }

    async fn sweep(&self, server: &ServerName, edits: &[KeyEdit]) -> Result<(), ServiceError> {
        let _one_at_a_time = self.0.changing.lock().await;
        if !self.active().is_what_lies_there(&self.0.paths) {
            return Ok(());
        }
        let message = "entries that had ended".to_owned();
        let asked = Asked {
            terms: Terms { message: Some(message), ..Terms::default() },
            unsealed: false,
            ..Asked::by_itself("sweep", "mailroot")
        };
        let change = self.editor(&asked).edit_server(server, edits)?;
        self.make(&asked, change).await.map(|_| ())
    }
}

/// What takes the entries out that ended long enough ago. One that stands twice in its list stays:
/// an edit could take the other.
fn ended(config: &ServerConfig, now: Timestamp) -> Vec<KeyEdit> {
    let access = &config.access;
    let mut edits = Vec::new();
    for (list, entries) in [("connect", &access.connect.list), ("relay", &access.relay.list)] {
        let key = format!("access.{list}.list");
        let is_old = |entry: &&ListEntry| {
            entry.until.is_some_and(|until| until.after(SHOWN) <= now)
                && entries.iter().filter(|other| other.who == entry.who).count() == 1
        };
        let item = |entry: &ListEntry| entry.who.to_string();
        edits.extend(
            entries
                .iter()
                .filter(is_old)
                .map(|entry| KeyEdit::Remove { key: key.clone(), item: item(entry) }),
        );
    }
    edits
}

#[cfg(test)]
mod tests {
    use mailroot_common::config::parse_server;

    use super::*;

    #[test]
    fn what_ended_an_hour_ago_goes_and_what_is_doubtful_stays() {
        let text = "version: 1
access:
  connect:
    list:
      - {net: 203.0.113.0/24, until: 2026-11-25T10:00:00Z}
      - {net: 198.51.100.0/24, until: 2026-11-25T11:30:00Z}
      - {net: 192.0.2.1, until: 2026-11-25T10:00:00Z}
      - 192.0.2.1
  relay:
    list: [127.0.0.1, {net: \"*.corp.example\", until: 2026-11-25T10:00:00Z}]
domains: [{name: a.example, type: default}]
";
        let name = ServerName::parse("default").unwrap();
        let (config, _) = parse_server(&name, text, "default.yaml").unwrap();
        let edits = ended(&config, Timestamp::parse("2026-11-25T12:00:00Z").unwrap());
        let removed: Vec<_> = edits
            .iter()
            .map(|edit| match edit {
                KeyEdit::Remove { key, item } => (key.as_str(), item.as_str()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            removed,
            [("access.connect.list", "203.0.113.0/24"), ("access.relay.list", "*.corp.example")]
        );
    }
}
