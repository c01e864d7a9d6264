//! As much of an HTTP client as the demo needs: a GET, the head of its answer, and a body that may come in chunks.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const HEAD_BYTES_MAX: usize = 16 * 1024;
const READ_BYTES: usize = 16 * 1024;
/// The line before a chunk: its length in hexadecimal digits, and extensions that nobody sends.
const CHUNK_LINE_BYTES_MAX: usize = 256;

/// An answer whose head was read.
pub struct Answer {
    /// 200 where all is well.
    pub status: u16,
    stream: TcpStream,
    chunks: Option<Chunks>,
    /// Read behind the head, and not given out yet.
    rest: Vec<u8>,
}

/// Asks for `path`, with these lines `Name: value` in the head.
///
/// # Errors
/// When nobody listens there, or what answers is not HTTP.
pub async fn get(address: SocketAddr, path: &str, headers: &[String]) -> Result<Answer> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await.context("connect: no answer")?;
    let mut stream = stream.with_context(|| format!("connect to {address}"))?;
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.context("send the request")?;
    timeout(HEAD_TIMEOUT, read_head(stream)).await.with_context(|| format!("no answer from {address}"))?
}

async fn read_head(mut stream: TcpStream) -> Result<Answer> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        ensure!(bytes.len() < HEAD_BYTES_MAX, "the head of the answer does not end");
        ensure!(stream.read_buf(&mut bytes).await? > 0, "the connection ended within the head");
    };
    let rest = bytes.split_off(end + 4);
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("the answer is not HTTP")?;
    let chunked = head.lines().any(|line| line.starts_with("transfer-encoding:") && line.contains("chunked"));
    Ok(Answer { status, stream, chunks: chunked.then(Chunks::default), rest })
}

impl Answer {
    /// The next bytes of the body; `None` at its end. Waits as long as there are none.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn read(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let mut bytes = std::mem::take(&mut self.rest);
            if bytes.is_empty() {
                bytes.reserve(READ_BYTES);
                if self.stream.read_buf(&mut bytes).await.context("read the answer")? == 0 {
                    return Ok(None);
                }
            }
            let Some(chunks) = &mut self.chunks else { return Ok(Some(bytes)) };
            let body = chunks.decode(&bytes)?;
            if !body.is_empty() {
                return Ok(Some(body));
            }
            if chunks.state == State::End {
                return Ok(None);
            }
        }
    }
}

/// Takes a body out of its chunks (RFC 9112, section 7.1).
#[derive(Default)]
struct Chunks {
    state: State,
    line: Vec<u8>,
}

#[derive(Default, PartialEq, Eq)]
enum State {
    /// In the line before a chunk, which also ends the chunk before it with an empty one.
    #[default]
    Line,
    /// In a chunk that has so many bytes left.
    Body(usize),
    End,
}

impl Chunks {
    fn decode(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>> {
        let mut body = Vec::with_capacity(bytes.len());
        while !bytes.is_empty() {
            match self.state {
                State::Line => {
                    let (first, rest) = (bytes[0], &bytes[1..]);
                    bytes = rest;
                    self.line.push(first);
                    ensure!(self.line.len() <= CHUNK_LINE_BYTES_MAX, "the line before a chunk does not end");
                    if first == b'\n' {
                        self.state = begin(&self.line)?;
                        self.line.clear();
                    }
                }
                State::Body(left) => {
                    let (taken, rest) = bytes.split_at(left.min(bytes.len()));
                    body.extend_from_slice(taken);
                    bytes = rest;
                    self.state = if taken.len() == left { State::Line } else { State::Body(left - taken.len()) };
                }
                State::End => break,
            }
        }
        Ok(body)
    }
}

fn begin(line: &[u8]) -> Result<State> {
    let line = String::from_utf8_lossy(line);
    let digits = line.split(';').next().unwrap_or_default().trim();
    if digits.is_empty() {
        return Ok(State::Line);
    }
    match usize::from_str_radix(digits, 16) {
        Ok(0) => Ok(State::End),
        Ok(length) => Ok(State::Body(length)),
        Err(_) => bail!("a chunk begins with {line:?}, not with its length"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_comes_out_of_its_chunks_wherever_they_are_cut() {
        let bytes = b"4\r\nWiki\r\nA;x=y\r\npedia in \n\r\n1\r\n!\r\n0\r\n\r\n";
        for cut in 0..bytes.len() {
            let mut chunks = Chunks::default();
            let mut body = chunks.decode(&bytes[..cut]).expect("chunks");
            body.extend(chunks.decode(&bytes[cut..]).expect("chunks"));
            assert_eq!(String::from_utf8_lossy(&body), "Wikipedia in \n!", "cut at {cut}");
            assert!(chunks.state == State::End);
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        assert!(Chunks::default().decode(b"data: x\n\n").is_err());
        assert!(Chunks::default().decode(&[b'0'; CHUNK_LINE_BYTES_MAX + 1]).is_err());
    }
}
