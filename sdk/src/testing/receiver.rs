//! An HTTP/1.1 receiver on a real socket that answers as a test says, also as no honest server would. Owns its connections and
//! the record of what came. Knows no HTTP beyond what it takes to find the end of a request.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::PATIENCE;

/// Between two pieces of [`Reply::Drip`].
const DRIP_INTERVAL: Duration = Duration::from_millis(5);

/// One request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// `POST`.
    pub method: String,
    /// Path and query, as on the wire.
    pub target: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// Number of the connection, from 0.
    pub connection: usize,
    /// Number of the request on all connections, from 0.
    pub number: usize,
}

impl Received {
    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// How a receiver answers one request. The bytes are sent as they are: status line, headers, body.
#[derive(Debug, Clone)]
pub enum Reply {
    /// These bytes; the connection stays open.
    Keep(Vec<u8>),
    /// These bytes, then an orderly end of the connection.
    Close(Vec<u8>),
    /// These bytes, then a reset. The request needs a body: closing with a byte of it unread is what resets.
    Reset(Vec<u8>),
    /// These bytes, then silence until the client closes the connection.
    Hang(Vec<u8>),
    /// These bytes, then `x` after `x`, as fast as they are taken, until the client closes the connection.
    Flood(Vec<u8>),
    /// These bytes, then `x` after `x`, slowly, until the client closes the connection.
    Drip(Vec<u8>),
}

impl Reply {
    /// A whole answer with this status ("503 Service Unavailable"), headers (each ended by `\r\n`) and body.
    pub fn status(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Keep(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into_bytes())
    }
}

type Script = dyn Fn(&Received) -> Reply + Send + Sync;

/// A receiver on a port of its own of 127.0.0.1. Ends when it is dropped.
pub struct Receiver {
    shared: Arc<Shared>,
    address: SocketAddr,
}

struct Shared {
    script: Box<Script>,
    ending: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    received: Vec<Received>,
    connections: usize,
    /// Connections that the client closed first.
    hung_up: usize,
}

impl Receiver {
    /// Answers each request as `script` says.
    ///
    /// # Panics
    /// Where there is no free port.
    pub fn start(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            script: Box::new(script),
            ending: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = shared.clone();
        thread::spawn(move || accept(&listener, &accepting));
        Self { shared, address }
    }

    /// Answers every request with this.
    pub fn always(reply: Reply) -> Self {
        Self::start(move |_| reply.clone())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL with this path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What has come so far, in order.
    pub fn received(&self) -> Vec<Received> {
        self.shared.state().received.clone()
    }

    /// Waits until `count` requests have come.
    ///
    /// # Panics
    /// Where it takes more than 30 seconds.
    pub fn wait_for_requests(&self, count: usize) {
        self.wait("a request", |state| state.received.len() >= count);
    }

    /// Waits until `count` connections were closed by the client first.
    ///
    /// # Panics
    /// Where it takes more than 30 seconds.
    pub fn wait_for_hang_ups(&self, count: usize) {
        self.wait("the client to close its connection", |state| state.hung_up >= count);
    }

    fn wait(&self, what: &str, is_met: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.state();
        while !is_met(&state) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                panic!("waited {} s for {what}", PATIENCE.as_secs())
            };
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then ends and closes the port.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.ending.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let mut state = shared.state();
        let connection = state.connections;
        state.connections += 1;
        drop(state);
        let shared = shared.clone();
        thread::spawn(move || {
            // An error is a client that went away.
            if serve(&stream, connection, &shared).is_err() {
                shared.state().hung_up += 1;
                shared.changed.notify_all();
            }
        });
    }
}

/// `Ok` where this side ended the connection, an error where the client did.
fn serve(stream: &TcpStream, connection: usize, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(1, stream);
    loop {
        let (mut received, length) = head(&mut reader)?;
        received.connection = connection;
        // All but the last byte: a reset needs something that was not read.
        received.body = vec![0; length];
        let (most, last) = received.body.split_at_mut(length.saturating_sub(1));
        reader.read_exact(most)?;
        if !last.is_empty() {
            stream.peek(last)?;
        }
        {
            let mut state = shared.state();
            received.number = state.received.len();
            state.received.push(received.clone());
        }
        shared.changed.notify_all();
        let reply = (shared.script)(&received);
        if matches!(reply, Reply::Reset(_)) {
            assert!(length > 0, "a reset needs a request with a body");
        } else if length > 0 {
            reader.read_exact(&mut [0])?;
        }
        let mut stream = stream;
        match reply {
            Reply::Keep(bytes) => stream.write_all(&bytes)?,
            Reply::Close(bytes) | Reply::Reset(bytes) => return stream.write_all(&bytes),
            Reply::Hang(bytes) => {
                stream.write_all(&bytes)?;
                io::copy(&mut stream, &mut io::sink())?;
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Reply::Flood(bytes) => {
                stream.write_all(&bytes)?;
                loop {
                    stream.write_all(&[b'x'; 4096])?;
                }
            }
            Reply::Drip(bytes) => {
                stream.write_all(&bytes)?;
                loop {
                    stream.write_all(b"x")?;
                    thread::sleep(DRIP_INTERVAL);
                }
            }
        }
    }
}

/// The head of a request, and the length of its body.
fn head(reader: &mut impl BufRead) -> io::Result<(Received, usize)> {
    let mut line = || {
        let mut line = String::new();
        match reader.read_line(&mut line)? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            _ => Ok(line.trim_end().to_owned()),
        }
    };
    let first = line()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let header = line()?;
        let Some((name, value)) = header.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    Ok((Received { method, target, headers, body: Vec::new(), connection: 0, number: 0 }, length))
}
