//! A query as a disjunction of conjunctions, and back: terms and branches are compared by keys made of their bytes, for the order of
//! names is part of a query and documents of the bson crate are equal without it.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use bson::{Bson, Document, RawDocumentBuf, doc};

/// Fields that every event has, small and early, and on which the server filters its oplog before it makes an event.
const HEADS: [&str; 2] = ["operationType", "ns"];

/// Other fields on which it does (5.1 and later); a condition on another field is decided on the finished event.
const REWRITTEN: [&str; 6] = ["to", "documentKey", "fullDocument", "clusterTime", "lsid", "txnNumber"];

/// What makes a value, a term or a branch this one. A hash, because they are compared so often and may have thousands of values; of
/// 128 bits, because two that were taken for one would lose events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(u64, u64);

/// One condition. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    pub key: Key,
    pub what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// The field equals one of these values, as with `$in`.
    In { path: Arc<str>, values: Arc<Values> },
    /// A document of one key, as the server takes it.
    Other { path: Option<Arc<str>>, document: Arc<Document> },
    /// One of these, and there are at least two.
    Or(Arc<[Branch]>),
}

/// Different values.
#[derive(Debug)]
pub(crate) struct Values {
    /// As they came.
    pub all: Vec<Literal>,
    sorted: Vec<Key>,
}

#[derive(Clone, Debug)]
pub(crate) struct Literal {
    key: Key,
    pub value: Bson,
}

/// All of its terms; without any, everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Branch {
    pub terms: Vec<Term>,
    /// Whose it is: numbers of queries.
    pub queries: Vec<usize>,
}

impl Literal {
    /// `None` when it cannot be written as BSON.
    pub fn new(value: &Bson) -> Option<Literal> {
        let bytes = encode(&doc! { "": value.clone() })?;
        Some(Literal { key: Key::of("value", [&*bytes]), value: value.clone() })
    }
}

impl Key {
    /// Of parts, such that other parts make another key.
    fn of<'a>(kind: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> Key {
        let (mut one, mut other) = (DefaultHasher::new(), DefaultHasher::new());
        other.write_u8(1);
        let mut both = |bytes: &[u8]| {
            [&mut one, &mut other].into_iter().for_each(|half| {
                half.write_usize(bytes.len());
                half.write(bytes);
            });
        };
        both(kind.as_bytes());
        parts.into_iter().for_each(both);
        Key(one.finish(), other.finish())
    }

    /// Of keys that are sorted.
    fn of_keys(kind: &str, first: &[u8], keys: &[Key]) -> Key {
        let bytes: Vec<u8> = keys.iter().flat_map(|key| [key.0.to_le_bytes(), key.1.to_le_bytes()]).flatten().collect();
        Key::of(kind, [first, &bytes])
    }
}

impl Values {
    fn are_among(&self, more: &Values) -> bool {
        let mut rest = more.sorted.iter();
        self.sorted.len() <= more.sorted.len() && self.sorted.iter().all(|key| rest.by_ref().any(|other| other == key))
    }
}

impl Term {
    pub fn within(path: &str, mut values: Vec<Literal>) -> Term {
        let mut seen = HashSet::with_capacity(values.len());
        values.retain(|value| seen.insert(value.key));
        let mut sorted: Vec<Key> = values.iter().map(|value| value.key).collect();
        sorted.sort_unstable();
        let key = Key::of_keys("in", path.as_bytes(), &sorted);
        Term { key, what: What::In { path: path.into(), values: Arc::new(Values { all: values, sorted }) } }
    }

    /// `None` when it cannot be written as BSON.
    pub fn other(path: Option<&str>, document: Document) -> Option<Term> {
        let key = Key::of("as", [&*encode(&document)?]);
        Some(Term { key, what: What::Other { path: path.map(Arc::from), document: Arc::new(document) } })
    }

    pub fn or(branches: Vec<Branch>) -> Term {
        let mut keys: Vec<Key> = branches.iter().map(Branch::key).collect();
        keys.sort_unstable();
        Term { key: Key::of_keys("or", b"", &keys), what: What::Or(branches.into()) }
    }

    pub fn path(&self) -> Option<&str> {
        match &self.what {
            What::In { path, .. } => Some(path),
            What::Other { path, .. } => path.as_deref(),
            What::Or(_) => None,
        }
    }

    pub fn as_in(&self) -> Option<(&Arc<str>, &Values)> {
        match &self.what {
            What::In { path, values } => Some((path, values)),
            _ => None,
        }
    }

    /// On `operationType` or the namespace.
    pub fn is_head(&self) -> bool {
        self.path().is_some_and(|path| HEADS.contains(&first_of(path)))
    }

    /// On a field that the server can look at before it makes an event.
    pub fn is_rewritten(&self) -> bool {
        match &self.what {
            What::Or(branches) => branches.iter().all(|branch| branch.terms.iter().any(Term::is_rewritten)),
            _ => self.path().is_some_and(|path| {
                let first = first_of(path);
                HEADS.contains(&first) || REWRITTEN.contains(&first)
            }),
        }
    }

