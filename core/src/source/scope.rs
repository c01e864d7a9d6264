//! What is watched: from `watch` in the config to the database to open the stream on and the server's `$match`. Pure.
//!
//! Namespaces of one database are watched with a database stream, anything else with a cluster stream, never with a
//! collection stream: that one would be invalidated by a drop or rename. The filter lets `to` of a rename through as well as
//! `ns`, and `dropDatabase` and `invalidate` always, because a stream that hides them ends without a word (mongod 6.0.5).

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};

use crate::source::config::watch::Watched;

/// The database that holds checkpoints and dead letters; never watched.
pub const OWN_DATABASE: &str = "tailwater";

/// What one deployment watches.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    /// The one database that is watched; `None` = the whole deployment, filtered.
    pub database: Option<String>,
    /// `$match` over the stream; `None` lets everything through.
    pub filter: Option<Document>,
}

impl Scope {
    /// From the entries of `watch`.
    pub fn new(watch: &[Watched]) -> Scope {
        let mut databases: BTreeMap<&str, Option<Vec<&str>>> = BTreeMap::new();
        for entry in watch {
            match entry {
                Watched::Everything => {
                    // A cluster stream is never invalidated, so nothing but our own database has to be named.
                    let filter = doc! { "ns.db": { "$ne": OWN_DATABASE } };
                    return Scope { database: None, filter: Some(filter) };
                }
                Watched::Database(db) => {
                    databases.insert(db, None);
                }
                Watched::Collection { db, coll } => {
                    if let Some(named) = databases.entry(db).or_insert_with(|| Some(Vec::new())) {
                        named.push(coll);
                    }
                }
            }
        }
        let single = if databases.len() == 1 { databases.keys().next().map(|name| (*name).to_owned()) } else { None };
        let mut branches: Vec<Bson> = Vec::new();
        for (database, collections) in &databases {
            for side in ["ns", "to"] {
                let mut branch = Document::new();
                if single.is_none() {
                    branch.insert(format!("{side}.db"), *database);
                }
                if let Some(collections) = collections {
                    branch.insert(format!("{side}.coll"), doc! { "$in": collections.clone() });
                }
                branches.push(branch.into());
            }
        }
        if let (Some(_), Some(None)) = (&single, databases.values().next()) {
            return Scope { database: single, filter: None };
        }
        let names: Vec<&str> = databases.keys().copied().collect();
        match &single {
            Some(_) => branches.push(doc! { "operationType": { "$in": ["dropDatabase", "invalidate"] } }.into()),
            None => {
                branches.push(doc! { "operationType": "dropDatabase", "ns.db": { "$in": names } }.into());
                branches.push(doc! { "operationType": "invalidate" }.into());
            }
        }
        Scope { database: single, filter: Some(doc! { "$or": branches }) }
    }

    /// For messages: what is watched, in the operator's words.
    pub fn describe(&self) -> String {
        match &self.database {
            Some(name) => format!("database {name}"),
            None => "the deployment".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(watch: &[&str], database: Option<&str>, filter: Option<Document>) {
        let watched: Vec<Watched> = watch
            .iter()
            .map(|entry| match entry.split_once('.') {
                None => Watched::Everything,
                Some((db, "*")) => Watched::Database(db.to_owned()),
                Some((db, coll)) => Watched::Collection { db: db.to_owned(), coll: coll.to_owned() },
            })
            .collect();
        let expected = Scope { database: database.map(str::to_owned), filter };
        assert_eq!(Scope::new(&watched), expected, "watch = {watch:?}");
    }

    #[test]
    fn one_database_is_watched_with_a_database_stream() {
        check(&["shop.*"], Some("shop"), None);
        check(&["shop.orders", "shop.*"], Some("shop"), None);
        let ends = doc! { "operationType": { "$in": ["dropDatabase", "invalidate"] } };
        check(
            &["shop.orders", "shop.carts.eu"],
            Some("shop"),
            Some(doc! { "$or": [
                { "ns.coll": { "$in": ["orders", "carts.eu"] } }, { "to.coll": { "$in": ["orders", "carts.eu"] } }, ends,
            ] }),
        );
    }

    #[test]
    fn several_databases_are_not_a_cross_product() {
        check(
            &["shop.orders", "crm.*"],
            None,
            Some(doc! { "$or": [
                { "ns.db": "crm" }, { "to.db": "crm" },
                { "ns.db": "shop", "ns.coll": { "$in": ["orders"] } }, { "to.db": "shop", "to.coll": { "$in": ["orders"] } },
                { "operationType": "dropDatabase", "ns.db": { "$in": ["crm", "shop"] } },
                { "operationType": "invalidate" },
            ] }),
        );
    }

    #[test]
    fn the_whole_deployment_leaves_out_our_own_database() {
        let filter = doc! { "ns.db": { "$ne": "tailwater" } };
        check(&["*"], None, Some(filter));
    }
}
