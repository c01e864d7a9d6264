//! Pages of the listed origins may read the stream, with cookies too, and after asking first; pages of other origins get an error
//! that is final, and not one event.

use std::time::Duration;

use bson::{Document, doc};

use crate::harness::{Browser, Daemon, Mongod, Seen, config, eventually, fixed_port, lines};

const DEADLINE: Duration = Duration::from_secs(30);

/// The `readyState` of a stream that the browser will not open again.
const CLOSED: u16 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn only_pages_of_listed_origins_read_the_stream() {
    let (mongod, browser) = tokio::join!(Mongod::start(), Browser::start());
    let folder = tempfile::tempdir().expect("temporary folder");
    let (listed, any, other, none) = (fixed_port(), fixed_port(), fixed_port(), fixed_port());
    let origin = browser.origin();
    let output = |name: &str, port: u16, origins: &[&str]| {
        format!(
            "[outputs.{name}]\nplugin = \"sse\"\noptions = {{ listen = \"127.0.0.1:{port}\", cors_origins = {origins:?} }}\n"
        )
    };
    let tables = [
        output("listed", listed, &["https://shop.example", &origin]),
        output("any", any, &["*"]),
        // The same host, another port: another origin.
        output("other", other, &["https://shop.example", "http://127.0.0.1"]),
        output("none", none, &[]),
    ];
    let _daemon = Daemon::start(folder.path(), &config(&mongod, &tables.concat())).await;
    let url = |port: u16| format!("http://127.0.0.1:{port}/events");

    browser.open("listed", &url(listed));
    browser.open_with_credentials("listed with cookies", &url(listed));
    browser.open("any", &url(any));
    browser.open_with_credentials("any with cookies", &url(any));
    browser.open("other", &url(other));
    browser.open("none", &url(none));
    let allowed = ["listed", "listed with cookies", "any"];
    let refused = ["any with cookies", "other", "none"];
    eventually("each is open or refused", DEADLINE, || {
        allowed.iter().all(|stream| browser.times_opened(stream) == 1)
            && refused.iter().all(|stream| !browser.ends(stream).is_empty())
    })
    .await;

    let orders = mongod.client().database("shop").collection::<Document>("orders");
    orders.insert_many((0..3).map(|id| doc! { "_id": id })).await.expect("insert");
    for stream in allowed {
        eventually("three events", DEADLINE, || browser.events(stream).len() == 3).await;
        assert!(browser.ends(stream).is_empty(), "{stream}");
    }
    // With a header of its own a page may only read what the server has allowed in answer to OPTIONS.
    let first = lines::id(&browser.events("listed")[0]);
    let long = "x".repeat(200);
    for (stream, port, id) in [
        ("resumed", listed, &first),
        ("long", listed, &long),
        ("resumed any", any, &first),
        ("not read", other, &first),
    ] {
        browser.read_behind(stream, &url(port), id);
    }
    let text = |stream: &str| match browser.seen(stream).pop() {
        Some(Seen::Text { data }) => data,
        _ => String::new(),
    };
    let second = format!("id: {}\n", lines::id(&browser.events("listed")[1]));
    for stream in ["resumed", "resumed any"] {
        eventually("the events behind the header's id", DEADLINE, || text(stream).matches("\ndata: ").count() == 2)
            .await;
        assert!(
            text(stream).contains(&second) && !text(stream).contains(&format!("id: {first}\n")),
            "{}",
            text(stream)
        );
    }
    eventually("an answer to an id of 200 bytes", DEADLINE, || text("long").contains("event: reset\n")).await;
    eventually("a refusal", DEADLINE, || matches!(browser.seen("not read")[..], [Seen::Refused { .. }])).await;
    for stream in refused {
        assert_eq!(browser.seen(stream), [Seen::Error { state: CLOSED }], "{stream}");
    }
}
