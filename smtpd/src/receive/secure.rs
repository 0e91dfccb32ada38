//! How the connection of a session comes under TLS.

use super::session::Session;
use crate::net::Stream;
use crate::observe::Level;

/// Does the handshake; false if it failed, which the log was told then.
pub(super) async fn handshake(session: &mut Session<'_>) -> bool {
    let parts = &session.client.inner.parts;
    let Some(tls) = &session.client.settings.tls else { return false };
    let stream = std::mem::replace(session.stream, Stream::Gone);
    let live = session.live;
    let done = tokio::select! {
        biased;
        done = tls.secure(stream) => done,
        () = live.killed() => Err("the session was ended".to_owned()),
    };
    match done {
        Ok((stream, tls)) => {
            *session.stream = stream;
            session.client.tls = Some(tls);
            live.show_tls(tls.version);
            parts.counters.tls_sessions.add_one();
            let line = parts.log.line(Level::Info, "tls").word("server", &parts.name);
            let line = line.word("sid", live.id).word("client", live.client.ip());
            line.word("tls", tls.version).word("cipher", tls.cipher).send();
            true
        }
        Err(reason) => {
            parts.counters.tls_failed.add_one();
            let line = parts.log.line(Level::Info, "tls-failed").word("server", &parts.name);
            let line = line.word("sid", live.id).word("client", live.client.ip());
            line.word("port", live.client.port()).text("reason", reason).send();
            false
        }
    }
}
