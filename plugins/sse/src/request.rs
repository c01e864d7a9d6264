//! What a request asks for, and what it is answered where that cannot be. Pure: no socket, no client.

use bytes::Bytes;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue,
    ORIGIN, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response, StatusCode, Uri};

use crate::hub::Wish;
use crate::stream::Answer;

/// Topics of one client.
pub const TOPICS_MAX: usize = 64;
/// Length of one, in bytes; of a template's text, too.
pub const TOPIC_BYTES_MAX: usize = 256;
/// Longest id that is read. Ours have 33 characters; what is longer is none of ours.
const ID_BYTES_MAX: usize = 128;

/// What the server offers.
#[derive(Debug)]
pub struct Offer {
    /// Where the stream is.
    pub path: String,
    /// The events have topics.
    pub has_topics: bool,
    /// Origins whose pages may read the stream; `*` is any.
    pub cors_origins: Vec<String>,
}

/// The wish of a request for the stream.
///
/// # Errors
/// The answer, where there is no stream for it.
pub fn read(offer: &Offer, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Wish, Box<Response<Answer>>> {
    let refuse = |status, text: String| Err(Box::new(plain(status, text)));
    if uri.path() != offer.path {
        return refuse(StatusCode::NOT_FOUND, format!("the stream is at {}\n", offer.path));
    }
    if method == Method::OPTIONS {
        return Err(Box::new(preflight()));
    }
    if method != Method::GET {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "the stream is read with GET\n".to_owned());
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, OPTIONS"));
        return Err(Box::new(answer));
    }
    let mut wish = Wish::default();
    for (key, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match &*key {
            "topic" if !offer.has_topics => {
                return refuse(StatusCode::BAD_REQUEST, "this output has no topics: leave ?topic= out\n".to_owned());
            }
            "topic" if value.is_empty() || value.len() > TOPIC_BYTES_MAX => {
                let text = format!("a topic has 1 to {TOPIC_BYTES_MAX} bytes\n");
                return refuse(StatusCode::BAD_REQUEST, text);
            }
            "topic" if wish.topics.iter().any(|topic| *topic == *value) => {}
            "topic" if wish.topics.len() == TOPICS_MAX => {
                return refuse(StatusCode::BAD_REQUEST, format!("a client has at most {TOPICS_MAX} topics\n"));
            }
            "topic" => wish.topics.push(value.into_owned()),
            "last_event_id" => wish.last_event_id = short(&value),
            // Others are the page's own, to get around a cache for example.
            _ => {}
        }
    }
    // The header is newer: the browser sends it when it comes back to an address that it was given once.
    if let Some(header) = headers.get("last-event-id") {
        wish.last_event_id = short(&String::from_utf8_lossy(header.as_bytes())).or(wish.last_event_id);
    }
    Ok(wish)
}

/// `None` where it is empty: nothing was seen yet.
fn short(id: &str) -> Option<Box<str>> {
    let end = id.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= ID_BYTES_MAX).last();
    end.map(|end| id[..end].into())
}

