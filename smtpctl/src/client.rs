//! The way to the daemon: HTTP/1.1 over its control socket.
//!
//! In: paths and bodies of `mailroot_common::control`. Out: answers, or a [`Problem`] that says
//! what is wrong and what to do. Lists arrive as one JSON object per line and are handed on line
//! by line, so that neither side holds a whole queue.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use mailroot_common::control::{Kind, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long the daemon may take to begin an answer, unless a command says otherwise.
pub(crate) const WAIT: Duration = Duration::from_secs(60);
/// What the daemon's history calls changes made with this tool.
const AGENT: &str = concat!("smtpctl/", env!("CARGO_PKG_VERSION"));
/// An answer that is not a stream is smaller than this.
const ANSWER_OCTETS_MAX: usize = 256 << 20;
/// How long a message may take on its way to the daemon.
const OCTETS_WAIT: Duration = Duration::from_secs(600);
/// A reply of SMTP is smaller than this.
const REPLY_OCTETS_MAX: usize = 1_024;
/// A line of a stream is smaller than this.
const LINE_OCTETS_MAX: usize = 16 << 20;

/// A connection to the daemon.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    socket: PathBuf,
}

impl Client {
    /// Connects to the socket.
    pub(crate) async fn connect(socket: &Path) -> Result<Self, Problem> {
        let stream =
            UnixStream::connect(socket).await.map_err(|error| not_there(socket, &error))?;
        Self::over(stream, socket).await
    }

    /// Connects to the submit socket, where everybody can ask about his own mail.
    pub(crate) async fn connect_as_owner(socket: &Path) -> Result<Self, Problem> {
        let mut stream =
            UnixStream::connect(socket).await.map_err(|error| not_there(socket, &error))?;
        let opened = timeout(WAIT, open_inquiry(&mut stream)).await.map_err(|_| too_long(WAIT))?;
        opened.map_err(|error| broken(socket, &error.to_string()))?;
        Self::over(stream, socket).await
    }

