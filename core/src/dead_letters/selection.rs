//! Which dead letters are meant: by an operator, and by a reader that goes through them page by page. Knows no store.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::letter::LetterKey;
use crate::config::entry::check_name;
use crate::event::EventId;

/// Most letters and outputs that one selection may name.
const NAMES_MAX: usize = 10_000;

/// Most letters in one page of a list.
pub const LIMIT_MAX: usize = 1_000;

/// What is listed: a page of at most `limit` letters, in stream order.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Letters of this output only.
    pub output: Option<String>,
    /// Letters behind this one only: the last of the page before.
    pub after: Option<LetterKey>,
    /// At most [`LIMIT_MAX`]; 0 is taken as that.
    pub limit: usize,
}

impl Filter {
    /// The limit that counts.
    pub fn limit(&self) -> usize {
        if self.limit == 0 { LIMIT_MAX } else { self.limit.min(LIMIT_MAX) }
    }
}

/// Letters that an operator chose: of whole outputs, single ones, or all. As JSON the body of the requests of the admin API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// All letters of these outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// `OUTPUT/EVENTID`, or an event id alone: its letter in every output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// All letters of this deployment name.
    #[serde(default)]
    pub all: bool,
}

/// A selection that was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Every letter there is.
    pub all: bool,
    /// All letters of these outputs.
    pub outputs: BTreeSet<String>,
    /// These letters.
    pub keys: BTreeSet<LetterKey>,
    /// The letters of these events in every output.
    pub events: BTreeSet<EventId>,
}

/// What of one output is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Letters {
    /// All of its letters.
    All,
    /// Those of these events.
    Of(BTreeSet<EventId>),
}

impl Selection {
    /// From the arguments of a command: `OUTPUT`, `OUTPUT/EVENTID` or `EVENTID`.
    pub fn from_arguments(arguments: &[String], all: bool) -> Selection {
        let is_id = |text: &&String| text.contains('/') || text.parse::<EventId>().is_ok();
        let (ids, outputs) = arguments.iter().cloned().partition(|text| is_id(&text));
        Selection { outputs, ids, all }
    }

    /// Reads the names.
    ///
    /// # Errors
    /// What is wrong, in words for who wrote it: nothing chosen, everything and something, too much, or no name.
    pub fn check(&self) -> Result<Chosen, String> {
        let names = self.outputs.len() + self.ids.len();
        match (self.all, names) {
            (false, 0) => return Err("nothing is chosen: name outputs or letters (OUTPUT/EVENTID), or all".into()),
            (true, 1..) => return Err("all and names together: leave one of them out".into()),
            (_, names) if names > NAMES_MAX => return Err(format!("{names} names, at most {NAMES_MAX} at once")),
            _ => {}
        }
        let mut chosen = Chosen { all: self.all, ..Chosen::default() };
        for output in &self.outputs {
            check_name(output)?;
            chosen.outputs.insert(output.clone());
        }
        for id in &self.ids {
            if id.contains('/') {
                chosen.keys.insert(id.parse()?);
            } else {
                let id =
                    id.parse().map_err(|error| format!("{id:?} is neither OUTPUT/EVENTID nor an event id: {error}"));
                chosen.events.insert(id?);
            }
        }
        Ok(chosen)
    }
}

impl Chosen {
    /// Everything.
    pub fn all() -> Chosen {
        Chosen { all: true, ..Chosen::default() }
    }

    /// Those among them that are of this output.
    pub fn only(&self, output: &str) -> Chosen {
        match self.of(output) {
            Letters::All => Chosen { outputs: BTreeSet::from([output.to_owned()]), ..Chosen::default() },
            Letters::Of(ids) => {
                Chosen { keys: ids.into_iter().map(|id| LetterKey::new(output, id)).collect(), ..Chosen::default() }
            }
        }
    }

    /// Whether a letter is one of them.
    pub fn has(&self, key: &LetterKey) -> bool {
        self.all || self.outputs.contains(&key.output) || self.events.contains(&key.id) || self.keys.contains(key)
    }

    /// What of one output is chosen, for [`super::Store::load`].
    pub fn of(&self, output: &str) -> Letters {
        if self.all || self.outputs.contains(output) {
            return Letters::All;
        }
        let own = self.keys.iter().filter(|key| key.output == output).map(|key| key.id);
        Letters::Of(own.chain(self.events.iter().copied()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "6b024d1b00000005-0000001adeadbeef";
    const B: &str = "6b024d1b00000006-00000000deadbeef";

    fn selection(arguments: &[&str], all: bool) -> Selection {
        Selection::from_arguments(&arguments.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), all)
    }

    #[test]
    fn arguments_are_outputs_letters_or_events() {
        let live = format!("live/{B}");
        let chosen = selection(&["hooks", A, &live], false).check().expect("right");
        assert_eq!(chosen.outputs, BTreeSet::from(["hooks".to_owned()]));
        assert_eq!((chosen.events.len(), chosen.keys.len()), (1, 1));
        let (a, b) = (A.parse::<EventId>().unwrap(), B.parse::<EventId>().unwrap());
        let table = [("hooks", a, true), ("hooks", b, true), ("live", a, true), ("live", b, true), ("x", b, false)];
        for (output, id, expected) in table {
            assert_eq!(chosen.has(&LetterKey::new(output, id)), expected, "{output} {id}");
            let of = match chosen.of(output) {
                Letters::All => true,
                Letters::Of(ids) => ids.contains(&id),
            };
            assert_eq!(of, expected, "{output} {id}");
            assert_eq!(chosen.only(output).has(&LetterKey::new(output, id)), expected, "{output} {id}");
            assert!(!chosen.only("other").has(&LetterKey::new(output, id)));
        }
        assert!(Chosen::all().only("live").has(&LetterKey::new("live", a)));
        assert_eq!(Chosen::all().of("any"), Letters::All);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (arguments, all, part) in [
            (&[][..], false, "nothing is chosen"),
            (&["hooks"], true, "all and names"),
            (&["Hooks"], false, "is not a name"),
            (&["hooks/123"], false, "is not an event id"),
            (&["/"], false, "is not a name"),
        ] {
            let error = selection(arguments, all).check().expect_err(part);
            assert!(error.contains(part), "{error}");
        }
        let many = Selection { outputs: vec!["a".into(); NAMES_MAX + 1], ..Selection::default() };
        assert!(many.check().expect_err("too many").contains("at most"));
    }
}
