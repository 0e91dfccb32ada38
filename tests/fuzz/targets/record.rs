//! Records of the log store: any segment is read to its end without a panic, what was written is
//! found, and damaged octets never pass for a record. The room's own files are compiled in here,
//! because nothing outside of it has any business with the form of records.
#![no_main]

/// The room's files ask for this by name.
#[allow(dead_code, unused_imports)]
#[path = "../../../smtpd/src/disk/mod.rs"]
mod disk;

/// What the disk's probe asks for by name; nothing is measured here.
#[allow(dead_code)]
mod clock {
    use std::time::Duration;

    #[derive(Debug)]
    pub struct Clock;

    impl Clock {
        pub fn elapsed(&self) -> Duration {
            Duration::ZERO
        }
    }
}

#[allow(dead_code)]
#[path = "record/log.rs"]
mod log;

libfuzzer_sys::fuzz_target!(|input: &[u8]| log::run(input));
