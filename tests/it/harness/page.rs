//! The page of the browser tests and its server: hands it tasks and keeps what it reports. Knows nothing of the browser.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::Value;

const PAGE: &str = include_str!("browser.html");

/// A request for a task is answered after this long where there is none.
const TASK_WAIT: Duration = Duration::from_secs(1);

/// Something that the page has seen of one stream.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Seen {
    /// The stream is open, with its `readyState`; with `fetch()`, with the status.
    Open { state: u16 },
    /// An event without a name.
    Message { id: String, data: String },
    /// What the plugin sends in place of a history that is gone.
    Reset { id: String, data: String },
    /// The stream has ended or could not be opened, with the `readyState` then.
    Error { state: u16 },
    /// Everything that `fetch()` has read so far.
    Text { data: String },
    /// `fetch()` was not allowed to read it.
    Refused { data: String },
}

/// A page's server, and what is known of the page. Serves until it is dropped.
pub struct Page {
    port: u16,
    shared: Arc<Shared>,
}

/// What its threads share with the test.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The page has asked for its first task.
    here: bool,
    tasks: VecDeque<Value>,
    /// By stream, in order.
    seen: Vec<(String, Seen)>,
    closed: bool,
}

impl Page {
    /// Serves the page on a free port of 127.0.0.1.
    pub fn serve() -> Page {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a port for the page");
        let port = listener.local_addr().expect("bound address").port();
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if served.state.lock().expect("page").closed {
                    return;
                }
                let served = Arc::clone(&served);
                std::thread::spawn(move || served.answer(&stream));
            }
        });
        Page { port, shared }
    }

    /// Its origin, as browsers write it.
    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// True once its script runs.
    pub fn is_here(&self) -> bool {
        self.shared.state.lock().expect("page").here
    }

    /// Gives it a task; tasks are done in order.
    pub fn task(&self, task: Value) {
        self.shared.state.lock().expect("page").tasks.push_back(task);
        self.shared.changed.notify_all();
    }

    /// What it has seen of a stream, in order.
    pub fn seen(&self, stream: &str) -> Vec<Seen> {
        let state = self.shared.state.lock().expect("page");
        state.seen.iter().filter(|(name, _)| name == stream).map(|(_, seen)| seen.clone()).collect()
    }

    /// Everything it has seen, for a person.
    pub fn report(&self) -> String {
        let state = self.shared.state.lock().expect("page");
        let short = |(stream, seen): &(String, Seen)| format!("{stream}: {:.300}", format!("{seen:?}"));
        state.seen.iter().map(short).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.shared.state.lock().expect("page").closed = true;
        self.shared.changed.notify_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    /// One request for each connection. One that the browser gave up is nobody's fault.
    fn answer(&self, mut stream: &TcpStream) {
        let Some((target, body)) = request(stream) else { return };
        let (status, kind, text) = match target.as_str() {
            "/" => ("200 OK", "text/html; charset=utf-8", PAGE.to_owned()),
            "/next" => match self.next() {
                Some(task) => ("200 OK", "application/json", task.to_string()),
                None => ("204 No Content", "text/plain", String::new()),
            },
            "/seen" => {
                self.take(&body);
                ("204 No Content", "text/plain", String::new())
            }
            _ => ("404 Not Found", "text/plain", String::new()),
        };
        let length = text.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n");
        let _ = write!(stream, "{head}Cache-Control: no-store\r\nConnection: close\r\n\r\n{text}");
    }

    fn next(&self) -> Option<Value> {
        let mut state = self.state.lock().expect("page");
        state.here = true;
        let idle = |state: &mut State| state.tasks.is_empty() && !state.closed;
        let (mut state, _) = self.changed.wait_timeout_while(state, TASK_WAIT, idle).expect("page");
        state.tasks.pop_front()
    }

    fn take(&self, body: &[u8]) {
        let report: Value = serde_json::from_slice(body).expect("the page reports JSON");
        let stream = report["stream"].as_str().expect("of a stream").to_owned();
        let seen = serde_json::from_value(report).expect("something known");
        self.state.lock().expect("page").seen.push((stream, seen));
    }
}

/// Path and body; `None` where the connection ends before.
fn request(stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let target = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((target, body))
}
