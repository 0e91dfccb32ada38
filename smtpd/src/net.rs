//! TCP as the rooms see it: listening, accepting, connecting.
//!
//! Two arms: the machine's network, and a simulated one in memory, where a test can listen on any
//! address, and peers can vanish without a cable being pulled.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

/// The network to use. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Net {
    /// The machine's.
    Real,
    /// One in memory; clones share it.
    Simulated(SimulatedNet),
}

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;
/// What a simulated connection holds in each direction before a writer waits.
const SIMULATED_WINDOW: usize = 64 * 1024;

impl Net {
    /// Binds and listens. On IPv6 addresses the socket takes IPv6 only, so that the wildcard of
    /// each family can be bound on its own.
    ///
    /// # Errors
    ///
    /// The system's error: the address is in use, not ours, or its port needs a privilege.
    pub fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        match self {
            Self::Real => listen_tcp(address).map(Listener::Tcp),
            Self::Simulated(net) => net.listen(address).map(Listener::Memory),
        }
    }

    /// Connects; the caller bounds the wait.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub async fn connect(&self, remote: SocketAddr, source: Option<IpAddr>) -> io::Result<Stream> {
        match self {
            Self::Real => connect_tcp(remote, source).await.map(Stream::Tcp),
            Self::Simulated(net) => net.connect(remote, source).await.map(Stream::Memory),
        }
    }
}

/// Whether the system lets only one of them be listened on: one of every address is in the way of each of its kind
/// with the same port.
pub(crate) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || is_any)
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn connect_tcp(remote: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(remote).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// On the machine's network.
    Tcp(TcpListener),
    /// On a simulated one.
    Memory(SimulatedListener),
}

impl Listener {
    /// Waits for the next connection.
    ///
    /// # Errors
    ///
    /// The system's error; running out of descriptors is one, so the caller must not spin.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), peer))
            }
            Self::Memory(listener) => listener.accept().await,
        }
    }

    /// The address bound, with the real port if 0 was asked for.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Memory(listener) => Ok(listener.address),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// On the machine's network.
    Tcp(TcpStream),
    /// On a simulated one.
    Memory(DuplexStream),
    /// From a program of this machine.
    Unix(UnixStream),
    /// Under TLS, on either.
    Tls(Box<tokio_rustls::TlsStream<Self>>),
    /// Was handed on: at its end, and nothing can be written.
    Gone,
}

impl Stream {
    /// Writes octets and sees them leave: under TLS they may wait for more, and only a flush says that they
    /// have gone. Most leave at once, and then no timer is set.
    ///
    /// # Errors
    ///
    /// The outer one: they have not left within `patience`. The inner one is the system's.
    pub async fn send(
        &mut self,
        octets: &[u8],
        patience: Duration,
    ) -> Result<io::Result<()>, Elapsed> {
        let mut sending = pin!(async {
            self.write_all(octets).await?;
            self.flush().await
        });
        match poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await {
            Poll::Ready(sent) => Ok(sent),
            Poll::Pending => timeout(patience, sending).await,
        }
    }

    /// Our address on it, if the network knows one.
    #[must_use]
    pub fn local_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok().map(|at| at.ip()),
            Self::Tls(stream) => stream.get_ref().0.local_ip(),
            Self::Unix(_) | Self::Memory(_) | Self::Gone => None,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Memory(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Memory(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, buf),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Memory(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

type Door = mpsc::Sender<(DuplexStream, SocketAddr)>;

/// A network in memory. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub struct SimulatedNet {
    doors: Arc<Mutex<HashMap<SocketAddr, Door>>>,
}

impl SimulatedNet {
    fn listen(&self, address: SocketAddr) -> io::Result<SimulatedListener> {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        if doors.get(&address).is_some_and(|door| !door.is_closed()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (door, arrivals) = mpsc::channel(usize::try_from(BACKLOG).unwrap_or(1));
        doors.insert(address, door);
        Ok(SimulatedListener { address, arrivals: tokio::sync::Mutex::new(arrivals) })
    }

    async fn connect(
        &self,
        remote: SocketAddr,
        source: Option<IpAddr>,
    ) -> io::Result<DuplexStream> {
        let door = {
            let doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
            doors.get(&remote).cloned().ok_or(io::ErrorKind::ConnectionRefused)?
        };
        let (near, far) = tokio::io::duplex(SIMULATED_WINDOW);
        let peer = SocketAddr::new(source.unwrap_or_else(|| remote.ip()), 40_000);
        door.send((far, peer)).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(near)
    }
}

/// A listener on a simulated network; it stops listening when dropped.
#[derive(Debug)]
pub struct SimulatedListener {
    address: SocketAddr,
    arrivals: tokio::sync::Mutex<mpsc::Receiver<(DuplexStream, SocketAddr)>>,
}

impl SimulatedListener {
    async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let arrival = self.arrivals.lock().await.recv().await;
        let (stream, peer) = arrival.ok_or(io::ErrorKind::NotConnected)?;
        Ok((Stream::Memory(stream), peer))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn exchange(net: Net, address: SocketAddr) {
        let listener = net.listen(address).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(net.listen(address).is_err(), "an address is bound once");
        let (near, far) = tokio::join!(net.connect(address, None), listener.accept());
        let (mut near, (mut far, _)) = (near.unwrap(), far.unwrap());
        near.write_all(b"EHLO").await.unwrap();
        let mut said = [0; 4];
        far.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"EHLO");
    }

    #[tokio::test]
    async fn octets_cross_the_real_network() {
        exchange(Net::Real, "127.0.0.1:0".parse().unwrap()).await;
    }

    #[tokio::test]
    async fn octets_cross_the_simulated_network() {
        let net = Net::Simulated(SimulatedNet::default());
        exchange(net.clone(), "192.0.2.1:25".parse().unwrap()).await;
        let refused = net.connect("192.0.2.2:25".parse().unwrap(), None).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test(start_paused = true)]
    async fn octets_leave_at_once_or_within_patience_or_not() {
        let patience = Duration::from_secs(60);
        let (near, mut far) = tokio::io::duplex(8);
        let mut stream = Stream::Memory(near);
        stream.send(b"at once", patience).await.unwrap().unwrap();

        let reading = async {
            tokio::time::sleep(patience / 2).await;
            let mut read = [0; 16];
            far.read_exact(&mut read).await.unwrap();
            read
        };
        let (sent, read) = tokio::join!(stream.send(b", in time", patience), reading);
        sent.unwrap().unwrap();
        assert_eq!(&read, b"at once, in time");

        let begun = tokio::time::Instant::now();
        stream.send(b"never, for nobody reads", patience).await.unwrap_err();
        assert_eq!(begun.elapsed(), patience);
        drop(far);
        stream.send(b"nobody there", patience).await.unwrap().unwrap_err();
    }

    #[test]
    fn every_address_stands_in_the_way_of_each_of_its_kind() {
        for (one, other, expected) in [
            ("0.0.0.0:25", "127.0.0.1:25", true),
            ("127.0.0.1:25", "0.0.0.0:25", true),
            ("[::]:25", "[::1]:25", true),
            ("127.0.0.1:25", "127.0.0.1:25", true),
            ("127.0.0.1:25", "127.0.0.2:25", false),
            ("0.0.0.0:25", "127.0.0.1:26", false),
            ("[::]:25", "127.0.0.1:25", false),
        ] {
            let hit = overlap(one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(hit, expected, "{one} {other}");
        }
    }
}
