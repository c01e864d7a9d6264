//! A client of the plugin on a real socket: one request, then frames as the HTML standard reads them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tailwater_sdk::Progress;
use tailwater_sdk::testing::{Harness, TestEvent};
use tailwater_sse::Sse;

/// How long a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The second in which the tests' daemon started: events before it are history.
pub const LIVE_FROM: u64 = 1_000;

/// An output on a free port whose stream is complete from second 500 on.
pub fn start(options: serde_json::Value) -> Harness<Sse> {
    let harness = start_waiting(options);
    harness.progress(Progress { complete_from: 500 << 32, live_from: LIVE_FROM << 32, reached: 500 << 32 });
    harness
}

/// The same before its stream has begun.
pub fn start_waiting(mut options: serde_json::Value) -> Harness<Sse> {
    options["listen"] = json!("127.0.0.1:0");
    Harness::<Sse>::start(options).expect("it starts")
}

/// Where the output listens.
pub fn address(harness: &Harness<Sse>) -> String {
    let logs = harness.logs();
    let line = logs.iter().find_map(|record| record.message.strip_prefix("listening on http://")).expect("it says so");
    line.split('/').next().expect("an address").to_owned()
}

/// An event at this second and index, with `text` in its JSON.
pub fn event(seconds: u64, index: u32, text: &str) -> TestEvent {
    let mut event = TestEvent::new("insert", "shop", "orders");
    event.id = id(seconds, index);
    event.cluster_time = seconds << 32;
    event.json =
        Some(json!({ "id": event.id, "text": text, "city": text.chars().take(1).collect::<String>() }).to_string());
    event
}

/// Its id.
pub fn id(seconds: u64, index: u32) -> String {
    format!("{:016x}-{index:08x}{:08x}", seconds << 32, 0xabcd_0000_u32 + index)
}

/// What a page's EventSource would dispatch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// `message` where the frame names none.
    pub event: String,
    /// The last id.
    pub id: String,
    /// The data, its lines joined.
    pub data: String,
}

/// One connection.
pub struct Client {
    /// The status line and headers, lower case.
    pub head: String,
    reader: BufReader<TcpStream>,
    chunked: bool,
    /// Decoded and not yet parsed.
    text: String,
    /// Comments so far, and the last `retry`.
    pub comments: usize,
    /// In milliseconds.
    pub retry: Option<u64>,
    /// What a browser would come back with.
    pub last_id: String,
    /// The body came to its proper end.
    pub finished: bool,
}

impl Client {
    /// Sends a request for `/events` with these query and headers, and reads the head of the answer.
    pub fn connect(address: &str, query: &str, headers: &[(&str, &str)]) -> Client {
        let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        Client::send(address, &format!("GET /events{query} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"))
    }

    /// Sends a request as it is, and reads the head of the answer.
    pub fn send(address: &str, request: &str) -> Client {
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(request.as_bytes()).expect("send");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).expect("a head") > 0, "the connection ended in the head: {head:?}");
        }
        let head = head.to_ascii_lowercase();
        let chunked = head.contains("transfer-encoding: chunked");
        let (text, last_id) = (String::new(), String::new());
        Client { head, reader, chunked, text, comments: 0, retry: None, last_id, finished: false }
    }

    /// The status of the answer.
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }

    /// The next dispatched message; `None` when the connection has ended.
    pub fn next(&mut self) -> Option<Message> {
        loop {
            while let Some((frame, rest)) = self.text.split_once("\n\n").map(|(a, b)| (a.to_owned(), b.to_owned())) {
                self.text = rest;
                if let Some(message) = self.frame(&frame) {
                    return Some(message);
                }
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// The next `count` messages.
    pub fn take(&mut self, count: usize) -> Vec<Message> {
        (0..count).map(|n| self.next().unwrap_or_else(|| panic!("the stream ended before message {n}"))).collect()
    }

    /// Reads until a comment has come.
    pub fn wait_for_comments(&mut self, count: usize) {
        let started = Instant::now();
        while self.comments < count {
            assert!(started.elapsed() < PATIENCE, "{} comments", self.comments);
            let Some((frame, rest)) = self.text.split_once("\n\n").map(|(a, b)| (a.to_owned(), b.to_owned())) else {
                assert!(self.more(), "the stream ended after {} comments", self.comments);
                continue;
            };
            self.text = rest;
            assert_eq!(self.frame(&frame), None, "a message, not a comment");
        }
    }

    fn frame(&mut self, frame: &str) -> Option<Message> {
        assert!(!frame.contains('\r'), "LF only: {frame:?}");
        let (mut event, mut data) = ("message".to_owned(), Vec::new());
        for line in frame.lines() {
            match line.split_once(": ").unwrap_or((line, "")) {
                ("data", value) => data.push(value.to_owned()),
                ("event", value) => event = value.to_owned(),
                ("id", value) => self.last_id = value.to_owned(),
                ("retry", value) => self.retry = Some(value.parse().expect("digits")),
                (comment, _) if comment.starts_with(':') => self.comments += 1,
                (other, _) => panic!("a field {other:?}"),
            }
        }
        (!data.is_empty()).then(|| Message { event, id: self.last_id.clone(), data: data.join("\n") })
    }

    /// Reads one chunk, or what there is of an unchunked body.
    fn more(&mut self) -> bool {
        if !self.chunked {
            let mut bytes = [0; 4096];
            let count = self.reader.read(&mut bytes).unwrap_or(0);
            self.text.push_str(std::str::from_utf8(&bytes[..count]).expect("UTF-8"));
            self.finished = count == 0;
            return count > 0;
        }
        let mut size = String::new();
        if self.reader.read_line(&mut size).unwrap_or(0) == 0 {
            return false;
        }
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
        let mut chunk = vec![0; size + 2];
        if self.reader.read_exact(&mut chunk).is_err() {
            return false;
        }
        self.finished = size == 0;
        self.text.push_str(std::str::from_utf8(&chunk[..size]).expect("UTF-8"));
        size > 0
    }
}
