//! A query as a disjunction of conjunctions, and back: terms and branches are compared by their bytes, for the order of keys is part
//! of a query and documents of the bson crate are equal without it.

use bson::{Bson, Document, RawDocumentBuf, doc};

/// Fields that every event has, small and early, and on which the server filters its oplog before it makes an event.
const HEADS: [&str; 2] = ["operationType", "ns"];

/// Other fields on which it does (5.1 and later); a condition on another field is decided on the finished event.
const REWRITTEN: [&str; 6] = ["to", "documentKey", "fullDocument", "clusterTime", "lsid", "txnNumber"];

/// One condition.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    /// What makes it this one.
    pub key: Vec<u8>,
    pub what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// The field equals one of these values, as with `$in`.
    In { path: String, values: Vec<Literal> },
    /// A document of one key, as the server takes it.
    Other { path: Option<String>, document: Document },
    /// One of these, and there are at least two.
    Or(Vec<Branch>),
}

/// A value and its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Literal {
    pub bytes: Vec<u8>,
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
        Some(Literal { bytes: encode(&doc! { "": value.clone() })?, value: value.clone() })
    }
}

impl Term {
    pub fn within(path: &str, values: Vec<Literal>) -> Term {
        let mut different: Vec<Literal> = Vec::with_capacity(values.len());
        let mut seen = std::collections::HashSet::new();
        for value in values {
            if seen.insert(value.bytes.clone()) {
                different.push(value);
            }
        }
        let mut sorted: Vec<&[u8]> = different.iter().map(|value| &*value.bytes).collect();
        sorted.sort_unstable();
        let key = key(b"in", std::iter::once(path.as_bytes()).chain(sorted));
        Term { key, what: What::In { path: path.to_owned(), values: different } }
    }

    /// `None` when it cannot be written as BSON.
    pub fn other(path: Option<&str>, document: Document) -> Option<Term> {
        let key = key(b"as", std::iter::once(&*encode(&document)?));
        Some(Term { key, what: What::Other { path: path.map(str::to_owned), document } })
    }

    pub fn or(branches: Vec<Branch>) -> Term {
        let mut keys: Vec<Vec<u8>> = branches.iter().map(Branch::key).collect();
        keys.sort_unstable();
        Term { key: key(b"or", keys.iter().map(|key| &**key)), what: What::Or(branches) }
    }

    pub fn path(&self) -> Option<&str> {
        match &self.what {
            What::In { path, .. } => Some(path),
            What::Other { path, .. } => path.as_deref(),
            What::Or(_) => None,
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
                path == wider && values.iter().all(|value| more.iter().any(|other| other.bytes == value.bytes))
            }
            (_, What::Or(branches)) => branches.iter().any(|branch| branch.terms.iter().all(|term| self.implies(term))),
            _ => false,
        }
    }

    pub fn render(&self) -> Document {
        match &self.what {
            What::In { path, values } => render_in(path, values),
            What::Other { document, .. } => document.clone(),
            What::Or(branches) => render(branches),
        }
    }
}

impl Branch {
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The same for the same terms in any order.
    pub fn key(&self) -> Vec<u8> {
        self.key_without(usize::MAX)
    }

    /// Of all terms but one.
    pub fn key_without(&self, left_out: usize) -> Vec<u8> {
        let kept = self.terms.iter().enumerate().filter(|(index, _)| *index != left_out);
        let mut keys: Vec<&[u8]> = kept.map(|(_, term)| &*term.key).collect();
        keys.sort_unstable();
        key(b"", keys.into_iter())
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
            What::In { path, values } if first_of(path) == "ns" => values.len() / super::NAMESPACES_PER_BRANCH,
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

/// Parts joined so that other parts make another key.
fn key<'a>(kind: &[u8], parts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut key = kind.to_vec();
    for part in parts {
        key.extend((part.len() as u64).to_le_bytes());
        key.extend(part);
    }
    key
}
