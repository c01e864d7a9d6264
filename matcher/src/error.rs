//! Why a query is refused, in words that name the path, the operator and what it needs.

/// Levels of documents and arrays that a query may have, itself counted, as in the server.
pub(crate) const LEVELS_MAX: usize = 200;

/// Components of one path, as in the server.
pub(crate) const COMPONENTS_MAX: usize = 180;

/// Components of paths within each other, by `$elemMatch`: they bound how deep a walk through a document goes.
pub(crate) const NESTED_COMPONENTS_MAX: usize = 1_000;

/// Why a query is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// There is no such operator here.
    #[error(
        "compile match: unknown operator {operator} {place}; {}there are {known}",
        nearest.map(|n| format!("did you mean {n}? ")).unwrap_or_default()
    )]
    UnknownOperator {
        /// As it was written.
        operator: String,
        /// "at the top" or "on the field …".
        place: String,
        /// The known operator that looks most like it.
        nearest: Option<&'static str>,
        /// Those that may stand there.
        known: String,
    },
    /// An operator of the server that is not built in.
    #[error("compile match: {operator} {place} {why}")]
    ServerOnly {
        /// The operator.
        operator: String,
        /// Where it stands.
        place: String,
        /// Why not, and what to do instead.
        why: &'static str,
    },
    /// An operator's value has a type or form that it does not take.
    #[error("compile match: {operator} {place} needs {wanted}")]
    Operand {
        /// The operator.
        operator: String,
        /// Where it stands.
        place: String,
        /// What it takes.
        wanted: &'static str,
    },
    /// A regular expression that is none.
    #[error("compile match: the regular expression {pattern:?} {place} {reason}")]
    Regex {
        /// Its first characters.
        pattern: String,
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Plain fields stand between operators.
    #[error(
        "compile match: on the field {path} the operators are mixed with the plain field {field}; write a document with either"
    )]
    Mixed {
        /// The field of the query.
        path: String,
        /// The name without a `$`.
        field: String,
    },
    /// A value that cannot be compared with.
    #[error("compile match: the field {path} is compared with undefined, which is not possible; use null or $type")]
    Undefined {
        /// The field of the query.
        path: String,
    },
    /// Documents and arrays nested too deep.
    #[error("compile match: nested more than {LEVELS_MAX} levels deep")]
    Depth,
    /// A path with too many components.
    #[error(
        "compile match: the path that begins with {path} has more than {COMPONENTS_MAX} components, or more than \
         {NESTED_COMPONENTS_MAX} with those around it"
    )]
    LongPath {
        /// Its first characters.
        path: String,
    },
    /// The query cannot be written as BSON.
    #[error("compile match: the value of the field {path} is not valid BSON: {reason}")]
    Bson {
        /// The field of the query.
        path: String,
        /// The encoder's words.
        reason: String,
    },
}
