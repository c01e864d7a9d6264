//! Asks a running daemon over its admin API: JSON over HTTP/1.1, one request per connection, bounded in time and size. Knows no
//! request of any command.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::config::{Config, ConfigError};

/// Where a daemon with the default `admin.listen` answers.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8081";

/// For the connection alone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For a request and the whole of its answer: a large drop takes the daemon its time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(100);

/// Largest answer: one dead letter of 16 MiB as JSON.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Why a daemon gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL cannot be used.
    #[error("admin URL {url:?}: {reason}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong, and what to write.
        reason: String,
    },
    /// Nobody listens there.
    #[error("no tailwater answers at {url}: is it running? see admin.listen ({reason})")]
    Unreachable {
        /// Where.
        url: String,
        /// The system's words.
        reason: String,
    },
    /// Somebody listens, but the answer did not come, or not to its end. What was asked for may have been done.
    #[error("{url} did not answer {path}: {reason}")]
    Broken {
        /// Where.
        url: String,
        /// What was asked.
        path: String,
        /// What happened instead.
        reason: String,
    },
    /// The daemon refuses, in its own words.
    #[error("{error}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The daemon's words.
        error: String,
    },
    /// An answer, but not one of this API.
    #[error(
        "{url} does not answer {path} as tailwater's admin API ({reason}); is it this version, and see admin.listen"
    )]
    Foreign {
        /// Where.
        url: String,
        /// What was asked.
        path: String,
        /// What came.
        reason: String,
    },
}

impl ClientError {
    /// Whether nobody was reached, so that nothing can have been done.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, ClientError::Unreachable { .. })
    }
}

/// Asks for `path`, with its query. For a thread that may block, outside of any runtime.
///
/// # Errors
/// See [`ClientError`].
pub fn get(url: &str, path: &str) -> Result<Value, ClientError> {
    block_on(url, path, ask(url, Method::GET, path, None))
}

/// Tells `path` something. For a thread that may block, outside of any runtime.
///
/// # Errors
/// See [`ClientError`].
pub fn post(url: &str, path: &str, body: &Value) -> Result<Value, ClientError> {
    block_on(url, path, ask(url, Method::POST, path, Some(body)))
}

fn block_on(
    url: &str,
    path: &str,
    asked: impl Future<Output = Result<Value, ClientError>>,
) -> Result<Value, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| broken(url, path, format!("start a runtime: {error}")))?.block_on(asked)
}

/// The same for who has a runtime. Cancel safe as far as it is known here: a POST that was sent may be carried out.
///
/// # Errors
/// See [`ClientError`].
pub async fn ask(url: &str, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
    let host = host_of(url)?;
    let unreachable = |reason: String| ClientError::Unreachable { url: url.to_owned(), reason };
    let connect = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host.name.as_str(), host.port)));
    let stream = match connect.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Err(_) => return Err(unreachable(format!("no connection within {CONNECT_TIMEOUT:?}"))),
    };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, exchange(stream, &host.authority, method, path, body)).await;
    let (status, text) = match answer {
        Ok(answer) => answer.map_err(|reason| broken(url, path, reason))?,
        Err(_) => return Err(broken(url, path, format!("not within {ANSWER_TIMEOUT:?}"))),
    };
    read(url, path, status, &text)
}

async fn exchange(
    stream: TcpStream,
    authority: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<(StatusCode, Bytes), String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let mut request = Request::builder().method(method).uri(path).header(HOST, authority);
    request = request.header(ACCEPT, "application/json");
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())?;
    // The connection does the work; it ends with the answer, or with this function.
    tokio::pin!(connection);
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let text = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        match text {
            Ok(text) => Ok((status, text.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(format!("more than {ANSWER_BYTES_MAX} bytes")),
            Err(error) => Err(error.to_string()),
        }
    };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // Also a connection that has ended may have brought the answer.
        _ = &mut connection => answer.await,
    }
}

fn read(url: &str, path: &str, status: StatusCode, text: &[u8]) -> Result<Value, ClientError> {
    let value = serde_json::from_slice::<Value>(text).ok();
    let error = value.as_ref().and_then(|value| value.get("error")).and_then(Value::as_str);
    match (value.as_ref(), error) {
        (Some(_), Some(error)) if !status.is_success() => {
            Err(ClientError::Refused { status: status.as_u16(), error: error.to_owned() })
        }
        (Some(value), _) if status.is_success() => Ok(value.clone()),
        _ => {
            let what = if value.is_some() { "" } else { " and no JSON" };
            let reason = format!("status {}{what}", status.as_u16());
            Err(ClientError::Foreign { url: url.to_owned(), path: path.to_owned(), reason })
        }
    }
}

fn broken(url: &str, path: &str, reason: String) -> ClientError {
    ClientError::Broken { url: url.to_owned(), path: path.to_owned(), reason }
}

/// Where to connect, and what the daemon is called there.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    name: String,
    port: u16,
    authority: String,
}

