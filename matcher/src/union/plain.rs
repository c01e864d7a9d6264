//! Which regular expressions a server may be asked to match, and in what words.
//!
//! Servers before 6.1 match with PCRE, later ones with PCRE2, each with limits of its own, and a pattern that backtracks costs the
//! server, not us. What is left to the server is what all of them answer alike and in one pass over the text: characters one after the
//! other, each a literal, `.`, a digit `\d` or a class of ASCII characters, between `^` and `$`, and perhaps `.*` at the end. No
//! other repetition, no alternative, no group.
//!
//! A condition on `ns` or `to` is rewritten by the server into text between quotes, without a second look at quotes and backslashes
//! (6.0.5 refuses the whole pipeline for a quote): there such a pattern is not safe in any form.

/// Characters that are themselves in a pattern. Also non-ASCII ones, where case counts.
fn is_literal(c: char) -> bool {
    !c.is_control() && !r"\^$.|?*+()[]{}".contains(c)
}

/// Longest pattern.
const CHARS_MAX: usize = 200;

/// Whether the pattern is one of those.
pub(super) fn is_plain(path: &str, pattern: &str, options: &str) -> bool {
    let on_namespace = ["ns", "to"].contains(&super::term::first_of(path));
    if pattern.chars().count() > CHARS_MAX || options.chars().any(|option| !"ims".contains(option)) {
        return false;
    }
    if on_namespace && pattern.contains(['\'', '"', '\\']) {
        return false;
    }
    if options.contains('i') && !pattern.is_ascii() {
        return false;
    }
    let body = pattern.strip_prefix('^').unwrap_or(pattern);
    let body = body.strip_suffix(".*").filter(|rest| !rest.ends_with('\\')).unwrap_or(body);
    let mut rest = body.chars();
    while let Some(c) = rest.next() {
        let is_fine = match c {
            '.' => true,
            '$' => rest.as_str().is_empty(),
            '\\' => rest.next().is_some_and(|c| c == 'd' || c.is_ascii_punctuation()),
            '[' => class(&mut rest),
            c => is_literal(c),
        };
        if !is_fine {
            return false;
        }
    }
    true
}

/// The rest of a class, of letters, digits and a few signs alone.
fn class(rest: &mut std::str::Chars<'_>) -> bool {
    let mut any = false;
    for c in rest.by_ref() {
        match c {
            ']' => return any,
            '^' if !any => {}
            '-' | '_' | ' ' | '/' => any = true,
            c if c.is_ascii_alphanumeric() => any = true,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_plain() {
        let table = [
            ("fullDocument.a", "abc", "", true),
            ("fullDocument.a", "^abc$", "im", true),
            ("fullDocument.a", r"^v1\.\d[a-z_].$", "", true),
            ("fullDocument.a", "^abc.*", "", true),
            ("fullDocument.a", "größe", "", true),
            ("fullDocument.a", "größe", "i", false),
            ("fullDocument.a", "", "", true),
            ("fullDocument.a", "abc", "x", false),
            ("fullDocument.a", "abc", "u", false),
            ("fullDocument.a", "(a+)+$", "", false),
            ("fullDocument.a", "a+", "", false),
            ("fullDocument.a", "a.*b", "", false),
            ("fullDocument.a", r"a\.*", "", false),
            ("fullDocument.a", "a|b", "", false),
            ("fullDocument.a", "a{3}", "", false),
            ("fullDocument.a", "a$b", "", false),
            ("fullDocument.a", r"\bword", "", false),
            ("fullDocument.a", r"\Qa\E", "", false),
            ("fullDocument.a", "[[:alpha:]]", "", false),
            ("fullDocument.a", r"[\d]", "", false),
            ("fullDocument.a", "[]a]", "", false),
            ("fullDocument.a", "[a", "", false),
            ("fullDocument.a", "a\0b", "", false),
            ("fullDocument.a", "(*UCP)a", "", false),
            ("ns.coll", "^orders", "", true),
            ("ns.coll", r"^a\.b", "", false),
            ("ns.coll", "it's", "", false),
            ("to.coll", "it's", "", false),
            ("fullDocument.a", "it's", "", true),
        ];
        for (path, pattern, options, expected) in table {
            assert_eq!(is_plain(path, pattern, options), expected, "{path} /{pattern}/{options}");
        }
        assert!(!is_plain("a", &"a".repeat(201), ""));
    }
}