    async fn over(stream: UnixStream, socket: &Path) -> Result<Self, Problem> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(socket, &error.to_string()))?;
        // Its end shows in the requests.
        tokio::spawn(connection);
        Ok(Self { sender, socket: socket.to_owned() })
    }

    /// Asks for an object.
    pub(crate) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Problem> {
        let answer = self.send(Method::GET, path, Bytes::new(), WAIT).await?;
        self.read(answer).await
    }

    /// Asks for a change and for what became of it.
    pub(crate) async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
        wait: Duration,
    ) -> Result<T, Problem> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Problem::new("client", Kind::Failed, error.to_string()))?;
        let answer = self.send(Method::POST, path, body.into(), wait).await?;
        self.read(answer).await
    }

    /// Asks for a change of an object.
    pub(crate) async fn patch<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Problem> {
        self.give(Method::PATCH, path, body).await
    }

    /// Asks for an object to be what is sent.
    pub(crate) async fn put<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Problem> {
        self.give(Method::PUT, path, body).await
    }

    async fn give<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Problem> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Problem::new("client", Kind::Failed, error.to_string()))?;
        let answer = self.send(method, path, body.into(), WAIT).await?;
        self.read(answer).await
    }

    /// Hands octets over and asks for what became of them.
    pub(crate) async fn post_octets<T: DeserializeOwned>(
        &mut self,
        path: &str,
        octets: Vec<u8>,
    ) -> Result<T, Problem> {
        let answer = self.send(Method::POST, path, octets.into(), OCTETS_WAIT).await?;
        self.read(answer).await
    }

    /// Asks for the end of an object.
    pub(crate) async fn delete<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Problem> {
        let answer = self.send(Method::DELETE, path, Bytes::new(), WAIT).await?;
        self.read(answer).await
    }

    /// Asks for a list; `each` gets its objects as they arrive and says whether to go on.
    pub(crate) async fn lines<T: DeserializeOwned>(
        &mut self,
        path: &str,
        mut each: impl FnMut(T) -> Result<bool, Problem>,
    ) -> Result<(), Problem> {
        let answer = self.send(Method::GET, path, Bytes::new(), WAIT).await?;
        let mut body = answer.into_body();
        let mut rest: Vec<u8> = Vec::new();
        while let Some(chunk) = self.chunk(&mut body).await? {
            rest.extend_from_slice(&chunk);
            let Some(end) = rest.iter().rposition(|&octet| octet == b'\n') else {
                if rest.len() > LINE_OCTETS_MAX {
                    return Err(broken(&self.socket, "a line is too long"));
                }
                continue;
            };
            // An empty line says only that the daemon is still there.
            let lines = rest[..end].split(|&octet| octet == b'\n');
            for line in lines.filter(|line| !line.is_empty()) {
                let object = serde_json::from_slice(line);
                if !each(object.map_err(|error| broken(&self.socket, &error.to_string()))?)? {
                    return Ok(());
                }
            }
            rest.drain(..=end);
        }
        if rest.is_empty() { Ok(()) } else { Err(broken(&self.socket, "the list was cut off")) }
    }

    /// Asks for octets; `each` gets them as they arrive.
    pub(crate) async fn octets(
        &mut self,
        path: &str,
        mut each: impl FnMut(&[u8]) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let answer = self.send(Method::GET, path, Bytes::new(), WAIT).await?;
        let mut body = answer.into_body();
        while let Some(chunk) = self.chunk(&mut body).await? {
            each(&chunk)?;
        }
        Ok(())
    }

    async fn chunk(&self, body: &mut Incoming) -> Result<Option<Bytes>, Problem> {
        loop {
            let frame = timeout(WAIT, body.frame()).await.map_err(|_| too_long(WAIT))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(&self.socket, &error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        wait: Duration,
    ) -> Result<Response<Incoming>, Problem> {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("host", "localhost").header("user-agent", AGENT);
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| Problem::new("client", Kind::Usage, error.to_string()))?;
        let asked = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let answer = timeout(wait, asked).await.map_err(|_| too_long(wait))?;
        let answer = answer.map_err(|error| broken(&self.socket, &error.to_string()))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        let body = self.whole(answer).await?;
        Err(serde_json::from_slice(&body).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(&body);
            let kind = Kind::of_status(status);
            let detail = format!("the daemon answered {status} {}", text.trim());
            Problem::new("client", kind, detail).word("answer")
        }))
    }

    async fn whole(&self, answer: Response<Incoming>) -> Result<Vec<u8>, Problem> {
        let mut body = answer.into_body();
        let mut whole = Vec::new();
        while let Some(chunk) = self.chunk(&mut body).await? {
            if whole.len() + chunk.len() > ANSWER_OCTETS_MAX {
                return Err(broken(&self.socket, "the answer is too long"));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }

    async fn read<T: DeserializeOwned>(&self, answer: Response<Incoming>) -> Result<T, Problem> {
        let body = self.whole(answer).await?;
        serde_json::from_slice(&body).map_err(|error| {
            broken(&self.socket, &error.to_string())
                .hint("smtpctl and smtpd are of different versions? See smtpctl version")
        })
    }
}

/// Has the daemon answer questions over a connection that begins as SMTP.
async fn open_inquiry(stream: &mut UnixStream) -> io::Result<()> {
    expect_220(stream).await?;
    stream.write_all(b"XQUERY\r\n").await?;
    expect_220(stream).await
}

/// Reads a reply of one line, octet by octet: what comes behind it is not SMTP.
async fn expect_220(stream: &mut UnixStream) -> io::Result<()> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < REPLY_OCTETS_MAX {
        line.push(stream.read_u8().await?);
    }
    if line.starts_with(b"220 ") {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&line).trim_end().to_owned()))
}

