//! Any template over any document: refused, or a text that has its bound and may go where it goes, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tailwater_fuzz::document;
use tailwater_sdk::template::{Escape, RENDERED_BYTES_MAX, Scope, Template};

fuzz_target!(|data: &[u8]| {
    // The source as text, so that seeds can be written by hand, a zero, and what makes the document.
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let source = String::from_utf8_lossy(&data[..end]);
    let raw = document(data.get(end + 1..).unwrap_or_default());
    for escape in [Escape::None, Escape::Url, Escape::Header, Escape::Name] {
        let Ok(template) = Template::compile(&source, escape) else { continue };
        match template.render(&Scope::of_raw("6b024d1b00000005-00000000deadbeef", &raw)) {
            Ok(text) => {
                assert!(text.len() <= RENDERED_BYTES_MAX, "{} bytes", text.len());
                escape.check(&text).expect("what may not go there is refused");
            }
            Err(error) => {
                let error = error.to_string();
                assert!(!error.contains(['\n', '\r']), "more than one line: {error}");
            }
        }
    }
});
