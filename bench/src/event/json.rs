//! JSON of an event: Tailwater's, which reads the raw BSON, beside what the driver's library offers.

use anyhow::{Context, Result, ensure};
use bson::{Bson, Document, RawDocument};
use serde_json::{Map, Value, json};
use std::hint::black_box;
use tailwater::event::{Event, JsonForm};
use tailwater_raw::{Elements, json::Writer};

use super::rounds::{Contender, Task};

/// One task for each form.
pub fn tasks<'a>(size: &'static str, raw: &'a RawDocument) -> Result<Vec<Task<'a>>> {
    let forms = [("relaxed", JsonForm::Relaxed), ("canonical", JsonForm::Canonical), ("plain", JsonForm::Plain)];
    forms.into_iter().map(|(name, form)| task(size, raw, name, form).with_context(|| format!("JSON, {name}"))).collect()
}

fn task<'a>(size: &'static str, raw: &'a RawDocument, name: &str, form: JsonForm) -> Result<Task<'a>> {
    same(raw, form)?;
    let mut contenders = vec![
        Contender::ours("Tailwater: Event::json", move || {
            let event = Event::from_raw(black_box(raw)).expect("an event");
            black_box(event.json(form).expect("JSON").len());
        }),
        Contender::document(
            match form {
                JsonForm::Plain => "bson::Document, by hand to serde_json",
                _ => "bson::Document, its extended JSON, serde_json",
            },
            move || _ = black_box(document_json(black_box(raw), form)),
        ),
        Contender::other("Tailwater: tailwater_raw alone", move || _ = black_box(raw_json(black_box(raw), form))),
    ];
    if form == JsonForm::Relaxed {
        // What serde makes of the driver's types is neither of the two forms: dates are canonical in it, numbers relaxed.
        contenders.push(Contender::document("bson::Document, serde_json", move || {
            let document = Document::try_from(black_box(raw)).expect("a document");
            black_box(serde_json::to_vec(&document).expect("JSON"));
        }));
        contenders.push(Contender::other("bson::RawDocument, serde_json", move || {
            black_box(serde_json::to_vec(&black_box(raw)).expect("JSON"));
        }));
    }
    Ok(Task { size, what: format!("JSON, {name}"), contenders, max_ns: Some(2_500.0) })
}

fn raw_json(raw: &RawDocument, form: JsonForm) -> Vec<u8> {
    let mut writer = Writer::new(form, form.capacity(raw.as_bytes().len()));
    writer.document(Elements::of(raw), 1).expect("JSON");
    writer.finish().expect("UTF-8")
}

fn document_json(raw: &RawDocument, form: JsonForm) -> Vec<u8> {
    let document = Bson::Document(Document::try_from(raw).expect("a document"));
    let value = match form {
        JsonForm::Relaxed => document.into_relaxed_extjson(),
        JsonForm::Canonical => document.into_canonical_extjson(),
        JsonForm::Plain => plain(document),
    };
    serde_json::to_vec(&value).expect("JSON")
}

/// As a user who wants plain JSON of these events would write it.
fn plain(value: Bson) -> Value {
    match value {
        Bson::Document(document) => document.into_iter().map(|(name, value)| (name, plain(value))).collect(),
        Bson::Array(items) => items.into_iter().map(plain).collect(),
        Bson::ObjectId(id) => id.to_hex().into(),
        // As Tailwater has it, always with three digits.
        Bson::DateTime(date) => {
            let text = date.try_to_rfc3339_string().expect("a date of these years");
            if text.len() == 20 { format!("{}.000Z", &text[..19]).into() } else { text.into() }
        }
        Bson::Decimal128(decimal) => decimal.to_string().into(),
        Bson::Timestamp(time) => json!({ "t": time.time, "i": time.increment }),
        Bson::Binary(binary) => binary.to_uuid().expect("a UUID is the only binary").to_string().into(),
        other => other.into_relaxed_extjson(),
    }
}

/// Whether all make the same; an event's JSON has its id for its token.
fn same(raw: &RawDocument, form: JsonForm) -> Result<()> {
    let expected: Map<String, Value> = serde_json::from_slice(&document_json(raw, form))?;
    let ours: Map<String, Value> = serde_json::from_slice(&raw_json(raw, form))?;
    ensure!(ours == expected, "tailwater_raw and the Document path differ");
    let event = Event::from_raw(raw).context("from_raw")?;
    let mut ours: Map<String, Value> = serde_json::from_slice(event.json(form)?)?;
    let id = ours.remove("id");
    ensure!(id == Some(event.id().as_str().into()), "the event's JSON has no id");
    ours.insert("_id".to_owned(), expected["_id"].clone());
    ensure!(ours == expected, "the event's JSON and the Document path differ");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::samples;

    #[test]
    fn all_ways_make_the_same_json_of_both_events() {
        for (size, raw) in [("500 B", samples::small()), ("20 KB", samples::large())] {
            super::tasks(size, &raw).unwrap_or_else(|error| panic!("{size}: {error:#}"));
        }
    }
}