fn host_of(url: &str) -> Result<Host, ClientError> {
    let wrong = |reason: &str| ClientError::Url { url: url.to_owned(), reason: reason.to_owned() };
    let hint = "write http://HOST:PORT, such as http://127.0.0.1:8081";
    let uri: Uri = url.parse().map_err(|error| wrong(&format!("{error}; {hint}")))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some(_) => return Err(wrong(&format!("only http:// is spoken here; {hint}"))),
        None => return Err(wrong(hint)),
    }
    let authority = uri.authority().ok_or_else(|| wrong(hint))?;
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() || authority.as_str().contains('@') {
        return Err(wrong(&format!("a host and a port only; {hint}")));
    }
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Host { name, port: authority.port_u16().unwrap_or(80), authority: authority.to_string() })
}

/// Which daemon a command means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Daemon {
    /// The one at `--admin`: no other way.
    Given(String),
    /// The one of the config, or the default one: the command may do without it.
    Assumed(String),
    /// The config has none, or one on a port that is not known.
    Unknown,
}

impl Daemon {
    /// From the arguments of a command: `--admin`, else `admin.listen` of a config that was named, else the default.
    ///
    /// # Errors
    /// The config cannot be read.
    pub fn of(admin: Option<&str>, config: Option<&Path>) -> Result<Daemon, ConfigError> {
        match (admin, config) {
            (Some(url), _) => Ok(Daemon::Given(url.to_owned())),
            (None, None) => Ok(Daemon::Assumed(DEFAULT_URL.to_owned())),
            (None, Some(path)) => Ok(Daemon::listening(Config::load(path)?.admin.listen)),
        }
    }

    fn listening(listen: Option<SocketAddr>) -> Daemon {
        match listen {
            None => Daemon::Unknown,
            Some(address) if address.port() == 0 => Daemon::Unknown,
            Some(address) => {
                let ip = match address.ip() {
                    IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
                    IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
                    ip => ip,
                };
                Daemon::Assumed(format!("http://{}", SocketAddr::new(ip, address.port())))
            }
        }
    }

    /// Its URL, where there is one.
    pub fn url(&self) -> Option<&str> {
        match self {
            Daemon::Given(url) | Daemon::Assumed(url) => Some(url),
            Daemon::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use serde_json::json;

    use super::*;

    /// Answers one request with `answer` and gives the request.
    fn server(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            loop {
                let read = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..read]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if read == 0 || body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                    stream.write_all(answer.as_bytes()).unwrap();
                    return text;
                }
            }
        });
        (url, thread)
    }

    #[test]
    fn an_answer_is_read_whole_or_refused() {
        let table = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{\"a\": 1}", Ok(json!({ "a": 1 }))),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n",
                Ok(json!([1, 2])),
            ),
            ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n[3]", Ok(json!([3]))),
            ("HTTP/1.1 409 Conflict\r\ncontent-length: 16\r\n\r\n{\"error\":\"busy\"}", Err("busy")),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nno\n", Err("status 404 and no JSON")),
            ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"a\": 1}", Err("did not answer /x?y=1")),
            ("SSH-2.0-x\r\n", Err("did not answer /x?y=1")),
        ];
        for (answer, expected) in table {
            let (url, thread) = server(answer);
            match (get(&url, "/x?y=1"), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{answer}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{answer}: {found:?}"),
            }
            assert!(thread.join().unwrap().starts_with("GET /x?y=1 HTTP/1.1\r\n"));
        }
        let (url, thread) = server("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue");
        assert_eq!(post(&url, "/p", &json!({ "all": true })).unwrap(), json!(true));
        let request = thread.join().unwrap();
        assert!(request.contains("content-type: application/json") && request.ends_with("{\"all\":true}"), "{request}");
    }

    #[test]
    fn nobody_there_is_said_so() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = get(&url, "/x").unwrap_err();
        assert!(error.is_unreachable());
        let start = format!("no tailwater answers at {url}: is it running? see admin.listen (");
        assert!(error.to_string().starts_with(&start), "{error}");
    }

    #[test]
    fn urls() {
        let host = host_of("http://[::1]:81/").unwrap();
        assert_eq!((host.name.as_str(), host.port, host.authority.as_str()), ("::1", 81, "[::1]:81"));
        assert_eq!(host_of("http://box").unwrap().port, 80);
        for url in ["https://box", "box:8081", "http://", "http://u:p@box", "http://box/path", ""] {
            let error = host_of(url).unwrap_err().to_string();
            assert!(error.contains("http://HOST:PORT"), "{error}");
        }
        let listening = |address: &str| Daemon::listening(Some(address.parse().unwrap()));
        assert_eq!(listening("0.0.0.0:9"), Daemon::Assumed("http://127.0.0.1:9".into()));
        assert_eq!(listening("[::]:9"), Daemon::Assumed("http://[::1]:9".into()));
        assert_eq!((listening("127.0.0.1:0"), Daemon::listening(None)), (Daemon::Unknown, Daemon::Unknown));
    }
}
