//! The key from which the decoys of names that nobody has follow. It outlives the daemon: a salt that
//! changed with each start would tell such names from users.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use mailroot_common::config::Secret;

use super::password::{KEY_OCTETS, random};
use crate::config::Secrets;

const NAME: &str = "decoy.key";

/// The one beside the file of users; made if there is none that can be read. One that cannot be kept
/// serves until the daemon ends. Nothing without randomness.
pub(super) fn beside(users: &Path) -> Option<[u8; KEY_OCTETS]> {
    let place = Secrets::in_directory(users.parent().unwrap_or(users));
    if let Some(kept) = read(&place) {
        return Some(kept);
    }
    let fresh = random::<KEY_OCTETS>().ok()?;
    let _kept_or_not = place.keep(NAME, &STANDARD_NO_PAD.encode(fresh));
    Some(fresh)
}

fn read(place: &Secrets) -> Option<[u8; KEY_OCTETS]> {
    let text = place.read(&Secret::File(NAME.to_owned())).ok()?;
    STANDARD_NO_PAD.decode(text.as_bytes()).ok()?.try_into().ok()
}
