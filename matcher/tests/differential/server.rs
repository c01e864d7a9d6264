//! The mongod that is asked.

use bson::{Document, RawDocumentBuf, doc, rawdoc};
use futures::TryStreamExt;
use mongodb::options::ClientOptions;
use mongodb::{Client, Collection};

use super::mongod_process::{self, Started};

/// A mongod of the test's own; it ends with this.
pub struct Server {
    started: Started,
    documents: Collection<RawDocumentBuf>,
    /// One document at a time.
    single: Collection<RawDocumentBuf>,
}

impl Server {
    pub async fn start() -> Server {
        let started = mongod_process::start(&mongod_process::binary(), &[]).await;
        let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", started.port);
        let client = Client::with_options(ClientOptions::parse(uri).await.expect("options")).expect("client");
        let database = client.database("match");
        Server { started, documents: database.collection("documents"), single: database.collection("single") }
    }

    /// Puts documents in the place of those before, and gives them back as they lie there now: the server fills in timestamps.
    pub async fn store(&self, documents: impl Iterator<Item = RawDocumentBuf>) -> Vec<RawDocumentBuf> {
        self.documents.drop().await.expect("drop");
        self.documents.insert_many(documents).await.expect("insert");
        let stored = self.documents.find(doc! {}).sort(doc! { "_id": 1 }).await.expect("find");
        stored.try_collect().await.expect("documents")
    }

    /// The `_id`s of the documents that match, in order; an error where the server refuses the query.
    pub async fn find(&self, query: &Document) -> mongodb::error::Result<Vec<i32>> {
        let ids = self.documents.clone_with_type::<RawDocumentBuf>();
        let found =
            ids.find(query.clone()).projection(doc! { "_id": 1 }).sort(doc! { "_id": 1 }).batch_size(10_000).await?;
        found.map_ok(|found| found.get_i32("_id").expect("an _id")).try_collect().await
    }

    /// Whether the query matches this one document, or the server's words where it does not take it.
    pub async fn matches(&self, query: &Document, document: &Document) -> Result<bool, String> {
        self.single.delete_many(doc! {}).await.expect("delete");
        let raw = RawDocumentBuf::try_from(document).map_err(|error| error.to_string())?;
        self.single.insert_one(raw).await.map_err(|error| error.to_string())?;
        let found = self.single.find_one(query.clone()).await.map_err(|error| error.to_string())?;
        Ok(found.is_some())
    }

    /// The document of [`Server::matches`] as it lies there.
    pub async fn single(&self) -> RawDocumentBuf {
        self.single.find_one(doc! {}).await.expect("find").unwrap_or_else(|| rawdoc! {})
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.started.process.kill();
        let _ = self.started.process.wait();
    }
}
