//! JSON as the reference's client writes it: names sorted, two spaces, nothing beyond ASCII.

use std::fmt::Write as _;

use serde_json::Value as Json;

/// The text of a value, without a line's end.
pub(super) fn text(json: &Json) -> String {
    let mut out = String::new();
    value(json, 0, &mut out);
    out
}

fn value(json: &Json, depth: usize, out: &mut String) {
    match json {
        Json::Array(list) if !list.is_empty() => {
            out.push('[');
            for (at, one) in list.iter().enumerate() {
                between(at, depth + 1, out);
                value(one, depth + 1, out);
            }
            line(depth, out);
            out.push(']');
        }
        Json::Object(map) if !map.is_empty() => {
            let mut names: Vec<&String> = map.keys().collect();
            names.sort_unstable();
            out.push('{');
            for (at, name) in names.into_iter().enumerate() {
                between(at, depth + 1, out);
                string(name, out);
                out.push_str(": ");
                value(&map[name], depth + 1, out);
            }
            line(depth, out);
            out.push('}');
        }
        Json::Array(_) => out.push_str("[]"),
        Json::Object(_) => out.push_str("{}"),
        Json::String(text) => string(text, out),
        other => out.push_str(&other.to_string()),
    }
}

fn between(at: usize, depth: usize, out: &mut String) {
    if at > 0 {
        out.push(',');
    }
    line(depth, out);
}

fn line(depth: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

fn string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    /// What `json.dumps(…, indent=2, sort_keys=True)` gives.
    #[test]
    fn it_is_laid_out_as_python_does() {
        let json = json!({"b": [1, [], {}, {"x": null}], "a": "æ\u{1f600}\"\\\n\u{7f}", "c": true});
        let expected = "{\n  \"a\": \"\\u00e6\\ud83d\\ude00\\\"\\\\\\n\\u007f\",\n  \"b\": [\n    \
                        1,\n    [],\n    {},\n    {\n      \"x\": null\n    }\n  ],\n  \"c\": true\n}";
        assert_eq!(super::text(&json), expected);
    }
}