    /// Whether everything that satisfies this term satisfies the other one.
    pub fn implies(&self, other: &Term) -> bool {
        match (&self.what, &other.what) {
            _ if self.key == other.key => true,
            (What::In { path, values }, What::In { path: wider, values: more }) => {
                path == wider && values.are_among(more)
            }
            (_, What::Or(branches)) => branches.iter().any(|branch| branch.terms.iter().all(|term| self.implies(term))),
            _ => false,
        }
    }

    pub fn render(&self) -> Document {
        match &self.what {
            What::In { path, values } => render_in(path, &values.all),
            What::Other { document, .. } => Document::clone(document),
            What::Or(branches) => render(branches),
        }
    }
}

impl Branch {
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The same for the same terms in any order.
    pub fn key(&self) -> Key {
        self.key_without(usize::MAX)
    }

    /// Of all terms but one. A sum, which has no order.
    pub fn key_without(&self, left_out: usize) -> Key {
        let kept = self.terms.iter().enumerate().filter(|(index, _)| *index != left_out);
        kept.fold(Key(0, 0), |sum, (_, term)| Key(sum.0.wrapping_add(term.key.0), sum.1.wrapping_add(term.key.1)))
    }

    /// Adds a condition, unless it is there.
    pub fn require(&mut self, term: Term) {
        if !self.terms.iter().any(|other| other.key == term.key) {
            self.terms.push(term);
        }
    }

    /// Whether everything that this one lets through passes the other one too.
    pub fn implies(&self, other: &Branch) -> bool {
        other.terms.iter().all(|wider| self.terms.iter().any(|term| term.implies(wider)))
    }

    /// What this costs the server for each event, in branches that are walked through, see [`super::Limits`].
    pub fn weight(&self) -> usize {
        let terms = self.terms.iter().map(|term| match &term.what {
            What::In { path, values } if first_of(path) == "ns" => values.all.len() / super::NAMESPACES_PER_BRANCH,
            What::Or(branches) => branches.iter().map(Branch::weight).sum(),
            _ => 0,
        });
        1 + terms.sum::<usize>()
    }

    fn render(&self) -> Document {
        let mut terms: Vec<&Term> = self.terms.iter().collect();
        terms.sort_by_key(|term| !term.is_head());
        let mut all = Document::new();
        let documents: Vec<Document> = terms.iter().map(|term| term.render()).collect();
        for document in &documents {
            for (name, value) in document {
                if all.contains_key(name) {
                    return doc! { "$and": documents };
                }
                all.insert(name.clone(), value.clone());
            }
        }
        all
    }
}

/// Any of the branches. Of none: what no event satisfies.
pub(crate) fn render(branches: &[Branch]) -> Document {
    let (common, rests) = match branches {
        // No stream can be told "nothing" in fewer words.
        [] => return doc! { "operationType": { "$in": [] } },
        [only] => return only.render(),
        several => factor(several),
    };
    let any: Vec<Document> = rests.iter().map(Branch::render).collect();
    let mut all = Branch { terms: common, queries: Vec::new() }.render();
    match all.contains_key("$or") {
        true => doc! { "$and": [all, { "$or": any }] },
        false => {
            all.insert("$or", any);
            all
        }
    }
}

/// Terms of every branch, to be looked at once, and what is left of the branches.
///
/// Only where the server keeps all of it: from a disjunction with one branch that it cannot decide on the oplog it decides none
/// there, and then each branch had better keep what it can.
fn factor(branches: &[Branch]) -> (Vec<Term>, Vec<Branch>) {
    let is_common = |term: &Term| branches.iter().all(|branch| branch.terms.iter().any(|other| other.key == term.key));
    let common: Vec<Term> = branches[0].terms.iter().filter(|term| is_common(term)).cloned().collect();
    let mut rests = branches.to_vec();
    for rest in &mut rests {
        rest.terms.retain(|term| !is_common(term));
    }
    let rewritten = rests.iter().filter(|rest| rest.terms.iter().any(Term::is_rewritten)).count();
    let whole = rests.iter().all(|rest| !rest.is_everything()) && (rewritten == 0 || rewritten == rests.len());
    if common.is_empty() || !whole { (Vec::new(), branches.to_vec()) } else { (common, rests) }
}

fn render_in(path: &str, values: &[Literal]) -> Document {
    let plain = match values {
        [one] if matches!(one.value, Bson::Document(_)) => doc! { path: { "$eq": one.value.clone() } },
        [one] => doc! { path: one.value.clone() },
        several => {
            let values: Vec<Bson> = several.iter().map(|literal| literal.value.clone()).collect();
            doc! { path: { "$in": values } }
        }
    };
    let null = values.iter().any(|literal| literal.value == Bson::Null);
    // From 8.0 on null does not equal undefined in the server; here it does, as in all versions before. No event has
    // undefined in its head.
    if null && !HEADS.contains(&first_of(path)) {
        return doc! { "$or": [plain, { path: { "$type": 6 } }] };
    }
    plain
}

pub(crate) fn first_of(path: &str) -> &str {
    path.split('.').next().unwrap_or_default()
}

/// Bytes of a document, in the order of its keys.
pub(crate) fn encode(document: &Document) -> Option<Vec<u8>> {
    Some(RawDocumentBuf::try_from(document).ok()?.into_bytes())
}
