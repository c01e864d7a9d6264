//! What went wrong with the change stream, sorted by what has to be done about it.

use mongodb::error::{Error, ErrorKind};

use crate::source::place::Place;

/// Server error codes of a position whose history is gone: ChangeStreamHistoryLost, CappedPositionLost, ShardRemovedError.
const HISTORY_LOST: [i32; 3] = [286, 136, 464];

/// Passing trouble by code: what the change streams specification lists as resumable, and "this token, this way" (280, 260,
/// 50810, 50811), which opening by time mends.
const PASSING: [i32; 27] = [
    6, 7, 43, 50, 63, 89, 91, 133, 150, 189, 234, 237, 262, 317, 358, 9001, 10107, 11600, 11602, 13388, 13435, 13436,
    280, 260, 50810, 50811, 11601,
];

/// What to do when the server does not know the user.
const AUTHENTICATION: &str = "; check user, password and authSource in source.uri";

/// Why the source cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The oplog no longer reaches back to the position. A retry does not help.
    #[error(
        "{what}: the oplog no longer reaches back to the position {place}; enlarge the oplog, or begin anew with another name: {error}"
    )]
    HistoryLost {
        /// What was being done.
        what: String,
        /// Where reading should have gone on; its [time](Place::time) tells how far behind the oplog's oldest entry that is.
        place: Place,
        /// The server's own words.
        error: String,
    },
    /// The server refuses for good. A retry does not help.
    #[error("{what}: {reason}")]
    Refused {
        /// What was being done.
        what: String,
        /// The server's own words, and what to do.
        reason: String,
    },
    /// Trouble of the kind that passes: an election, a lost connection. A retry helps.
    #[error("{what}: {reason}")]
    Passing {
        /// What was being done.
        what: String,
        /// The server's own words.
        reason: String,
    },
    /// The deployment cannot be reached, or is not what a change stream needs.
    #[error("{0}")]
    Unreachable(String),
    /// The server sent what cannot be a change event.
    #[error("decode change event {place}: {reason}")]
    Undecodable {
        /// How far reading had come.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What to do about an error of the driver.
#[derive(Debug, PartialEq, Eq)]
pub enum Class {
    /// Open again, by time, after a while.
    Passing,
    /// The history is gone.
    HistoryLost,
    /// It will not get better.
    Refused,
}

/// The server's error code, where there is one.
pub fn code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

/// Sorts an error of an open or a read.
pub fn classify(error: &Error) -> Class {
    match error.kind.as_ref() {
        ErrorKind::Command(command) if HISTORY_LOST.contains(&command.code) => Class::HistoryLost,
        ErrorKind::Command(command) => {
            let labelled = error.contains_label("ResumableChangeStreamError") || error.contains_label("RetryableError");
            if labelled || PASSING.contains(&command.code) { Class::Passing } else { Class::Refused }
        }
        ErrorKind::Io(_)
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::DnsResolve { .. } => Class::Passing,
        _ => Class::Refused,
    }
}

/// The error of a stream for an operator; `what` is what was being done, `place` where reading stood.
pub fn explain_at(error: &Error, what: &str, place: &Place) -> SourceError {
    if classify(error) == Class::HistoryLost {
        return SourceError::HistoryLost { what: what.to_owned(), place: place.clone(), error: one_line(error) };
    }
    explain(error, what)
}

/// The error for an operator; `what` is what was being done.
pub fn explain(error: &Error, what: &str) -> SourceError {
    let (what, message) = (what.to_owned(), one_line(error));
    let advice = match code(error) {
        Some(40573) => "; change streams need a replica set: start mongod with --replSet and run rs.initiate() once",
        Some(13) => "; grant the user find and changeStream on what is watched (the role readAnyDatabase has both)",
        Some(18) => AUTHENTICATION,
        None if matches!(error.kind.as_ref(), ErrorKind::Authentication { .. }) => AUTHENTICATION,
        // No retry helps: the image of an event that is in the oplog without one never comes to be.
        Some(47) => {
            "; \"required\" needs changeStreamPreAndPostImages on every watched collection, from before its first change on, and \
             images that have not expired: write \"when_available\" in source.full_document and \
             source.full_document_before_change, at least until this event is past"
        }
        // FailedToParse, BadValue, Location40324 (unknown stage) and their like: the pipeline is at fault.
        Some(9 | 2 | 14 | 40323 | 40324 | 40228 | 16436 | 31249 | 31253 | 31254 | 51187) => {
            "; check source.pipeline and match"
        }
        _ => "",
    };
    let reason = format!("{message}{advice}");
    match classify(error) {
        Class::Passing => SourceError::Passing { what, reason },
        Class::HistoryLost | Class::Refused => SourceError::Refused { what, reason },
    }
}

/// A login was refused. While a server goes down or comes up it answers so too, and the driver does not tell why: for a stream that was
/// open before it is passing trouble.
pub fn is_refused_login(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Authentication { .. }) || code(error) == Some(18)
}

/// The server does not know `$changeStreamSplitLargeEvent`, though one of its set did.
pub fn lacks_split_stage(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(command)
        if command.code == 40324 && command.message.contains("$changeStreamSplitLargeEvent"))
}

/// The driver's words without its decoration, on one line.
pub fn one_line(error: &Error) -> String {
    let text = match error.kind.as_ref() {
        ErrorKind::Command(command) => {
            // "not authorized on shop to execute command { … }": the whole command, session and signature included, says
            // nothing more.
            let message = command.message.split(" to execute command {").next().unwrap_or_default();
            // The same once more, as a document.
            let message = message.split(", full error: {").next().unwrap_or_default();
            format!("{message} (code {}, {})", command.code, command.code_name)
        }
        kind => kind.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
