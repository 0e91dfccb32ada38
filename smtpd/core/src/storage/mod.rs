//! What a file system and its disk are good for: mount options that break the promise of the 250
//! reply, devices whose answers cannot be believed, and how much mail the measured syncs allow.
//!
//! In: the kernel's table of mounts as text, what is known of the device, and how long syncs took.
//! Out: checks in the words of `smtpctl doctor`. That a sync says "done" can be measured; that the
//! octets then survive a loss of power cannot, so what is known to break that is named instead.

pub mod mount;
pub mod speed;

/// The topic of all checks made here.
const TOPIC: &str = "storage";
