//! Postfix as an instance of its own: its configuration, queue, log and port; nothing of the
//! system's is read or written.
//!
//! It is set up as one would who wants it fast on this machine without giving up durability:
//! process limits above the number of sessions, no look-ups of names, no rate limits, connections
//! to the next hop kept, and as many of them as Mailroot opens. Every service stays.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Instant;

use nix::unistd::User;
use tokio::process::Command;

use super::Setup;
use crate::Outcome;

const SERVICES: &str = "\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
tlsproxy unix - - n - 0 tlsproxy
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

pub(super) fn configure(home: &Path, port: u16, setup: &Setup) -> Outcome<()> {
    for folder in ["etc", "queue", "data", "log"] {
        fs::create_dir_all(home.join(folder))?;
    }
    let user = User::from_name("postfix")?.ok_or("there is no user postfix")?;
    // Its tools log too, as that user, when they find what a kill has left.
    fs::write(home.join("log/mail"), "")?;
    for ours in ["data", "log", "log/mail"] {
        chown(home.join(ours), Some(user.uid.as_raw()), None)?;
    }
    let (at, next_hop) = (home.display(), setup.next_hop);
    let tls = match setup.tls {
        true => "encrypt\nsmtp_tls_connection_reuse = yes\ntls_random_source = dev:/dev/urandom",
        false => "none",
    };
    let preload = if setup.preload.is_some() { " LD_PRELOAD SLOW_DISK_MS" } else { "" };
    let main = format!(
        "compatibility_level = 3.6\nqueue_directory = {at}/queue\ndata_directory = {at}/data\n\
         maillog_file = {at}/log/mail\nmaillog_file_prefixes = {at}/log\n\
         import_environment = MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C{preload}\n\
         myhostname = postfix.test\nmydestination =\nmynetworks = 127.0.0.0/8\n\
         inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nsmtp_bind_address = 127.0.0.1\n\
         relayhost = [127.0.0.1]:{next_hop}\n\
         smtpd_peername_lookup = no\nsmtp_dns_support_level = disabled\n\
         alias_maps =\nalias_database =\nlocal_recipient_maps =\n\
         smtpd_relay_restrictions = permit_mynetworks, reject\nsmtpd_recipient_restrictions =\n\
         smtpd_client_connection_count_limit = 0\nsmtpd_client_connection_rate_limit = 0\n\
         message_size_limit = 209715200\nmailbox_size_limit = 0\n\
         default_process_limit = 200\nmax_use = 1000\n\
         in_flow_delay = 0\nqmgr_message_active_limit = 100000\n\
         qmgr_message_recipient_limit = 100000\n\
         default_destination_concurrency_limit = 20\ninitial_destination_concurrency = 20\n\
         smtp_connection_cache_destinations = static:all\n\
         smtp_tls_security_level = {tls}\nsmtpd_tls_security_level = none\n"
    );
    fs::write(home.join("etc/main.cf"), main)?;
    let master = format!("127.0.0.1:{port} inet n - n - - smtpd\n{SERVICES}");
    fs::write(home.join("etc/master.cf"), master)?;
    Ok(())
}

pub(super) fn command(home: &Path) -> Command {
    let mut command = Command::new("postfix");
    command.arg("-c").arg(home.join("etc")).arg("start-fg");
    command
}

/// The process id of the running instance's master.
pub(super) fn master(home: &Path) -> Outcome<u32> {
    let path = home.join("queue/pid/master.pid");
    let begun = Instant::now();
    loop {
        match fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()) {
            Some(pid) => return Ok(pid),
            None if begun.elapsed().as_secs() > 10 => return Err("Postfix has no master".into()),
            None => std::thread::yield_now(),
        }
    }
}