fn too_long(wait: Duration) -> Problem {
    let detail = format!("the daemon did not answer within {} s", wait.as_secs());
    Problem::new("daemon", Kind::TimedOut, detail)
}

fn broken(socket: &Path, why: &str) -> Problem {
    let detail = format!("the conversation over {} broke off: {why}", socket.display());
    Problem::new("daemon", Kind::Failed, detail)
}

fn not_there(socket: &Path, error: &io::Error) -> Problem {
    let path = socket.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let detail = format!("you may not use the socket {path}");
            Problem::new("daemon", Kind::NotPermitted, detail)
                .hint("use sudo, or have yourself added to the group mailroot-operators")
        }
        io::ErrorKind::NotFound => {
            let detail = format!("the daemon is not running: there is no {path}");
            Problem::new("daemon", Kind::Unavailable, detail).hint(
                "start it with: systemctl start mailroot, or smtpd --home DIR; \
                 smtpctl finds the latter with --home DIR or MAILROOT_HOME",
            )
        }
        io::ErrorKind::ConnectionRefused => {
            let detail = format!("the daemon is not running: nobody answers at {path}");
            Problem::new("daemon", Kind::Unavailable, detail)
                .hint("start it with: systemctl start mailroot, or smtpd --home DIR")
        }
        _ => {
            let detail = format!("cannot reach the daemon at {path}: {error}");
            Problem::new("daemon", Kind::Unavailable, detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    fn answer_with(socket: &Path, answer: &'static [u8]) -> tokio::task::JoinHandle<()> {
        let listener = UnixListener::bind(socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert_ne!(stream.read(&mut request).await.unwrap(), 0);
            stream.write_all(answer).await.unwrap();
        })
    }

    #[tokio::test]
    async fn a_missing_daemon_is_exit_5_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let problem = Client::connect(&socket).await.err().unwrap();
        assert_eq!(problem.exit, 5);
        assert!(problem.hint.unwrap().contains("systemctl start"));
        drop(UnixListener::bind(&socket).unwrap());
        let problem = Client::connect(&socket).await.err().unwrap();
        assert_eq!(problem.exit, 5);
    }

    #[tokio::test]
    async fn answers_become_objects_or_problems() {
        let table: [(&'static [u8], Result<u32, u8>); 6] = [
            (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n7", Ok(7)),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", Err(1)),
            (b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n", Err(5)),
            (
                b"HTTP/1.1 404 x\r\nconnection: close\r\n\r\n{\"type\":\"x\",\"code\":\"queue.not_found\",\"title\":\"t\",\"status\":404,\"exit\":3,\"detail\":\"d\",\"hint\":\"h\"}",
                Err(3),
            ),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1", Err(1)),
            (b"SSH-2.0-x\r\n", Err(1)),
        ];
        for (answer, expected) in table {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("control.sock");
            let daemon = answer_with(&socket, answer);
            let mut client = Client::connect(&socket).await.unwrap();
            let got = client.get::<u32>("/v1/x").await.map_err(|problem| problem.exit);
            assert_eq!(got, expected, "{}", String::from_utf8_lossy(answer));
            daemon.await.unwrap();
        }
    }

    #[tokio::test]
    async fn lines_arrive_one_by_one_and_a_cut_list_is_told() {
        let whole: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n1\n2\r\n4\r\n2\n3\n\r\n0\r\n\r\n";
        let cut: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n1\n2\r\n";
        for (answer, expected, exit) in [(whole, vec![1, 22, 3], None), (cut, vec![1], Some(1))] {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("control.sock");
            let daemon = answer_with(&socket, answer);
            let mut client = Client::connect(&socket).await.unwrap();
            let mut got = Vec::new();
            let end = client.lines::<u32>("/v1/x", |n| {
                got.push(n);
                Ok(true)
            });
            assert_eq!(end.await.err().map(|problem| problem.exit), exit);
            assert_eq!(got, expected);
            daemon.await.unwrap();
        }
    }
}
