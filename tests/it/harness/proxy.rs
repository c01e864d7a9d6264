//! A TCP proxy in front of one server, with the faults of a network on demand.
//!
//! A server reached through it is named by the proxy's address: a one-node set with `directConnection=true`, as
//! [`Proxy::uri`] has it, or a set in whose configuration the proxy is the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A running proxy; its connections end with it.
pub struct Proxy {
    port: u16,
    faults: watch::Sender<Faults>,
    accepted: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

/// On which connections no byte passes, while nothing is closed.
#[derive(Clone, Copy, Default, PartialEq)]
enum Frozen {
    #[default]
    None,
    /// On those of the first so many that have read a cursor; a client's looks at the server's health pass.
    Cursors(u64),
    All,
}

#[derive(Clone, Copy, Default)]
struct Faults {
    frozen: Frozen,
    /// New connections are reset.
    refusing: bool,
    /// How often all connections were cut; one that was made before the last cut ends.
    cuts: u64,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 for connections to `target`, another port of it.
    pub async fn start(target: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind the proxy");
        let port = listener.local_addr().expect("bound address").port();
        let (faults, seen) = watch::channel(Faults::default());
        let accepted = Arc::new(AtomicU64::new(0));
        let accepting = tokio::spawn(accept(listener, target, seen, Arc::clone(&accepted)));
        Proxy { port, faults, accepted, accepting }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The connection string of a one-node replica set behind it.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }

    /// How many connections were accepted so far, refused ones included.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Resets all connections there are; new ones are served.
    pub fn cut(&self) {
        self.faults.send_modify(|faults| faults.cuts += 1);
    }

    /// Half-open from now on: new connections are accepted too, but no byte passes in either direction and nothing is closed.
    pub fn freeze(&self) {
        self.faults.send_modify(|faults| faults.frozen = Frozen::All);
    }

    /// Half-open are only those connections there are now on which a cursor was read, as when something on the way has forgotten
    /// them.
    pub fn freeze_cursors(&self) {
        let accepted = self.accepted();
        self.faults.send_modify(|faults| faults.frozen = Frozen::Cursors(accepted));
    }

    /// Ends [`Proxy::freeze`] and [`Proxy::freeze_cursors`]: what was held passes.
    pub fn thaw(&self) {
        self.faults.send_modify(|faults| faults.frozen = Frozen::None);
    }

    /// Resets new connections from now on; those there are stay.
    pub fn refuse(&self) {
        self.faults.send_modify(|faults| faults.refusing = true);
    }

    /// Ends [`Proxy::refuse`].
    pub fn allow(&self) {
        self.faults.send_modify(|faults| faults.refusing = false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: u16, faults: watch::Receiver<Faults>, accepted: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let number = accepted.fetch_add(1, Ordering::Relaxed) + 1;
        while connections.try_join_next().is_some() {}
        if faults.borrow().refusing {
            reset(client);
        } else {
            connections.spawn(serve(client, target, faults.clone(), number));
        }
    }
}

/// What is known of one connection.
struct Connection {
    /// Counted from 1.
    number: u64,
    /// A cursor was read on it.
    has_cursor: AtomicBool,
}

/// Passes bytes both ways until either side closes or the connection is cut.
async fn serve(mut client: TcpStream, target: u16, mut faults: watch::Receiver<Faults>, number: u64) {
    let cuts = faults.borrow().cuts;
    let mut cutting = faults.clone();
    let was_cut = async move {
        let _ = cutting.wait_for(|faults| faults.cuts != cuts).await;
    };
    tokio::pin!(was_cut);
    // A frozen network does not reach the server either.
    let thawed = tokio::select! {
        thawed = faults.wait_for(|faults| faults.frozen != Frozen::All) => thawed.is_ok(),
        () = &mut was_cut => false,
    };
    let server = if thawed { TcpStream::connect(("127.0.0.1", target)).await.ok() } else { None };
    let Some(mut server) = server else { return reset(client) };
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("set TCP_NODELAY");
    }
    let was_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let connection = Connection { number, has_cursor: AtomicBool::new(false) };
        let upwards = pass(from_client, to_server, faults.clone(), &connection);
        let downwards = pass(from_server, to_client, faults.clone(), &connection);
        tokio::select! {
            _ = async { tokio::join!(upwards, downwards) } => false,
            () = &mut was_cut => true,
        }
    };
    if was_cut {
        reset(client);
        reset(server);
    }
}

/// One direction, until its reading end is closed or either end is broken.
async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut faults: watch::Receiver<Faults>,
    connection: &Connection,
) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if buffer[..read].windows(8).any(|bytes| bytes == b"getMore\0") {
            connection.has_cursor.store(true, Ordering::Relaxed);
        }
        let passes = |faults: &Faults| match faults.frozen {
            Frozen::None => true,
            Frozen::Cursors(first) => connection.number > first || !connection.has_cursor.load(Ordering::Relaxed),
            Frozen::All => false,
        };
        // What was read just before the freeze is held as well, also the news that the other end has closed.
        if faults.wait_for(passes).await.is_err() {
            return;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            let _ = to.shutdown().await;
            return;
        }
    }
}

/// Closes with a reset instead of an orderly end.
fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
}
