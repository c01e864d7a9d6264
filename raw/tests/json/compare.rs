//! When two JSON texts say the same: token by token and in order, not as values of a JSON library, which may round a number or
//! sort the fields.

/// A token of JSON.
#[derive(Debug, PartialEq)]
enum Token<'a> {
    /// One of `{}[]:,`.
    Mark(u8),
    /// A string, unescaped.
    Text(String),
    /// A number, true, false or null, as written.
    Word(&'a str),
}

/// What two texts differ in, if in anything. Texts of one double are the same, which the specification leaves open: `1e20`, `1E+20`
/// and `100000000000000000000.0`, also in `{"$numberDouble": …}`. Whole numbers are compared as text.
pub fn difference(left: &str, right: &str) -> Option<String> {
    let (lefts, rights) = (tokens(left), tokens(right));
    let at = (0..lefts.len().max(rights.len())).find(|at| match (lefts.get(*at), rights.get(*at)) {
        (Some(Token::Word(l)), Some(Token::Word(r))) => !(l == r || is_double(l) && is_double(r) && bits(l) == bits(r)),
        (Some(Token::Text(l)), Some(Token::Text(r))) => {
            !(l == r || *at > 1 && lefts[at - 2] == Token::Text("$numberDouble".to_owned()) && bits(l) == bits(r))
        }
        (l, r) => l != r,
    })?;
    Some(format!("token {at}: {:?} and {:?} of\n{left}\n{right}", lefts.get(at), rights.get(at)))
}

fn is_double(word: &str) -> bool {
    word.contains(['.', 'e', 'E'])
}

/// A double's bits; its sign counts.
fn bits(text: &str) -> u64 {
    text.parse().map(f64::to_bits).unwrap_or_else(|_| panic!("{text:?} is no double"))
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.bytes().next() {
        let end = match first {
            b'{' | b'}' | b'[' | b']' | b':' | b',' => {
                tokens.push(Token::Mark(first));
                1
            }
            b'"' => {
                let mut escaped = false;
                let ends = |byte: u8| {
                    let ends = byte == b'"' && !escaped;
                    escaped = byte == b'\\' && !escaped;
                    ends
                };
                let end = rest.bytes().skip(1).position(ends).expect("a string ends") + 2;
                tokens.push(Token::Text(serde_json::from_str(&rest[..end]).expect("a string")));
                end
            }
            b' ' => 1,
            _ => {
                let end = rest.find(['}', ']', ',', ':', ' ']).unwrap_or(rest.len());
                tokens.push(Token::Word(&rest[..end]));
                end
            }
        };
        rest = &rest[end..];
    }
    tokens
}

/// The text with the fields of each object sorted, for those whose writer sorts them.
pub fn sorted(text: &str) -> String {
    let tokens = tokens(text);
    let mut rest = &tokens[..];
    let sorted = sorted_value(&mut rest);
    assert!(rest.is_empty(), "more than one value: {text}");
    sorted
}

fn sorted_value(rest: &mut &[Token<'_>]) -> String {
    let (first, behind) = rest.split_first().expect("a value");
    *rest = behind;
    let (open, close) = match first {
        Token::Mark(b'{') => ('{', b'}'),
        Token::Mark(b'[') => ('[', b']'),
        Token::Mark(mark) => panic!("{:?} where a value should be", char::from(*mark)),
        Token::Text(text) => return serde_json::to_string(text).expect("JSON"),
        Token::Word(word) => return (*word).to_owned(),
    };
    let mut parts = Vec::new();
    while rest[0] != Token::Mark(close) {
        if !parts.is_empty() {
            assert_eq!(rest[0], Token::Mark(b','));
            *rest = &rest[1..];
        }
        let mut part = sorted_value(rest);
        if open == '{' {
            assert_eq!(rest[0], Token::Mark(b':'));
            *rest = &rest[1..];
            part = format!("{part}:{}", sorted_value(rest));
        }
        parts.push(part);
    }
    *rest = &rest[1..];
    if open == '{' {
        parts.sort();
    }
    format!("{open}{}{}", parts.join(","), char::from(close))
}

#[test]
fn fields_are_sorted_on_every_level() {
    assert_eq!(sorted(r#"{ "b": [{"d":1.50,"c":{}}], "a":"x" }"#), r#"{"a":"x","b":[{"c":{},"d":1.50}]}"#);
}

#[test]
fn only_texts_of_one_double_are_the_same() {
    for (left, right, same) in [
        ("[1e20,{}]", "[100000000000000000000.0,{}]", true),
        (r#"{"$numberDouble":"1E+20"}"#, r#"{"$numberDouble":"1e20"}"#, true),
        (r#"{"$numberDouble":"-0.0"}"#, r#"{"$numberDouble":"0.0"}"#, false),
        (r#"{"$numberDouble":"0.1"}"#, r#"{"$numberDouble":"0.10000000000000002"}"#, false),
        (r#"{"$numberLong":"1"}"#, r#"{"$numberLong":"1.0"}"#, false),
        ("[9007199254740993]", "[9007199254740992]", false),
        ("[1]", "[1.0]", false),
        ("[-0.0]", "[0.0]", false),
        (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, false),
        (r#"["\u0041\/"]"#, r#"["A/"]"#, true),
        ("[]", "[[]]", false),
    ] {
        assert_eq!(difference(left, right).is_none(), same, "{left} {right}");
    }
}
