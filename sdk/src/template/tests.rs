//! What templates give and refuse, as tables.

mod ways;

use super::*;

/// Renders over `json`, which may be Extended JSON, as an event.
fn render(source: &str, escape: Escape, json: &str) -> Result<String, String> {
    let document: bson::Document = serde_json::from_str(json).expect("JSON");
    render_raw(source, escape, &document.to_vec().expect("BSON"))
}

fn render_raw(source: &str, escape: Escape, raw: &[u8]) -> Result<String, String> {
    let template = Template::compile(source, escape).map_err(|error| error.to_string())?;
    template.render(&Scope::of_raw("the-id", raw)).map_err(|error| error.to_string())
}

#[test]
fn expressions_are_paths_into_the_event() {
    let json = r#"{"operationType":"insert","ns":{"db":"shop","coll":"orders"},
        "fullDocument":{"userId":"64b0","n":7,"price":9.5,"paid":true,"none":null,"tags":["a","b"],"text":"a/b ?ü"}}"#;
    for (source, expected) in [
        ("orders", "orders"),
        ("orders-{{ fullDocument.userId }}", "orders-64b0"),
        ("{{ ns.db }}.{{ns.coll}}", "shop.orders"),
        ("{{ fullDocument.n }}/{{ fullDocument.price }}/{{ fullDocument.paid }}", "7/9.5/true"),
        ("{{ fullDocument.tags[1] }}", "b"),
        ("{{ operationType[:3] }}", "ins"),
        ("{{ fullDocument.tags | join('-') }}", "a-b"),
        ("{{ operationType | upper }}", "INSERT"),
        ("{% if fullDocument.nothing %}a{% else %}b{% endif %}", "b"),
        ("{% if fullDocument.nothing is not defined %}a{% endif %}", "a"),
        ("{% for n in range(3) %}{{ n }}{% endfor %}", "012"),
        ("{{ fullDocument.nothing | default('none') }}", "none"),
        ("{{ id }} {{ ns.id | default('-') }}", "the-id -"),
    ] {
        assert_eq!(render(source, Escape::None, json).as_deref(), Ok(expected), "{source}");
    }
    assert_eq!(render("x/{{ fullDocument.text }}", Escape::Url, json).as_deref(), Ok("x/a%2Fb%20%3F%C3%BC"));
    assert_eq!(render("x/{{ fullDocument.text | safe }}", Escape::Url, json).as_deref(), Ok("x/a/b ?ü"));
}

#[test]
fn what_would_print_nothing_useful_is_an_error() {
    let json = r#"{"_id":"token","fullDocument":{"none":null,"tags":["a"],"sub":{"a":1}},"long":"0123456789"}"#;
    for (source, expected) in [
        ("{{ fullDocument.userId }}", ": fullDocument.userId is not in the event"),
        ("{{ nothing.userId }}", "nothing.userId is not in the event"),
        ("{{ nothing.userId | default('a') }}", "nothing.userId is not in the event"),
        ("{{ fullDocument.userId | upper }}", "a field of an expression is not in the event"),
        ("{{ _id }}", "_id is not in the event"),
        ("{{ _id | upper }}", "not in the event"),
        ("{{ fullDocument.none }}", "fullDocument.none: an expression gives none"),
        ("{{ fullDocument.none | default('a') }}", "gives none"),
        ("{{ fullDocument.sub.a ~ fullDocument.sub | int }}", "does not fit"),
        ("{{ fullDocument.tags }}", "gives sequence"),
        ("{{ fullDocument.sub }}", "gives map"),
        ("{% for a in range(100000) %}{% endfor %}", "too many steps"),
        ("{% for a in range(8000) %}{{ long }}{% endfor %}", &format!("more than {RENDERED_BYTES_MAX} bytes")),
    ] {
        let error = render(source, Escape::None, json).expect_err(source);
        assert!(error.contains(expected) && !error.contains('\n'), "{source}: {error}");
    }
}

#[test]
fn what_is_no_template_is_refused_with_its_text() {
    for source in [
        "{{ a",
        "{{ a b }}",
        "{% if a %}",
        "{{ a | nothing }}",
        "{{ fullDocument.city | nothing }}",
        "{% if operationType == 'insert' %}{{ ns.coll | upper | nothing }}{% endif %}",
        "{{ a | e }}",
        "{% if ns is nothng %}{{ a }}{% endif %}",
        "{% if fullDocument %}{{ foo(1) }}{% endif %}",
        "{% macro a() %}{% endmacro %}",
        "{% include 'a' %}",
    ] {
        let error = Template::compile(source, Escape::None).expect_err(source).to_string();
        let start = format!("compile template {source:?}: ");
        assert!(error.starts_with(&start) && error.len() > start.len(), "{error}");
    }
}

#[test]
fn only_text_without_expressions_is_constant() {
    for (source, constant) in
        [("a", true), ("", true), ("{{ a }}", false), ("{# a #}", false), ("{% if a %}{% endif %}", false)]
    {
        let template = Template::compile(source, Escape::None).expect(source);
        assert_eq!(template.constant(), constant.then_some(source), "{source}");
    }
}

