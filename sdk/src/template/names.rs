//! The names in a template: of what it calls, so that an unknown one is found when the template is compiled, and of what it may look at.

use std::collections::BTreeSet;

/// What a name in a template stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Behind a `|`.
    Filter,
    /// Behind `is` or `is not`.
    Test,
    /// Before a `(`, and not behind a dot, which makes it a method of a value.
    Function,
}

/// Bytes of the longest tag; as deep as one is long minijinja goes down the thread's stack when it compiles it.
pub(super) fn longest_tag(source: &str) -> usize {
    tags(source).into_iter().map(str::len).max().unwrap_or(0)
}

/// All words in tags that may be variables, and some that are not; minijinja's own list forgets those of slices.
pub(super) fn words(source: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    tags(source).into_iter().flat_map(|tag| tag.split(|c| !is_word(c))).map(str::to_owned).collect()
}

/// The names of filters, tests and functions inside tags and outside quotes.
pub(super) fn names(source: &str) -> Vec<(Kind, &str)> {
    tags(source).into_iter().flat_map(names_of_tag).collect()
}

/// What stands between the marks of each tag. As in minijinja a tag ends with the mark that fits its beginning, outside of quotes and
/// of all parentheses; one that does not end goes to the end.
fn tags(source: &str) -> Vec<&str> {
    let mut tags = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        rest = &rest[at..];
        let end = match rest.as_bytes().get(1) {
            Some(b'#') => {
                rest = rest.split_once("#}").map_or("", |(_, behind)| behind);
                continue;
            }
            Some(b'{') => "}}",
            Some(b'%') => "%}",
            _ => {
                rest = &rest[1..];
                continue;
            }
        };
        let tag = &rest[2..];
        let length = tag_length(tag, end);
        tags.push(&tag[..length]);
        rest = tag.get(length + 2..).unwrap_or_default();
    }
    tags
}

fn tag_length(tag: &str, end: &str) -> usize {
    let mut open = 0;
    let mut rest = tag;
    while let Some(c) = rest.chars().next() {
        if open == 0 && rest.starts_with(end) {
            return tag.len() - rest.len();
        }
        match c {
            '"' | '\'' => {
                rest = behind_quoted(rest, c);
                continue;
            }
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open -= 1,
            _ => {}
        }
        rest = &rest[c.len_utf8()..];
    }
    tag.len()
}

/// What stands behind a string that begins here.
fn behind_quoted(text: &str, quote: char) -> &str {
    let mut escaped = false;
    let end = text[1..].find(|inner| {
        let ends = inner == quote && !escaped;
        escaped = inner == '\\' && !escaped;
        ends
    });
    end.map_or("", |end| &text[end + 2..])
}

fn names_of_tag(tag: &str) -> Vec<(Kind, &str)> {
    let mut names = Vec::new();
    let mut rest = tag;
    // What stands before the next word: a mark, or the word `is` or `not`.
    let mut before = "";
    while let Some(c) = rest.chars().next() {
        if matches!(c, '"' | '\'') {
            (before, rest) = ("", behind_quoted(rest, c));
        } else if c.is_alphabetic() || c == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            let called = behind.trim_start().starts_with('(');
            match before {
                "|" => names.push((Kind::Filter, word)),
                "is" if word != "not" => names.push((Kind::Test, word)),
                "." => {}
                _ if called && !WORDS.contains(&word) => names.push((Kind::Function, word)),
                _ => {}
            }
            // `is not x` is a test, too.
            before = if word == "is" || (word == "not" && before == "is") { "is" } else { "" };
            rest = behind;
        } else {
            let length = c.len_utf8();
            if !c.is_whitespace() {
                before = &rest[..length];
            }
            rest = &rest[length..];
        }
    }
    names
}

/// Words that a parenthesis may follow without a call.
const WORDS: [&str; 10] = ["if", "elif", "in", "and", "or", "not", "is", "else", "set", "loop"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_in_a_template_are_found() {
        use Kind::{Filter, Function, Test};
        for (source, expected) in [
            ("a | b is c d()", vec![]),
            ("{{ a|b }} | c {{ d | e(1) |f }}", vec![(Filter, "b"), (Filter, "e"), (Filter, "f")]),
            (r#"{{ "x | y" | z }}{{ 'a\' | b' | c }}"#, vec![(Filter, "z"), (Filter, "c")]),
            ("{% if a is not b and (c) is d %}|{% endif %}ü{{ a |", vec![(Test, "b"), (Test, "d")]),
            (
                "{{ {'a': {}} | b }}{{ (c) |d }}{# | e #}{% a '%}' | f }} | g %}",
                vec![(Filter, "b"), (Filter, "d"), (Filter, "f"), (Filter, "g")],
            ),
            ("{% for a in range(3) %}{{ a.items() }}{% endfor %}{% if (a) %}{% endif %}", vec![(Function, "range")]),
        ] {
            assert_eq!(names(source), expected, "{source}");
        }
    }

    #[test]
    fn a_tag_ends_where_minijinja_has_its_end() {
        for (source, expected) in [
            ("a {{ b }} c {% d %}", vec![" b ", " d "]),
            ("{{ '}}' }}{{ {'a':{}} }}{{ [}}] }}", vec![" '}}' ", " {'a':{}} ", " [}}] }}"]),
            ("{# {{ a }} #}{{ b", vec![" b"]),
            ("{ { {a} {", vec![]),
        ] {
            assert_eq!(tags(source), expected, "{source}");
        }
        assert_eq!((longest_tag("{{ a }}{{ ab }}"), longest_tag("a")), (4, 0));
    }
}
