//! All ways to a text give the same one: the paths that are looked up, minijinja over the raw event, and minijinja over the event's
//! plain JSON, which is what a template is said to see.

use minijinja::Value;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tailwater_raw::{
    Elements,
    json::{JsonForm, Writer},
};

use super::super::*;

#[path = "../../../../raw/tests/json/documents.rs"]
mod documents;

use documents::{Generator, document, string};

const ID: &str = "6b024d1b00000005-00000000deadbeef";

/// The event's JSON as the daemon makes it.
fn json(raw: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(JsonForm::Plain, 0);
    writer.raw(format!("{{\"id\":\"{ID}\"").as_bytes());
    for element in Elements::checked(raw).expect("a document") {
        let element = element.expect("whole");
        if element.name != b"_id" && element.name != b"id" {
            writer.raw(b",");
            writer.field(&element, 1).expect("JSON");
        }
    }
    writer.raw(b"}");
    writer.finish().expect("UTF-8")
}

/// The three ways; that of paths only where the template is one of these.
fn ways(source: &str, escape: Escape, raw: &[u8]) -> [Option<Result<String, String>>; 3] {
    let environment = environment(source, escape).expect(source);
    let scope = Scope::of_raw(ID, raw);
    let pieces = Pieces::parse(source, |name| environment.globals().any(|(other, _)| other == name));
    let template = environment.get_template(NAME).expect(source);
    let lazy = super::super::render(&environment, &words(source), &scope);
    let document: Value = serde_json::from_slice(&json(raw)).expect("JSON");
    let mut text = Bounded(Vec::new());
    let rendered = template.render_captured_to(&document, &mut text).map_err(|error| described(&error, false));
    let old = rendered.map(|_| String::from_utf8(text.0).expect("UTF-8"));
    [pieces.map(|pieces| pieces.render(&scope, escape)), Some(lazy), Some(old)]
}

/// Names that the templates ask for, some of which are in the documents.
const NAMES: [&str; 10] = ["a", "b", "key", "id", "_id", "t", "ref", "scope", "code", "missing"];

struct Source<'a>(&'a mut StdRng);

impl Source<'_> {
    fn pick(&mut self, of: &[&'static str]) -> &'static str {
        of[self.0.random_range(0..of.len())]
    }

    fn path(&mut self) -> String {
        const ROOTS: [&str; 9] = [
            "fullDocument",
            "fullDocument",
            "fullDocument",
            "ns",
            "documentKey",
            "operationType",
            "id",
            "_id",
            "none_such",
        ];
        let mut path = self.pick(&ROOTS).to_owned();
        for _ in 0..self.0.random_range(0..4) {
            path.push('.');
            path.push_str(self.pick(&NAMES));
        }
        path
    }

    fn expression(&mut self) -> String {
        let path = self.path();
        match self.0.random_range(0..14) {
            0..5 => path,
            5 => format!("{path} | default('d/d')"),
            6 => format!("{path} | default(\"\") | upper"),
            7 => format!("{path}[{}]", self.pick(&["0", "1", "-1", "7", "0:1", "1:", "::-1", "'a'"])),
            8 => format!("{path} ~ '|' ~ {}", self.path()),
            9 => format!("{path} == {}", self.path()),
            10 => format!("{path} < {}", self.path()),
            11 => format!(
                "{path} | {}",
                self.pick(&["length", "string", "first", "last", "join('+')", "sort | string", "int"])
            ),
            12 => format!(
                "{path} | {}",
                self.pick(&["items | list | string", "list | string", "reverse | string", "abs", "safe"])
            ),
            _ => format!(
                "{path} {}",
                self.pick(&["is defined", "is mapping", "is sequence", "is none", "is number", "in [1]"])
            ),
        }
    }

    fn template(&mut self) -> String {
        let mut template = String::new();
        for _ in 0..self.0.random_range(1..4) {
            let expression = self.expression();
            template += &match self.0.random_range(0..8) {
                0 => format!("{{% for x in {expression} %}}{{{{ loop.index }}}}-{{{{ x }}}},{{% endfor %}}"),
                1 => format!("{{% if {expression} %}}yes{{% else %}}no{{% endif %}}"),
                2 => format!("{{{{- {expression} -}}}} text "),
                _ => format!("x/{{{{ {expression} }}}}"),
            };
        }
        template
    }
}

fn event(rng: &mut StdRng) -> Vec<u8> {
    // Names that the templates know, in place of most others.
    let mut generator = Generator { rng, takes: &|_, _| true, tags: false };
    let (full, key) = (generator.document(3), generator.document(1));
    let inner = generator.document(2);
    let mut fields = Vec::new();
    for element in Elements::checked(&full).expect("a document") {
        let element = element.expect("whole");
        let name = NAMES[generator.rng.random_range(0..NAMES.len() - 1)];
        fields.push((name.to_owned(), (element.value.kind(), element.value.bytes().to_vec())));
    }
    fields.push(("a".to_owned(), (3, inner)));
    let mut ns = vec![("db".to_owned(), (2, string("shop"))), ("a".to_owned(), (2, string("orders")))];
    if generator.rng.next_u32().is_multiple_of(4) {
        // A name that is there twice.
        ns.push(("a".to_owned(), (0x10, vec![7, 0, 0, 0])));
    }
    document(&[
        ("_id".to_owned(), (2, string("token"))),
        ("operationType".to_owned(), (2, string("insert"))),
        ("id".to_owned(), (2, string("not the event's"))),
        ("ns".to_owned(), (3, document(&ns))),
        ("documentKey".to_owned(), (3, key)),
        ("fullDocument".to_owned(), (3, document(&fields))),
    ])
}

#[test]
fn all_ways_give_the_same_text() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    // How many templates were paths, and gave text.
    let (mut paths, mut texts) = (0, 0);
    for _ in 0..20_000 {
        let raw = event(&mut rng);
        let source = Source(&mut rng).template();
        let escape = if rng.random() { Escape::None } else { Escape::Url };
        let [pieces, lazy, old] = ways(&source, escape, &raw);
        let (lazy, old) = (lazy.expect("always"), old.expect("always"));
        let shown = || format!("{source}\n{}", String::from_utf8_lossy(&json(&raw)));
        assert_eq!(lazy, old, "raw and JSON: {}", shown());
        if let Some(pieces) = pieces {
            assert_eq!(pieces.is_ok(), old.is_ok(), "{pieces:?} and {old:?}: {}", shown());
            if pieces.is_ok() {
                assert_eq!(pieces, old, "paths and JSON: {}", shown());
                paths += 1;
            }
        }
        texts += u32::from(old.is_ok());
    }
    assert!(paths > 100 && texts > 1_000, "{paths} of paths, {texts} in all");
}
