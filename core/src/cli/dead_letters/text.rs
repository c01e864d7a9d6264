//! Dead letters for people: a row, a whole one, a progress line. Pure, but for the width of the terminal.

use std::fmt::Write;
use std::io::IsTerminal;

use serde_json::Value;

use crate::dead_letters::api::{Letter, Progress, Whole};

/// Above the rows.
pub(super) const HEADINGS: &str = "BURIED                    KIND      TRIES  LETTER, WHAT, REASON";

/// Shortest part of a reason worth showing.
const REASON_MIN: usize = 20;

/// Columns of the terminal on standard output; `None` when it is none.
pub(super) fn terminal_width() -> Option<usize> {
    let out = std::io::stdout();
    let size = out.is_terminal().then(|| rustix::termios::tcgetwinsize(&out).ok()).flatten()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// One line of the list, not longer than the terminal, where there is one.
pub(super) fn row(letter: &Letter, width: Option<usize>) -> String {
    let what = [letter.operation_type.as_str(), &letter.ns].join(" ");
    let key = if letter.document_key.is_null() { String::new() } else { format!(" {}", letter.document_key) };
    let stub = if letter.stub { " (stub)" } else { "" };
    let line = format!(
        "{:<24}  {:<9} {:>5}  {}  {}{}{stub}  ",
        letter.buried_at,
        letter.kind,
        letter.attempts,
        letter.letter,
        what.trim_end(),
        cut(&key, 60),
    );
    let room = width.map(|width| width.saturating_sub(line.chars().count()).max(REASON_MIN));
    format!("{line}{}", cut(&printable(&letter.reason), room.unwrap_or(usize::MAX)))
}

/// A letter with all that is kept of it.
pub(super) fn whole(whole: &Whole) -> String {
    let letter = &whole.letter;
    let replay = whole.not_replayable.as_ref().map_or("possible".to_owned(), |why| format!("not possible: {why}"));
    let mut text = String::new();
    for (name, value) in [
        ("letter", letter.letter.clone()),
        ("kind", letter.kind.clone()),
        ("reason", printable(&letter.reason)),
        ("attempts", letter.attempts.to_string()),
        ("buried", letter.buried_at.clone()),
        ("updated", letter.updated_at.clone()),
        ("operation", letter.operation_type.clone()),
        ("namespace", letter.ns.clone()),
        ("document key", shown(&letter.document_key)),
        ("bytes", letter.bytes.to_string()),
        ("replay", replay),
        ("token", shown(&whole.token)),
    ] {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<13} {value}");
        }
    }
    match (&whole.event, letter.truncated) {
        (Value::Null, true) => text.push_str("event         too large to be kept\n"),
        (Value::Null, false) => text.push_str("event         none\n"),
        (event, _) => {
            let _ = writeln!(text, "event\n{event:#}");
        }
    }
    text
}

/// How far a replay is.
pub(super) fn progress(progress: &Progress, total: u64) -> String {
    let done = progress.acked + progress.rejected;
    format!("replayed {done} of {total} ({} rejected again)", progress.rejected)
}

fn shown(value: &Value) -> String {
    if value.is_null() { String::new() } else { value.to_string() }
}

/// What a plugin says must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn letter(reason: &str) -> Letter {
        let id = "6b024d1b00000005-0000001adeadbeef";
        Letter {
            letter: format!("hooks/{id}"),
            output: "hooks".into(),
            id: id.into(),
            kind: "given_up".into(),
            reason: reason.into(),
            attempts: 12,
            operation_type: "insert".into(),
            ns: "shop.orders".into(),
            document_key: json!({ "_id": 7 }),
            buried_at: "2026-11-26T02:28:59.5Z".into(),
            updated_at: "2026-11-26T02:29:59.5Z".into(),
            bytes: 900,
            truncated: false,
            stub: false,
        }
    }

    #[test]
    fn a_row_fits_the_terminal_and_does_not_steer_it() {
        let expected = "2026-11-26T02:28:59.5Z    given_up     12  hooks/6b024d1b00000005-0000001adeadbeef  \
                        insert shop.orders {\"_id\":7}  410 [31m gone";
        assert_eq!(row(&letter("410\u{1b}[31m\ngone"), None), expected);
        let long = row(&letter(&"é".repeat(500)), Some(160));
        assert_eq!(long.chars().count(), 160);
        assert!(long.ends_with("é…"));
        assert!(row(&letter(&"é".repeat(500)), Some(10)).ends_with("é…"));
    }

    #[test]
    fn a_whole_letter_says_whether_it_can_be_replayed() {
        let mut known = Whole {
            letter: letter("410 gone"),
            not_replayable: None,
            token: json!({ "_data": "82" }),
            event: json!({ "operationType": "insert" }),
        };
        let text = whole(&known);
        assert!(text.contains("replay        possible\n"), "{text}");
        assert!(text.ends_with("event\n{\n  \"operationType\": \"insert\"\n}\n"), "{text}");
        (known.event, known.letter.truncated) = (Value::Null, true);
        known.not_replayable = Some("kept only as a stub".into());
        let text = whole(&known);
        assert!(text.contains("replay        not possible: kept only as a stub\n"), "{text}");
        assert!(text.ends_with("event         too large to be kept\n"), "{text}");
    }
}