/// The head of a stream.
pub fn stream(answer: Answer) -> Response<Answer> {
    let mut response = Response::new(answer);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // nginx and its kin would hold small frames back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A short text.
pub fn plain(status: StatusCode, text: String) -> Response<Answer> {
    let mut response = Response::new(Answer::Text(Some(Bytes::from(text))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A browser asks first where the id is long or has unusual characters, or a page sends headers of its own.
fn preflight() -> Response<Answer> {
    let mut response = Response::new(Answer::Text(None));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Last-Event-ID, Cache-Control"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// Lets pages of the allowed origins read the answer, errors included.
pub fn allow_origin(offer: &Offer, request: &HeaderMap, answer: &mut HeaderMap) {
    answer.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if offer.cors_origins.is_empty() {
        return;
    }
    answer.append(VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = request.get(ORIGIN) else { return };
    if offer.cors_origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    } else if offer.cors_origins.iter().any(|allowed| allowed == "*") {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(has_topics: bool) -> Offer {
        let cors_origins = ["https://shop.example".to_owned(), "*".to_owned()].into();
        Offer { path: "/events".to_owned(), has_topics, cors_origins }
    }

    fn ask(uri: &str, id: Option<&str>) -> Result<Wish, StatusCode> {
        let mut headers = HeaderMap::new();
        if let Some(id) = id {
            headers.insert("last-event-id", id.parse().expect("a header"));
        }
        let uri = uri.parse().expect("an address");
        read(&offer(true), &Method::GET, &uri, &headers).map_err(|answer| answer.status())
    }

    #[test]
    fn topics_and_the_id_are_read() {
        let wish = |topics: &[&str], id: Option<&str>| {
            let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
            Ok(Wish { topics, last_event_id: id.map(Into::into) })
        };
        for (uri, header, expected) in [
            ("/events", None, wish(&[], None)),
            ("/events?", None, wish(&[], None)),
            ("/events?topic=a&topic=b%20c&topic=a&x=1", None, wish(&["a", "b c"], None)),
            ("/events?last_event_id=1-2", None, wish(&[], Some("1-2"))),
            ("/events?last_event_id=1-2", Some("3-4"), wish(&[], Some("3-4"))),
            ("/events?last_event_id=1-2", Some(""), wish(&[], Some("1-2"))),
            ("/events?last_event_id=", None, wish(&[], None)),
            ("/events?topic=", None, Err(StatusCode::BAD_REQUEST)),
            ("/", None, Err(StatusCode::NOT_FOUND)),
            ("/events/", None, Err(StatusCode::NOT_FOUND)),
        ] {
            assert_eq!(ask(uri, header), expected, "{uri}");
        }
        assert_eq!(ask(&format!("/events?topic={}", "x".repeat(257)), None), Err(StatusCode::BAD_REQUEST));
        let many: String = (0..=TOPICS_MAX).map(|n| format!("topic={n}&")).collect();
        assert_eq!(ask(&format!("/events?{many}"), None), Err(StatusCode::BAD_REQUEST));
        let long = ask("/events", Some(&"x".repeat(4000))).expect("a wish").last_event_id.expect("an id");
        assert_eq!(long.len(), ID_BYTES_MAX);
    }

    #[test]
    fn what_there_is_not_is_said() {
        let (uri, headers) = ("/events?topic=a".parse().expect("an address"), HeaderMap::new());
        let status = |has_topics, method: &Method| {
            read(&offer(has_topics), method, &uri, &headers).map_or_else(|answer| answer.status(), |_| StatusCode::OK)
        };
        assert_eq!(status(false, &Method::GET), StatusCode::BAD_REQUEST);
        assert_eq!(status(true, &Method::GET), StatusCode::OK);
        assert_eq!(status(true, &Method::POST), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(status(true, &Method::OPTIONS), StatusCode::NO_CONTENT);
    }

    #[test]
    fn an_origin_is_named_back_only_where_it_is_listed() {
        for (origins, origin, allowed, credentials) in [
            (vec!["https://shop.example"], Some("https://shop.example"), Some("https://shop.example"), true),
            (vec!["https://shop.example"], Some("https://other.example"), None, false),
            (vec!["https://shop.example"], None, None, false),
            (vec!["*"], Some("https://other.example"), Some("*"), false),
            (vec!["*", "https://shop.example"], Some("https://shop.example"), Some("https://shop.example"), true),
            (vec![], Some("https://shop.example"), None, false),
        ] {
            let cors_origins: Vec<String> = origins.iter().map(|origin| (*origin).to_owned()).collect();
            let offer = Offer { cors_origins, ..offer(false) };
            let (mut request, mut answer) = (HeaderMap::new(), HeaderMap::new());
            request.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin))));
            allow_origin(&offer, &request, &mut answer);
            let found = answer.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().expect("ASCII"));
            assert_eq!(found, allowed, "{origins:?} {origin:?}");
            assert_eq!(answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS), credentials, "{origins:?} {origin:?}");
            assert_eq!(answer.contains_key(VARY), !origins.is_empty());
        }
    }
}