#[test]
fn a_source_is_compiled_once() {
    let compile = |source: &str, escape| Template::compile(source, escape).expect(source).0;
    let source = "once-{{ a }}";
    assert!(Arc::ptr_eq(&compile(source, Escape::None), &compile(source, Escape::None)));
    assert!(!Arc::ptr_eq(&compile(source, Escape::None), &compile(source, Escape::Url)));
    // What nobody uses makes room; what is used stays, and is still the same.
    let used = compile("used-{{ a }}", Escape::None);
    for n in 0..3 * cache::KEPT_MAX {
        compile(&format!("{n}"), Escape::None);
    }
    assert!(cache::kept() <= cache::KEPT_MAX);
    assert!(Arc::ptr_eq(&used, &compile("used-{{ a }}", Escape::None)));
    // More than may be kept are templates all the same.
    let all: Vec<_> = (0..2 * cache::KEPT_MAX).map(|n| compile(&format!("all-{n}"), Escape::None)).collect();
    assert!(cache::kept() <= cache::KEPT_MAX);
    assert_eq!(all.last().expect("one").source, format!("all-{}", 2 * cache::KEPT_MAX - 1));
}

#[test]
fn a_place_gets_only_what_may_stand_there() {
    for (escape, text, refused) in [
        (Escape::Name, "a\u{1}\tb\u{7f}é", None),
        (Escape::Name, "a\nb", Some("a line end")),
        (Escape::Name, "a\r", Some("a line end")),
        (Escape::Name, "\0", Some("a NUL")),
        (Escape::Header, "Bearer a b/é", None),
        (Escape::Header, "a\r\nx: b", Some("a line end")),
        (Escape::Header, "a\0", Some("a NUL")),
        (Escape::Header, "a\u{1b}[0m", Some("a control character")),
        (Escape::Header, "a\u{7f}", Some("a control character")),
        (Escape::Header, "a\u{85}", Some("a control character")),
        (Escape::None, "a\n\0", None),
    ] {
        let json = serde_json::json!({ "secret": text }).to_string();
        for source in ["{{ secret }}", "{{ secret | default('x') }}", "{{ secret | safe }}", "{{ secret ~ '' }}"] {
            match (render(source, escape, &json), refused) {
                (Ok(rendered), None) => assert_eq!(rendered, text),
                (Err(error), Some(refused)) => {
                    assert!(error.starts_with(&format!("render {source:?}: the text has {refused}")), "{error}");
                    assert!(!error.contains(text), "{error}");
                }
                (result, _) => panic!("{escape:?} {text:?} {source}: {result:?}"),
            }
        }
        assert_eq!(Template::compile(text, escape).is_err(), refused.is_some(), "{escape:?} {text:?}");
    }
    assert_eq!(render("{{ a }}", Escape::Url, r#"{"a":"x\n\u0000/é"}"#).as_deref(), Ok("x%0A%00%2F%C3%A9"));
    assert_eq!(render("{{ a | default('/') }}", Escape::Url, "{}").as_deref(), Ok("%2F"));
}

#[test]
fn an_error_shows_no_value_of_the_document() {
    let json = r#"{"a":"hidden1","n":77777,"list":["hidden2",{"b":"hidden3"}],"d":{"$date":"2024-02-29T00:00:00Z"}}"#;
    for source in [
        "{{ a | int }}",
        "{{ a + n }}",
        "{{ a - 1 }}",
        "{{ n.x.y }}",
        "{{ a.x.y }}",
        "{{ list }}",
        "{{ list[1] }}",
        "{{ list | sum }}",
        "{{ a | round }}",
        "{{ n | join(a) }}",
        "{{ a | attr(n) | upper }}",
        "{{ a | list | sum }}",
        "{% for x, y in list %}{{ x }}{% endfor %}",
        "{{ a.b() }}",
        "{{ list.hidden2() }}",
        "{{ n | slice(0) }}",
        "{{ 1 // (n - 77777) }}",
        "{{ d < n or -a }}",
        "{{ range(n) | list | string * 100 }}",
        "{{ a | batch(n) | map(a) | list }}",
        "{{ list | map(attribute='b') | list | sum }}",
        "{{ '%d' | format(a) }}",
    ] {
        let Err(error) = render(source, Escape::None, json) else { panic!("{source} gives a text") };
        assert!(error.starts_with(&format!("render {source:?}: ")), "{source}: {error}");
        let reason = error.replace(&format!("{source:?}"), "");
        for value in ["hidden1", "hidden2", "hidden3", "77777", "2024"] {
            assert!(!reason.contains(value), "{source}: {error}");
        }
    }
}

#[test]
fn what_is_damaged_is_an_error_where_it_is_looked_at() {
    let mut raw = bson::rawdoc! { "a": "é", "b": { "c": "é" }, "list": ["é"], "ns": { "db": "shop" } }.into_bytes();
    for at in 1..raw.len() {
        if raw[at - 1] == 0xc3 {
            raw[at] = b'x';
        }
    }
    for (source, expected) in [
        ("{{ a }}", "not UTF-8"),
        ("{{ b.c }}", "not UTF-8"),
        ("{{ a | upper }}", "damaged"),
        ("{{ b.c | upper }}", "damaged"),
        ("{% for x in list %}{{ x }}{% endfor %}", "damaged"),
        ("{{ list | join }}", "damaged"),
    ] {
        let error = render_raw(source, Escape::None, &raw).expect_err(source);
        assert!(error.contains(expected), "{source}: {error}");
    }
    assert_eq!(render_raw("{{ ns.db }}", Escape::None, &raw).as_deref(), Ok("shop"));
    assert_eq!(render_raw("{{ ns.db | upper }}", Escape::None, &raw).as_deref(), Ok("SHOP"));
    for source in ["{{ ns.db }}", "{{ ns.db | upper }}", "{{ ns.db | default('x') }}"] {
        for length in 0..raw.len() {
            render_raw(source, Escape::None, &raw[..length]).expect_err(source);
        }
    }
}

/// `levels` documents or arrays in each other, at `a`.
fn deep(levels: usize, array: bool) -> Vec<u8> {
    let mut inner = bson::RawBson::Int32(1);
    for _ in 0..levels {
        inner = if array { bson::rawbson!([inner]) } else { bson::rawbson!({ "a": inner }) };
    }
    bson::rawdoc! { "a": inner }.into_bytes()
}

#[test]
fn deep_documents_need_no_large_stack() {
    // A plugin's threads have 2 MiB.
    let thread = std::thread::Builder::new().stack_size(2048 << 10).spawn(|| {
        for array in [false, true] {
            let (shallow, raw) = (deep(120, array), deep(2_000, array));
            for source in [
                "{{ a == a }}",
                "{{ (a ~ '') | length }}",
                "{{ [a, a] | sort | length }}",
                "{{ a in [a] }}",
                "{{ [a] | unique | length }}",
            ] {
                render_raw(source, Escape::None, &shallow).unwrap_or_else(|error| panic!("{error}"));
                // An error or not: what counts is that there is an end.
                let _ = render_raw(source, Escape::None, &raw);
            }
            // A path is followed as deep as it is long.
            let path = "a.".repeat(400) + "a";
            let found = render_raw(&format!("{{{{ {path} }}}}"), Escape::None, &deep(400, array));
            assert_eq!(found.as_deref().ok(), (!array).then_some("1"), "{found:?}");
        }
    });
    thread.expect("a thread").join().expect("no panic");
}

#[test]
fn work_on_a_large_document_has_an_end() {
    let list: Vec<i32> = (0..400_000).collect();
    let raw = bson::doc! { "list": list, "text": "x".repeat(1 << 20) }.to_vec().expect("BSON");
    for (source, expected) in [
        ("{{ list[399999] }}", Ok("399999")),
        ("{{ list | length }}", Ok("400000")),
        ("{{ list | first }}", Ok("0")),
        ("{% for n in range(10000) %}{% if list[399999 - n] == -1 %}x{% endif %}{% endfor %}", Err("too many steps")),
        ("{% for n in list %}{% if n < 0 %}x{% endif %}{% endfor %}", Err("too many steps")),
        ("{{ list | join(',') }}", Err("too many steps")),
        ("{{ list ~ '' }}", Err("too many steps")),
        ("{{ text }}", Err("more than 65536 bytes")),
        ("{{ text | upper }}", Err("more than 65536 bytes")),
        (
            "{% for n in range(100) %}{% if text | upper == text | lower %}x{% endif %}{% endfor %}",
            Err("too many steps"),
        ),
        ("{{ text * 100000 }}", Err("")),
    ] {
        match (render_raw(source, Escape::None, &raw), expected) {
            (Ok(text), Ok(expected)) => assert_eq!(text, expected, "{source}"),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{source}: {error}"),
            (result, _) => panic!("{source}: {result:?}"),
        }
    }
}

#[test]
fn a_template_has_a_size_that_can_be_compiled() {
    // Just below the bound, on the smallest stack that a thread of a daemon has: chains of all kinds.
    for link in [".a", "|d", "+1", "~1", " or 1", "[1]", "()", " if 1", "*1", ",a", " is a"] {
        for start in ["{{ a", "{{ {'a': {}}.a", "{{ '}}'.a", "{% if a"] {
            let end = if start.starts_with("{%") { " %}{% endif %}" } else { " }}" };
            let of = |times: usize| format!("{start}{}{end}", link.repeat(times));
            let (most, more) = (of((TAG_BYTES_MAX - 24) / link.len()), of(TAG_BYTES_MAX / link.len() + 1));
            let small = std::thread::Builder::new().stack_size(2 << 20);
            // A template or not: what counts is that there is an end.
            let thread = small.spawn(move || drop(Template::compile(&most, Escape::None)));
            thread.expect("a thread").join().expect("no panic");
            let error = Template::compile(&more, Escape::None).expect_err("too long").to_string();
            assert!(error.contains("more than 1024 bytes between"), "{error}");
        }
    }
    let text = "x".repeat(SOURCE_BYTES_MAX);
    Template::compile(&text, Escape::None).expect("text may be long");
    Template::compile(&format!("{text}x"), Escape::None).expect_err("too long");
}
