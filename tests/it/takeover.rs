//! A stream with another filter takes over from one that was read: nothing is lost and nothing repeated, wherever that happens,
//! also amid a transaction.

use bson::{Document, doc};
use tailwater::source::stream::{ChangeStream, StreamOptions};

use crate::harness::Mongod;
use crate::harness::stream::{now, options, read, words};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_another_filter_goes_on_where_the_first_one_stood() {
    let mongod = Mongod::start().await;
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    let start = now(&mongod).await;
    for id in 0..3 {
        orders.insert_one(doc! { "_id": id }).await.expect("insert");
    }
    let mut session = mongod.client().start_session().await.expect("session");
    session.start_transaction().await.expect("begin");
    for id in 3..7 {
        orders.insert_one(doc! { "_id": id }).session(&mut session).await.expect("insert");
    }
    session.commit_transaction().await.expect("commit");
    orders.insert_one(doc! { "_id": 7 }).await.expect("insert");

    let all = StreamOptions { batch_size: 1, ..options(&mongod.uri(), "watch = [\"shop.*\"]").await };
    let even = StreamOptions { filter: Some(doc! { "documentKey._id": { "$mod": [2, 0] } }), ..all.clone() };
    for stood in 1..8 {
        let mut first = ChangeStream::new(all.clone(), start.clone());
        let before = read(&mut first, stood).await;
        // The new stream was opened earlier, as it is while the first one goes on.
        let mut second = ChangeStream::open(even.clone(), start.clone()).await.expect("opens");
        second.continue_from(first.place().clone());
        let after: Vec<String> = (stood..8).filter(|id| id % 2 == 0).map(|id| format!("insert {id}")).collect();
        assert_eq!(words(&read(&mut second, after.len()).await), after, "after {:?}", words(&before));
        // Nothing that is behind comes later either.
        assert!(second.next().await.expect("a reply").events.is_empty());
    }
}
