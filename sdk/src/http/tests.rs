//! The client against real sockets: each answer that a server can give or withhold.

use super::*;
use crate::testing::{Receiver, Reply};

/// Long enough never to pass in a test that does not wait for it.
const LONG: Duration = Duration::from_secs(60);
/// Passes in a test that waits for it.
const SHORT: Duration = Duration::from_millis(300);

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

fn post(url: &str) -> Request<Bytes> {
    Request::post(url).body(Bytes::from_static(b"{}")).expect("a request")
}

/// One exchange of a new client.
fn send(receiver: &Receiver, deadline: Duration) -> Result<Answer, HttpError> {
    run(Client::new(ClientSettings::default()).send(post(&receiver.url("/hook?token=secret")), deadline))
}

#[test]
fn an_answer_comes_whole_and_the_request_went_whole() {
    let receiver = Receiver::always(Reply::status("201 Created", "x-a: 1\r\n", "hello"));
    let answer = send(&receiver, LONG).expect("an answer");
    assert_eq!((answer.status, &answer.body[..], answer.truncated), (StatusCode::CREATED, &b"hello"[..], false));
    assert_eq!(answer.headers["x-a"], "1");
    let received = &receiver.received()[0];
    assert_eq!(
        (&received.method[..], &received.target[..], &received.body[..]),
        ("POST", "/hook?token=secret", &b"{}"[..])
    );
    assert_eq!(received.header("host"), Some(&receiver.address().to_string()[..]));
    assert_eq!(received.header("content-length"), Some("2"));
    assert_eq!(received.header("user-agent"), Some(concat!("tailwater/", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_connection_is_used_again_by_every_clone() {
    let receiver = Receiver::always(Reply::status("200 OK", "", ""));
    run(async {
        let client = Client::new(ClientSettings::default());
        for _ in 0..3 {
            client.clone().send(post(&receiver.url("/")), LONG).await.expect("an answer");
        }
    });
    assert!(receiver.received().iter().all(|received| received.connection == 0), "{:?}", receiver.received());
}

#[test]
fn a_body_is_cut_at_the_cap_and_an_endless_one_ends_with_the_connection() {
    let settings = ClientSettings { answer_bytes_max: 10, ..ClientSettings::default() };
    for (reply, body, truncated, is_cut) in [
        (Reply::status("200 OK", "", "0123456789"), "0123456789", false, false),
        (Reply::status("200 OK", "", "0123456789a"), "0123456789", true, false),
        (Reply::Flood(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()), "xxxxxxxxxx", true, true),
        (Reply::Flood(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec()), "xxxxxxxxxx", true, true),
    ] {
        let receiver = Receiver::always(reply.clone());
        run(async {
            let client = Client::new(settings.clone());
            let answer = client.send(post(&receiver.url("/")), LONG).await.expect("an answer");
            assert_eq!((&answer.body[..], answer.truncated), (body.as_bytes(), truncated), "{reply:?}");
            if is_cut {
                tokio::task::spawn_blocking(move || receiver.wait_for_hang_ups(1)).await.expect("it hangs up");
            }
        });
    }
}

#[test]
fn the_deadline_is_over_the_whole_exchange_and_ends_the_connection() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec();
    for reply in [
        Reply::Hang(Vec::new()),
        Reply::Hang(b"HTTP/1.1 200 O".to_vec()),
        Reply::Hang(half),
        // Never silent for long, so that only a deadline over all of it ends it.
        Reply::Drip(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".to_vec()),
        Reply::Drip(b"HTTP/1.1 200 OK\r\nx-long: ".to_vec()),
    ] {
        let receiver = Receiver::always(reply.clone());
        let result = run(async {
            let result = Client::new(ClientSettings::default()).send(post(&receiver.url("/")), SHORT).await;
            tokio::task::spawn_blocking(move || receiver.wait_for_hang_ups(1)).await.expect("it hangs up");
            result
        });
        let Err(HttpError::Timeout { deadline: SHORT, .. }) = result else { panic!("{reply:?}: {result:?}") };
    }
}

#[test]
fn a_timeout_says_how_far_it_came() {
    // The kernel takes the connection, nobody answers TLS.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let result = run(async {
        let client = Client::new(ClientSettings::default());
        client.send(post(&format!("https://{address}/")), SHORT).await
    });
    assert_eq!(result.expect_err("no TLS comes").to_string(), "connect: not done after 300 ms");

    let receiver = Receiver::always(Reply::Hang(Vec::new()));
    let error = send(&receiver, Duration::from_secs(2)).expect_err("no answer comes");
    assert_eq!(error.to_string(), "wait for the answer: not done after 2000 ms");
}

#[test]
fn a_broken_connection_is_named_and_never_the_url() {
    let refused = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("an address")
    };
    let error = run(async {
        let client = Client::new(ClientSettings::default());
        client.send(post(&format!("http://{refused}/hook?token=secret")), LONG).await
    })
    .expect_err("nobody listens");
    assert!(error.is_unsent(), "{error:?}");
    assert!(error.to_string().starts_with("connect: ") && error.to_string().contains("refused"), "{error}");

    for reply in [
        Reply::Close(Vec::new()),
        Reply::Close(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec()),
        Reply::Close(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel".to_vec()),
        Reply::Reset(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec()),
        Reply::Close(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        Reply::Close(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(4 * HEAD_BYTES_MAX)).into_bytes()),
        Reply::Close(format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(101)).into_bytes()),
    ] {
        let receiver = Receiver::always(reply.clone());
        let error = send(&receiver, LONG).expect_err("no whole answer");
        assert!(matches!(error, HttpError::Exchange(_)) && !error.is_unsent(), "{reply:?}: {error:?}");
        assert!(error.to_string().starts_with("send the request and read the answer: "), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert_eq!(receiver.received().len(), 1, "a connection that never served is not tried twice: {reply:?}");
    }
}

#[test]
fn a_connection_closed_while_idle_costs_nothing() {
    // Says nothing of it, and closes after each answer: the next request may find it open, closing or closed.
    let receiver = Receiver::always(Reply::Close(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()));
    run(async {
        let client = Client::new(ClientSettings::default());
        for _ in 0..200 {
            client.send(post(&receiver.url("/")), LONG).await.expect("an answer");
        }
    });
    assert!(receiver.received().len() >= 200);
}

#[test]
fn a_used_connection_that_breaks_under_a_request_is_tried_once_more_and_only_once() {
    for (broken, requests) in [(2, 3), (3, 3)] {
        // The first request is answered, the next `broken - 1` are taken and dropped.
        let receiver = Receiver::start(move |received| match (1..broken).contains(&received.number) {
            true => Reply::Close(Vec::new()),
            false => Reply::status("200 OK", "", ""),
        });
        run(async {
            let client = Client::new(ClientSettings::default());
            client.send(post(&receiver.url("/")), LONG).await.expect("an answer");
            let second = client.send(post(&receiver.url("/")), LONG).await;
            assert_eq!(second.is_ok(), broken == 2, "{second:?}");
        });
        assert_eq!(receiver.received().len(), requests);
    }
}

#[test]
fn informational_answers_are_skipped_and_redirects_are_not_followed() {
    let receiver = Receiver::always(Reply::Keep(
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n".to_vec(),
    ));
    assert_eq!(send(&receiver, LONG).expect("an answer").status, StatusCode::NO_CONTENT);

    let elsewhere = Receiver::always(Reply::status("200 OK", "", ""));
    for status in
        ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
    {
        let location = format!("location: {}\r\n", elsewhere.url("/"));
        let receiver = Receiver::always(Reply::status(status, &location, ""));
        let answer = send(&receiver, LONG).expect("an answer");
        assert!(answer.status.is_redirection(), "{status}");
    }
    assert!(elsewhere.received().is_empty());
}

#[test]
fn a_url_that_is_no_http_url_is_refused_without_a_connection() {
    for url in ["/hook", "ftp://example.com/", "example.com:80"] {
        let error = run(Client::new(ClientSettings::default()).send(post(url), LONG)).expect_err(url);
        assert!(matches!(error, HttpError::Request(_)), "{url}: {error:?}");
    }
}

#[test]
fn https_to_a_server_without_tls_is_a_connection_that_was_not_made() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let plain = listener.local_addr().expect("an address");
    let answering = std::thread::spawn(move || {
        use std::io::Write;
        listener.accept().and_then(|(mut stream, _)| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    });
    let error = run(Client::new(ClientSettings::default()).send(post(&format!("https://{plain}/")), LONG));
    answering.join().expect("it answers").expect("it answers");
    assert!(matches!(error, Err(HttpError::Connect(_))), "{error:?}");
}
