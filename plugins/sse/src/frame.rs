//! The bytes of the stream, as the HTML standard has them (WHATWG HTML §9.2.6): LF only, no byte order mark. Each frame is made
//! once and shared by all clients.

use bytes::Bytes;

use crate::id::Id;

/// A comment line: what keeps proxies from closing a quiet connection. No browser shows it to the page.
pub const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// The same for a client that has everything up to `id`: without data the browser shows the page nothing, but it comes back with
/// this id. One that is sent no event for long, or none at all, would otherwise come back with an old one or none.
pub fn place(id: &Id) -> Bytes {
    format!(":\nid: {id}\n\n").into()
}

/// An event: `id` and `data`. A page gets it as `message`.
pub fn event(id: &Id, data: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(data.len() + Id::LEN + 16);
    frame.extend_from_slice(format!("id: {id}\n").as_bytes());
    put_data(&mut frame, data);
    frame.into()
}

/// The first bytes of a stream: after this long the browser comes back when it has ended.
pub fn hello(retry_ms: u64) -> Bytes {
    format!("retry: {retry_ms}\n:\n\n").into()
}

/// What the client asked for cannot be given: it is told what it missed by, and goes on at `id`.
pub fn reset(id: &Id, reason: &str, asked: &str) -> Bytes {
    let data = serde_json::json!({ "reason": reason, "lastEventId": asked });
    let mut frame = format!("event: reset\nid: {id}\n").into_bytes();
    put_data(&mut frame, data.to_string().as_bytes());
    frame.into()
}

/// One `data` line for each line of `data`: CR LF, LF and CR all end one.
fn put_data(frame: &mut Vec<u8>, data: &[u8]) {
    let mut rest = data;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        frame.extend_from_slice(b"data: ");
        frame.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
        frame.push(b'\n');
        let Some(end) = end else { break };
        rest = &rest[end + if rest[end..].starts_with(b"\r\n") { 2 } else { 1 }..];
    }
    frame.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_the_standard_has_them() {
        let id = Id::at(0xff);
        for (data, lines) in [
            ("{}", "data: {}\n"),
            ("", "data: \n"),
            ("a\nb", "data: a\ndata: b\n"),
            ("a\r\nb\rc\n", "data: a\ndata: b\ndata: c\ndata: \n"),
            ("\r\r\n\n", "data: \ndata: \ndata: \ndata: \n"),
        ] {
            let expected = format!("id: 00000000000000ff-0000000000000000\n{lines}\n");
            assert_eq!(event(&id, data.as_bytes()), expected, "{data:?}");
        }
        assert_eq!(place(&id), ":\nid: 00000000000000ff-0000000000000000\n\n");
        assert_eq!(hello(1500), "retry: 1500\n:\n\n");
        let asked = "x\ny\"";
        let expected = "event: reset\nid: 00000000000000ff-0000000000000000\n\
                        data: {\"lastEventId\":\"x\\ny\\\"\",\"reason\":\"history\"}\n\n";
        assert_eq!(reset(&id, "history", asked), expected);
    }
}
