//! Beside PyMongo's `json_util`, in one Python process for each test. `cargo xtask test` fetches it.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use tailwater_raw::json::JsonForm;

use crate::{
    compare::difference,
    example, ours,
    rules::{LOSES, Oracle, WRITES},
    to_read, to_write,
};

const FORMS: [JsonForm; 2] = [JsonForm::Canonical, JsonForm::Relaxed];
const DOCUMENTS: usize = 4_000;

/// What PyMongo makes of one document.
#[derive(serde::Deserialize)]
struct Answer {
    canonical: String,
    relaxed: String,
    from_canonical: String,
    from_relaxed: String,
}

impl Answer {
    /// Its own JSON.
    fn written(&self, form: JsonForm) -> &str {
        if form == JsonForm::Canonical { &self.canonical } else { &self.relaxed }
    }

    /// The BSON, as hex, that it reads from our JSON.
    fn read(&self, form: JsonForm) -> &str {
        if form == JsonForm::Canonical { &self.from_canonical } else { &self.from_relaxed }
    }
}

fn python() -> PathBuf {
    let found = env::var_os("TAILWATER_PYMONGO").map(PathBuf::from).filter(|path| path.exists());
    found.expect("TAILWATER_PYMONGO leads nowhere: run `cargo xtask test`, which fetches PyMongo, or set it to a python with pymongo==4.20.0")
}

fn ask(documents: &[Vec<u8>]) -> Vec<Answer> {
    let mut lines = String::new();
    for document in documents {
        let [canonical, relaxed] = FORMS.map(|form| ours(document, form));
        lines.push_str(&format!("{}\t{canonical}\t{relaxed}\n", hex(document)));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/json/pymongo.py");
    let mut command = Command::new(python());
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().expect("start python");
    let mut stdin = process.stdin.take().expect("piped");
    // On a thread of its own: the script answers while it reads.
    let writing = thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = process.wait_with_output().expect("its output");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    writing.join().expect("the writing thread").expect("write to the script");
    let answers = String::from_utf8(output.stdout).expect("UTF-8");
    let answers: Vec<Answer> = answers.lines().map(|line| serde_json::from_str(line).expect("an answer")).collect();
    assert_eq!(answers.len(), documents.len(), "one answer each");
    answers
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn json_is_that_of_pymongo() {
    for form in FORMS {
        let documents = to_write(Oracle::PyMongo, form, DOCUMENTS);
        for (document, answer) in documents.iter().zip(ask(&documents)) {
            let json = ours(document, form);
            let written = answer.written(form);
            assert!(!written.starts_with("error"), "{form:?}: {written}: {json}");
            if let Some(difference) = difference(&json, written) {
                panic!("{form:?}: {difference}");
            }
        }
    }
}

#[test]
fn pymongo_reads_back_the_bson_that_was() {
    for form in FORMS {
        let documents = to_read(Oracle::PyMongo, form, DOCUMENTS);
        for (document, answer) in documents.iter().zip(ask(&documents)) {
            assert_eq!(answer.read(form), hex(document), "{form:?}: {}", ours(document, form));
        }
    }
}

#[test]
fn each_exception_of_pymongo_is_one() {
    for rule in WRITES.iter().filter(|rule| rule.oracle == Oracle::PyMongo) {
        let document = example((rule.example)());
        assert_eq!(ours(&document, rule.forms[0]), format!("{{\"v\":{}}}", rule.specified), "{}", rule.why);
        let answer = &ask(std::slice::from_ref(&document))[0];
        for form in rule.forms {
            assert!(difference(&ours(&document, *form), answer.written(*form)).is_some(), "{}", rule.why);
        }
    }
    for rule in LOSES.iter().filter(|rule| rule.oracle != Some(Oracle::Library)) {
        let document = example((rule.example)());
        let answer = &ask(std::slice::from_ref(&document))[0];
        for form in rule.forms {
            assert_ne!(answer.read(*form), hex(&document), "{}", rule.why);
        }
    }
}
