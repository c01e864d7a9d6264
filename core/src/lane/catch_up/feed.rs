//! Where the events of a catch-up stream come from: a change stream. The only seam: tests of who waits and who shares put a
//! written list in its place.

use bson::Document;

use crate::lane::catch_up::REPLY_EVENTS;
#[cfg(test)]
use crate::lane::catch_up::tests::script::{Script, ScriptedFeed};
use crate::source::error::SourceError;
use crate::source::place::Place;
use crate::source::stream::{Batch, ChangeStream, StreamOptions};

/// How feeds are opened.
pub(super) enum Feeds {
    /// On the deployment.
    Server(Box<StreamOptions>),
    #[cfg(test)]
    Scripted(std::sync::Arc<Script>),
}

impl Feeds {
    /// Those of the deployment.
    pub fn options(&self) -> Option<StreamOptions> {
        match self {
            Feeds::Server(options) => Some(options.as_ref().clone()),
            #[cfg(test)]
            Feeds::Scripted(_) => None,
        }
    }

    /// Begins with the first [`Feed::next`].
    pub fn open(&self, place: Place, filter: Option<Document>) -> Feed {
        match self {
            Feeds::Server(options) => {
                let options = StreamOptions { filter, batch_size: REPLY_EVENTS, ..options.as_ref().clone() };
                Feed::Server(Box::new(ChangeStream::new(options, place)))
            }
            #[cfg(test)]
            Feeds::Scripted(script) => Feed::Scripted(script.open(place, filter)),
        }
    }
}

/// One stream of events.
pub(super) enum Feed {
    /// A change stream.
    Server(Box<ChangeStream>),
    #[cfg(test)]
    Scripted(ScriptedFeed),
}

impl Feed {
    /// The next reply; waits through passing trouble. Not cancel-safe.
    pub async fn next(&mut self) -> Result<Batch, SourceError> {
        match self {
            Feed::Server(stream) => stream.next().await,
            #[cfg(test)]
            Feed::Scripted(feed) => feed.next().await,
        }
    }
}
