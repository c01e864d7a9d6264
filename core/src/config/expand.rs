//! `${ENV_VAR}` and `${file:/path}` inside strings; `$${` stands for a literal `${`.

use std::path::Path;

/// Replaces each reference in `text`. A relative file is looked up in `folder`; a file's last line end is dropped,
/// since secrets are usually stored with one. The replacement itself is not searched again.
///
/// # Errors
/// What is wrong and what to do, without the key: the caller knows it. Never contains a value that was read.
pub fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>, folder: &Path) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if let Some(before) = rest[..start].strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        out.push_str(&rest[..start]);
        let end = rest[start..].find('}').ok_or("\"${\" without \"}\", write \"$${\" for a literal \"${\"")?;
        out.push_str(&resolve(&rest[start + 2..start + end], env, folder)?);
        rest = &rest[start + end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn resolve(name: &str, env: &dyn Fn(&str) -> Option<String>, folder: &Path) -> Result<String, String> {
    if let Some(path) = name.strip_prefix("file:") {
        let text = std::fs::read_to_string(folder.join(path)).map_err(|error| format!("read file {path}: {error}"))?;
        return Ok(text
            .strip_suffix('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line))
            .unwrap_or(&text)
            .to_owned());
    }
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(format!(
            "\"${{{name}}}\" names no variable, write ${{NAME}} or ${{file:/path}}, or \"$${{\" for a literal \"${{\""
        ));
    }
    env(name).ok_or_else(|| {
        format!("environment variable {name} is not set, set it or write \"$${{\" for a literal \"${{\"")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "s3cret\n").unwrap();
        let env = |name: &str| match name {
            "USER" => Some("ann".to_owned()),
            "TRICKY" => Some("${USER}".to_owned()),
            _ => None,
        };
        for (text, expected) in [
            ("plain", Ok("plain")),
            ("${USER}", Ok("ann")),
            ("a-${USER}-${USER}", Ok("a-ann-ann")),
            ("$USER $ {x}", Ok("$USER $ {x}")),
            ("$${USER}", Ok("${USER}")),
            ("cost $${x} ${USER}", Ok("cost ${x} ann")),
            ("${TRICKY}", Ok("${USER}")),
            ("${file:secret}", Ok("s3cret")),
            ("${NOPE}", Err("environment variable NOPE is not set, set it or write \"$${\" for a literal \"${\"")),
            ("${USER", Err("\"${\" without \"}\", write \"$${\" for a literal \"${\"")),
            ("${file:none}", Err("read file none: No such file or directory (os error 2)")),
        ] {
            assert_eq!(expand(text, &env, folder.path()), expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
        assert!(expand("${a b}", &env, folder.path()).unwrap_err().contains("names no variable"));
    }
}
