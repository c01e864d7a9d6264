//! A template of one field: the SDK's, as plugins render it, beside minijinja over a document that was parsed for it.

use std::hint::black_box;

use anyhow::{Context, Result, anyhow, ensure};
use bson::{Document, RawDocument};
use minijinja::value::Serde;
use minijinja::{Environment, Value};
use tailwater_sdk::Event;
use tailwater_sdk::template::{Escape, Scope, Template};

use super::rounds::{Contender, Task};

const SOURCE: &str = "orders-{{ fullDocument.userId }}";
const EXPECTED: &str = "orders-u-48210";

/// `event` came through the border; `json` is its plain JSON, `raw` its BSON.
pub fn task<'a>(size: &'static str, event: Event<'a>, json: &'a [u8], raw: &'a RawDocument) -> Result<Task<'a>> {
    let template = Template::compile(SOURCE, Escape::None).map_err(|error| anyhow!("{error}"))?;
    let mut environment = Environment::new();
    environment.add_template("t", SOURCE)?;
    let from_json = environment.clone();
    let by_sdk = move || template.render(&Scope::of(black_box(event)));
    let by_json = move || {
        let document: Value = serde_json::from_slice(black_box(json)).expect("JSON");
        from_json.get_template("t").and_then(|template| template.render(document))
    };
    let by_document = move || {
        let document = Document::try_from(black_box(raw)).expect("a document");
        environment.get_template("t").and_then(|template| template.render(Value::from(Serde(&document))))
    };
    let texts = [
        by_sdk().map_err(|error| anyhow!("{error}"))?,
        by_json().context("minijinja over JSON")?,
        by_document().context("minijinja over a Document")?,
    ];
    ensure!(texts.iter().all(|text| text == EXPECTED), "the template gives {texts:?}");
    let contenders = vec![
        Contender::ours("Tailwater SDK: Template", move || _ = black_box(by_sdk().is_ok())),
        Contender::document("bson::Document, minijinja", move || _ = black_box(by_document().is_ok())),
        Contender::other("JSON that is there, serde_json, minijinja", move || _ = black_box(by_json().is_ok())),
    ];
    Ok(Task { size, what: "template".to_owned(), contenders, max_ns: None })
}
