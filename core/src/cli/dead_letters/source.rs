//! Where the dead letters of a command come from: a daemon that answers, or the store itself.

use std::path::Path;

use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::admin_client::{self, ClientError, Daemon};
use crate::config::Config;
use crate::dead_letters::api::{Dropped, Listed, Whole};
use crate::dead_letters::metrics::DeadLetterMetrics;
use crate::dead_letters::{DeadLetterError, Filter, LetterKey, Selection, Store, config};
use crate::source::connect::connect;

/// For one command.
const CONNECTIONS: u32 = 2;

/// Where letters are to be had. Nothing is open yet: a folder that is open is held.
pub(super) enum Found {
    /// By a daemon.
    Daemon(String),
    /// Without one.
    Config(Box<Config>),
}

/// Where letters are read and dropped.
pub(super) enum Letters {
    /// By a daemon.
    Daemon(String),
    /// Without one.
    Store(Box<Store>),
}

/// Why there are none to be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// The config cannot be used.
    #[error("{0}")]
    Config(String),
    /// The daemon.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The store.
    #[error(transparent)]
    Store(#[from] DeadLetterError),
    /// The deployment.
    #[error(transparent)]
    Deployment(#[from] crate::source::error::SourceError),
}

impl Found {
    /// The daemon if it answers; else, unless it was named, the store of the config at `path`.
    pub async fn find(daemon: Daemon, path: &Path) -> Result<Found, SourceError> {
        let nobody = match daemon.url() {
            Some(url) => match admin_client::ask(url, Method::GET, "/api/dead-letters?limit=1", None).await {
                Err(error) if error.is_unreachable() && matches!(daemon, Daemon::Assumed(_)) => Some(error),
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(Found::Daemon(url.to_owned())),
            },
            None => None,
        };
        let config = Config::load(path).map_err(|error| {
            let also = nobody.map(|error| format!("; and {error}")).unwrap_or_default();
            SourceError::Config(format!("{error}{also}"))
        })?;
        Ok(Found::Config(Box::new(config)))
    }

    /// For a question: where they are.
    pub fn place(&self) -> String {
        match self {
            Found::Daemon(url) => format!("of the daemon at {url}"),
            Found::Config(_) => "in the store of the config".to_owned(),
        }
    }

    /// Opens it. A folder is held from here on.
    pub async fn open(self) -> Result<Letters, SourceError> {
        let config = match self {
            Found::Daemon(url) => return Ok(Letters::Daemon(url)),
            Found::Config(config) => config,
        };
        let kept = &config.dead_letters;
        let store = match &kept.place {
            config::Place::File { .. } => Store::open_file(kept, &config.name, DeadLetterMetrics::default()).await?,
            config::Place::MongoDb => {
                let deployment = connect(config.source.uri.expose(), CONNECTIONS).await?;
                Store::open_as_it_is(kept, &config.name, &deployment.client).await?
            }
        };
        Ok(Letters::Store(Box::new(store)))
    }
}

impl Letters {
    pub async fn list(&self, output: Option<&str>, limit: usize, after: Option<&str>) -> Result<Listed, SourceError> {
        match self {
            Letters::Daemon(url) => {
                // Names and ids need no escaping.
                let output = output.map(|output| format!("&output={output}")).unwrap_or_default();
                let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
                let path = format!("/api/dead-letters?limit={limit}{output}{after}");
                read(url, &path, admin_client::ask(url, Method::GET, &path, None).await?)
            }
            Letters::Store(store) => {
                let after = after.map(str::parse).transpose().map_err(SourceError::Config)?;
                let filter = Filter { output: output.map(str::to_owned), after, limit };
                Ok(Listed::from(&store.list(&filter).await?))
            }
        }
    }

    pub async fn get(&self, key: &LetterKey) -> Result<Option<Whole>, SourceError> {
        match self {
            Letters::Daemon(url) => {
                let path = format!("/api/dead-letters/{key}");
                match admin_client::ask(url, Method::GET, &path, None).await {
                    Err(ClientError::Refused { status: 404, .. }) => Ok(None),
                    Err(error) => Err(error.into()),
                    Ok(answer) => read(url, &path, answer).map(Some),
                }
            }
            Letters::Store(store) => Ok(store.get(key).await?.map(|stored| Whole::from(&stored))),
        }
    }

    pub async fn drop_letters(&self, selection: &Selection) -> Result<Dropped, SourceError> {
        match self {
            Letters::Daemon(url) => {
                let path = "/api/dead-letters/drop";
                let body = serde_json::to_value(selection).map_err(|error| SourceError::Config(error.to_string()))?;
                read(url, path, admin_client::ask(url, Method::POST, path, Some(&body)).await?)
            }
            Letters::Store(store) => {
                let chosen = selection.check().map_err(SourceError::Config)?;
                Ok(Dropped { dropped: store.drop_chosen(&chosen).await? })
            }
        }
    }
}

/// An answer of the API as what it should be.
pub(super) fn read<T: DeserializeOwned>(url: &str, path: &str, answer: Value) -> Result<T, SourceError> {
    serde_json::from_value(answer).map_err(|error| {
        let (url, path, reason) = (url.to_owned(), path.to_owned(), error.to_string());
        SourceError::Client(ClientError::Foreign { url, path, reason })
    })
}
