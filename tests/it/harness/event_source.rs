//! A client of Server-Sent Events that behaves as a browser's `EventSource` (WHATWG HTML §9.2): keeps the last id, comes back with
//! it after the time that the server named, tries again where nobody listens, and gives up for good on any other answer than a
//! stream. Remembers all that it was given.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Before the server has named a time.
const RETRY_DEFAULT: Duration = Duration::from_millis(100);

/// One event as a page gets it.
#[derive(Debug, Clone)]
pub struct Message {
    /// The page's `lastEventId`.
    pub id: String,
    /// `message`, or the event's own name.
    pub event: String,
    /// The lines of `data`, joined.
    pub data: String,
    /// When its last byte had come.
    pub arrived: Instant,
    /// Number of the connection, from 0.
    pub connection: usize,
}

impl Message {
    /// Its data, read.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {:?}", self.data))
    }
}

/// All that has happened.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Every event, resets among them, in order.
    pub messages: Vec<Message>,
    /// For each stream that was begun the `Last-Event-ID` that was sent.
    pub streams: Vec<Option<String>>,
    /// Attempts that ended without a stream because nobody answered.
    pub refused: usize,
    /// Why it gave up, as browsers do.
    pub failure: Option<String>,
}

struct Shared {
    address: SocketAddr,
    path: String,
    record: Mutex<Record>,
    /// The open connection, to end it.
    connection: Mutex<Option<TcpStream>>,
    stopping: Mutex<bool>,
    stopped: Condvar,
}

/// A client on a thread of its own. Ends when it is dropped.
pub struct EventSource {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl EventSource {
    /// Connects to this port of 127.0.0.1, also where nobody listens yet.
    pub fn open(port: u16, path: &str, last_event_id: Option<&str>) -> EventSource {
        let shared = Arc::new(Shared {
            address: (Ipv4Addr::LOCALHOST, port).into(),
            path: path.to_owned(),
            record: Mutex::default(),
            connection: Mutex::default(),
            stopping: Mutex::new(false),
            stopped: Condvar::new(),
        });
        let (reader, last_id) = (Arc::clone(&shared), last_event_id.map(str::to_owned));
        let thread = Some(std::thread::spawn(move || reader.run(last_id.unwrap_or_default())));
        EventSource { shared, thread }
    }

    /// A look at all that has happened.
    pub fn look<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&lock(&self.shared.record))
    }

    /// A copy of all that has happened.
    pub fn record(&self) -> Record {
        self.look(Record::clone)
    }

    /// How many events it has.
    pub fn count(&self) -> usize {
        self.look(|record| record.messages.len())
    }

    /// Closes the connection, and gives all that has happened.
    pub fn close(mut self) -> Record {
        self.end();
        self.record()
    }

    fn end(&mut self) {
        *lock(&self.shared.stopping) = true;
        self.shared.stopped.notify_all();
        if let Some(connection) = &*lock(&self.shared.connection) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the client's thread panicked");
        }
    }
}

impl Drop for EventSource {
    fn drop(&mut self) {
        self.end();
    }
}

/// What one connection has come to.
enum Ended {
    /// The network's fault, or an orderly end: it comes back.
    ComesBack,
    /// It is not wanted here.
    GivesUp(String),
}

impl Shared {
    fn run(&self, mut last_id: String) {
        let mut retry = RETRY_DEFAULT;
        while !*lock(&self.stopping) {
            let before = lock(&self.record).streams.len();
            if let Ok(Ended::GivesUp(failure)) = self.connect(&mut last_id, &mut retry) {
                lock(&self.record).failure = Some(failure);
                return;
            }
            let mut record = lock(&self.record);
            record.refused += usize::from(record.streams.len() == before);
            drop(record);
            let waited = self.stopped.wait_timeout_while(lock(&self.stopping), retry, |stopping| !*stopping);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// From one connection to its end. An error is the network's.
    fn connect(&self, last_id: &mut String, retry: &mut Duration) -> io::Result<Ended> {
        let mut stream = TcpStream::connect(self.address)?;
        // On the local machine an attempt where nobody listens may by chance meet itself.
        if stream.local_addr()? == self.address {
            return Ok(Ended::ComesBack);
        }
        *lock(&self.connection) = Some(stream.try_clone()?);
        if *lock(&self.stopping) {
            return Ok(Ended::ComesBack);
        }
        let mut request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", self.path, self.address);
        request.push_str("Accept: text/event-stream\r\nCache-Control: no-cache\r\n");
        if !last_id.is_empty() {
            request.push_str(&format!("Last-Event-ID: {last_id}\r\n"));
        }
        stream.write_all(format!("{request}\r\n").as_bytes())?;
        let mut stream = BufReader::new(stream);
        let head = read_head(&mut stream)?;
        let is_stream = head[0].starts_with("http/1.1 200 ")
            && head.iter().any(|line| line.starts_with("content-type: text/event-stream"));
        if !is_stream {
            return Ok(Ended::GivesUp(head.join(", ")));
        }
        let connection = {
            let mut record = lock(&self.record);
            record.streams.push(Some(last_id.clone()).filter(|id| !id.is_empty()));
            record.streams.len() - 1
        };
        if head.contains(&"transfer-encoding: chunked".to_owned()) {
            self.read(BufReader::new(Chunks { stream, left: 0 }), connection, last_id, retry)
        } else {
            self.read(stream, connection, last_id, retry)
        }
    }

    /// Field by field, to the end. What stands behind the last empty line is not an event.
    fn read(
        &self,
        mut stream: impl BufRead,
        connection: usize,
        last_id: &mut String,
        retry: &mut Duration,
    ) -> io::Result<Ended> {
        let (mut id, mut event, mut data) = (last_id.clone(), String::new(), None::<String>);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 || !line.ends_with('\n') {
                return Ok(Ended::ComesBack);
            }
            line.pop();
            if line.contains('\r') {
                return Ok(Ended::GivesUp(format!("a carriage return in {line:?}")));
            }
            if line.is_empty() {
                last_id.clone_from(&id);
                let name = std::mem::take(&mut event);
                if let Some(data) = data.take() {
                    let event = if name.is_empty() { "message".to_owned() } else { name };
                    let message = Message { id: id.clone(), event, data, arrived: Instant::now(), connection };
                    lock(&self.record).messages.push(message);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => value.clone_into(&mut id),
                "event" => value.clone_into(&mut event),
                "data" => match &mut data {
                    Some(data) => data.extend(["\n", value]),
                    None => data = Some(value.to_owned()),
                },
                "retry" => *retry = value.parse().map_or(*retry, Duration::from_millis),
                // A comment begins with the colon; any other field is to be ignored.
                _ => {}
            }
        }
    }
}

/// The lines of a head, in lower case.
fn read_head(stream: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" if !head.is_empty() => return Ok(head),
            line => head.push(line.to_ascii_lowercase()),
        }
    }
}

/// The body of an answer in chunks (RFC 9112 §7.1).
struct Chunks<S> {
    stream: S,
    /// Of the chunk that is being read.
    left: usize,
}

impl<S: BufRead> Read for Chunks<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let mut line = String::new();
            // Behind a chunk there is the end of its line first.
            while line.trim_end().is_empty() {
                line.clear();
                if self.stream.read_line(&mut line)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            self.left = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
            if self.left == 0 {
                return Ok(0);
            }
        }
        let length = buffer.len().min(self.left);
        let read = self.stream.read(&mut buffer[..length])?;
        self.left -= read;
        match read {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
