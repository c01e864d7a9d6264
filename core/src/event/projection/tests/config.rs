//! What a `project` may say, and what is said where it may not.

use super::*;

#[test]
fn what_cannot_hold_is_refused_with_what_to_do() {
    let table = [
        ("", "says nothing, write include, exclude, redact or rename, or remove it"),
        ("mask = \"x\"", "says nothing, write include, exclude, redact or rename, or remove it"),
        ("inclued = [\"to\"]", "unknown key \"inclued\", did you mean \"include\"?"),
        ("include = [\"to\"]\nexclude = [\"lsid\"]", "include and exclude are both there, write one of them"),
        ("include = []", "include: is empty, name a path or remove it"),
        ("include = \"to\"", "include: expected an array such as [\"fullDocument.status\"], found a string"),
        ("redact = {}", "redact: is empty, name a path or remove it"),
        ("exclude = [\"\"]", "exclude[0]: \"\" has an empty part, write a path such as \"fullDocument.status\""),
        (
            "exclude = [\"a..b\"]",
            "exclude[0]: \"a..b\" has an empty part, write a path such as \"fullDocument.status\"",
        ),
        ("exclude = [\"a\\u0000\"]", "exclude[0]: \"a\\0\" is no path, write at most 64 names with dots between them"),
        (
            "exclude = [\"to\", \"_id\"]",
            "exclude[1]: \"_id\" cannot be named: outputs need _id, operationType, ns, which always stay",
        ),
        (
            "redact = { \"ns.coll\" = \"mask\" }",
            "redact.ns.coll: \"ns.coll\" cannot be named: outputs need _id, operationType, ns, which always stay",
        ),
        (
            "exclude = [\"updateDescription.updatedFields.card.pin\"]",
            "exclude[0]: \"updateDescription.updatedFields.card.pin\" is a field of the document, write \
             \"fullDocument.card.pin\": that means the field wherever the event carries it",
        ),
        (
            "include = [\"documentKey._id\"]",
            "include[0]: \"documentKey._id\" is a field of the document, write \"fullDocument._id\": that means the field \
             wherever the event carries it",
        ),
        (
            "exclude = [\"fullDocument.items.0.card\"]",
            "exclude[0]: \"fullDocument.items.0.card\" has the number 0 in it, leave it out: a path goes through all places of \
             an array",
        ),
        (
            "redact = { fullDocument = \"mask\" }",
            "redact.fullDocument: \"fullDocument\" cannot be redacted as a whole, exclude it or redact fields of it",
        ),
        (
            "redact = { \"fullDocument.a\" = \"blur\" }",
            "redact.fullDocument.a: \"blur\" is not known, write \"hash\" or \"mask\"",
        ),
        (
            "redact = { fullDocument.a = \"mask\" }",
            "redact.fullDocument: is a table, put the whole path in quotes, such as \"fullDocument.email\" = …",
        ),
        (
            "rename = { lsid = \"s\" }",
            "rename.lsid: \"lsid\" is a part of the event, which outputs know by its name; rename fields below it",
        ),
        (
            "rename = { \"fullDocument.a\" = \"b.c\" }",
            "rename.fullDocument.a: \"b.c\" has a dot, write the new name of the field without the path: it stays in its place",
        ),
        (
            "rename = { \"fullDocument.a\" = \"\" }",
            "rename.fullDocument.a: \"\" is empty, write the new name of the field",
        ),
        ("rename = { \"fullDocument.a\" = \"$b\" }", "rename.fullDocument.a: \"$b\" begins with $, write another name"),
        (
            "rename = { \"fullDocument.a\" = \"7\" }",
            "rename.fullDocument.a: \"7\" is a number, which names places in arrays, write another name",
        ),
        ("exclude = [\"to\", \"to\"]", "exclude[1]: \"to\" is there twice, remove one"),
        (
            "exclude = [\"fullDocument.a\"]\nredact = { \"fullDocument.a\" = \"mask\" }",
            "\"fullDocument.a\" is excluded, and redacted or renamed too, remove one",
        ),
        (
            "exclude = [\"fullDocument.a\", \"fullDocument.a.b\"]",
            "\"fullDocument.a.b\" is inside of \"fullDocument.a\", which is excluded with all that is in it; remove one of them",
        ),
        (
            "exclude = [\"fullDocument\"]\nrename = { \"fullDocument.a\" = \"b\" }",
            "\"fullDocument.a\" is inside of \"fullDocument\", which is excluded with all that is in it; remove one of them",
        ),
        (
            "include = [\"fullDocument.a\", \"fullDocument.a.b\"]",
            "\"fullDocument.a.b\" is inside of \"fullDocument.a\", which is included with all that is in it; remove one of them",
        ),
        (
            "redact = { \"fullDocument.a\" = \"mask\", \"fullDocument.a.b\" = \"mask\" }",
            "\"fullDocument.a.b\" is inside of \"fullDocument.a\", which is redacted as one value; remove one of them",
        ),
        (
            "include = [\"fullDocument.a\"]\nredact = { \"fullDocument.b\" = \"mask\" }",
            "\"fullDocument.b\" is not included, so nothing comes of what is said of it; include it too",
        ),
        (
            "rename = { \"fullDocument.a\" = \"x\", \"fullDocument.b\" = \"x\" }",
            "\"fullDocument.a\" is renamed to \"x\", which \"fullDocument.b\" is called too; choose another name",
        ),
        (
            "include = [\"fullDocument.a\", \"fullDocument.b.c\"]\nrename = { \"fullDocument.a\" = \"b\" }",
            "\"fullDocument.a\" is renamed to \"b\", which \"fullDocument.b.c\" is called too; choose another name",
        ),
        (
            "redact = { \"fullDocument.a\" = \"hash\" }",
            "redact says \"hash\", which needs a key, add hash_key = \"${REDACT_KEY}\"",
        ),
        (
            "redact = { \"fullDocument.a\" = \"hash\" }\nhash_key = \"secretsecretsec\"",
            "hash_key: is too short, write 16 to 4096 bytes, such as openssl rand -base64 32 makes",
        ),
        (
            "redact = { \"fullDocument.a\" = \"mask\" }\nhash_key = \"secretsecretsecret\"",
            "hash_key: has no effect: no path of redact says \"hash\"; remove it",
        ),
        ("exclude = [\"to\"]\nmask = \"x\"", "mask: has no effect: there is no redact; remove it"),
    ];
    for (text, expected) in table {
        let error = read(text).expect_err(text).to_string();
        let (place, message) = error.split_once(": ").expect("a place");
        assert!(place.starts_with("config.toml"), "{error}");
        assert_eq!(message, expected, "{text}");
        assert!(!error.contains("secretsec"), "{error}");
    }
    let long = format!("redact = {{ \"fullDocument.a\" = \"mask\" }}\nmask = \"{}\"", "m".repeat(257));
    assert!(read(&long).expect_err("too long").to_string().ends_with("mask: is too long, write at most 256 bytes"));
    let many: Vec<String> = (0..1001).map(|number| format!("\"x{number}\"")).collect();
    let error = read(&format!("exclude = [{}]", many.join(", "))).expect_err("too many").to_string();
    assert!(error.ends_with("\"x1000\" is one path too many, write at most 1000"), "{error}");
}

#[test]
fn what_goes_together_is_taken() {
    for text in [
        "include = [\"fullDocument.a\"]\nrename = { \"fullDocument.a\" = \"b\" }\nredact = { \"fullDocument.a\" = \"mask\" }",
        "include = [\"fullDocument.a.b\"]\nrename = { \"fullDocument.a\" = \"x\" }",
        "include = [\"fullDocument.a\"]\nredact = { \"fullDocument.a.b\" = \"mask\" }",
        "include = [\"documentKey\"]\nredact = { \"fullDocument._id\" = \"mask\" }",
        "rename = { \"fullDocument.a\" = \"b\", \"fullDocument.b\" = \"a\" }",
        "exclude = [\"fullDocument.b\"]\nrename = { \"fullDocument.a\" = \"b\" }",
        "redact = { lsid = \"mask\", documentKey = \"mask\" }",
        "exclude = [\"fullDocument.a.b\"]\nrename = { \"fullDocument.x\" = \"a2\" }",
    ] {
        let _ = projection(text);
    }
}
