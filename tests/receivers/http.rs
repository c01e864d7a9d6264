//! What the receivers have in common: HTTP/1.1 over real TCP, requests of any number on a connection, an outage on request.
//! Knows nothing of what a request means.
//!
//! It depends on std only; a test includes it by `#[path]`, as `http` beside its receivers.
#![allow(dead_code)] // each receiver uses the part it needs

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long a test waits for anything before it has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One HTTP request, whole.
#[derive(Debug, Clone, Default)]
pub struct Call {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// An answer on its way.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
    /// No answer: the connection is closed.
    pub cut: bool,
}

struct Shared {
    answering: Box<dyn Fn(Call) -> Answer + Send + Sync>,
    /// Open connections, to cut them.
    connections: Mutex<Vec<TcpStream>>,
    stopping: AtomicBool,
}

/// A server on a free port of 127.0.0.1. Ends when it is dropped.
pub struct Server {
    shared: Arc<Shared>,
    port: u16,
    listening: Option<JoinHandle<()>>,
}

impl Server {
    /// `answering` is asked for every request, on the thread of its connection: it may wait.
    pub fn start(answering: impl Fn(Call) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let answering = Box::new(answering);
        let shared = Arc::new(Shared { answering, connections: Mutex::default(), stopping: AtomicBool::new(false) });
        let listening = Some(listen(listener, shared.clone()));
        Self { shared, port, listening }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// An outage: nobody listens, and open connections are cut.
    pub fn stop(&mut self) {
        let Some(listening) = self.listening.take() else { return };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        listening.join().expect("the listening thread ends well");
        for connection in lock(&self.shared.connections).drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// The end of the outage: listens on the same port.
    pub fn start_again(&mut self) {
        assert!(self.listening.is_none(), "it was stopped");
        let deadline = Instant::now() + PATIENCE;
        // Another program's outgoing connection may have the port for a moment.
        let listener = loop {
            match TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)) {
                Ok(listener) => break listener,
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                    thread::yield_now()
                }
                Err(error) => panic!("listen on port {} again: {error}", self.port),
            }
        };
        self.shared.stopping.store(false, Ordering::SeqCst);
        self.listening = Some(listen(listener, self.shared.clone()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Also what a thread that panicked has left: its panic is reported by itself.
/// What a receiver remembers, for those who wait until it is as they want it.
#[derive(Default)]
pub struct Watched<R> {
    record: Mutex<R>,
    changed: Condvar,
}

impl<R: Clone> Watched<R> {
    /// A copy.
    pub fn copy(&self) -> R {
        lock(&self.record).clone()
    }

    /// A look.
    pub fn look<T>(&self, look: impl FnOnce(&R) -> T) -> T {
        look(&lock(&self.record))
    }

    /// A change, which those who wait then look at.
    pub fn change<T>(&self, change: impl FnOnce(&mut R) -> T) -> T {
        let result = change(&mut lock(&self.record));
        self.changed.notify_all();
        result
    }

    /// Waits until it is as wanted, and gives a copy.
    ///
    /// # Panics
    /// After `patience`, with `what` and the state it is in.
    pub fn wait_until(
        &self,
        patience: Duration,
        what: &str,
        wanted: impl Fn(&R) -> bool,
        state: impl Fn(&R) -> String,
    ) -> R {
        let waited = self.changed.wait_timeout_while(lock(&self.record), patience, |record| !wanted(record));
        let (record, timeout) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        assert!(!timeout.timed_out(), "waited for {what}: {}", state(&record));
        record.clone()
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn listen(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    thread::spawn(move || {
        for connection in listener.incoming() {
            if shared.stopping.load(Ordering::SeqCst) {
                return;
            }
            let Ok(connection) = connection else { continue };
            let Ok(copy) = connection.try_clone() else { continue };
            lock(&shared.connections).push(copy);
            let shared = shared.clone();
            thread::spawn(move || serve(connection, &shared));
        }
    })
}

/// Request after request, until the other side or this one closes.
fn serve(connection: TcpStream, shared: &Shared) {
    let (Ok(mut writing), Ok(peer)) = (connection.try_clone(), connection.peer_addr()) else { return };
    // An answer is head and body at once: waiting for more would only delay it.
    let _ = writing.set_nodelay(true);
    let mut reading = BufReader::new(connection);
    while let Ok(Some(call)) = read_call(&mut reading) {
        let answer = (shared.answering)(call);
        if answer.cut || write_answer(&mut writing, &answer).is_err() {
            break;
        }
    }
    let _ = writing.shutdown(Shutdown::Both);
    lock(&shared.connections).retain(|other| other.peer_addr().is_ok_and(|address| address != peer));
}

/// `None` at the end of the connection.
fn read_call(reading: &mut impl BufRead) -> io::Result<Option<Call>> {
    let mut line = String::new();
    if reading.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut call = Call { method, target, ..Call::default() };
    loop {
        let mut line = String::new();
        if reading.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        call.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = call.headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    call.body = vec![0; length];
    reading.read_exact(&mut call.body)?;
    Ok(Some(call))
}

fn write_answer(writing: &mut TcpStream, answer: &Answer) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {} Status\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(&answer.body);
    writing.write_all(text.as_bytes())
}
