//! JSON text of values: what goes out comes back in, and serde_json agrees about what JSON is.

use proptest::prelude::*;
use tahini_entity::json::{self, Numbers, Text};
use tahini_entity::{Value, order};

use crate::{arbitrary, value, written};

proptest! {
    #[test]
    fn wire_in_is_wire_out(value in arbitrary::wire_value()) {
        let text = written(&value);
        let back = crate::value(&text);
        prop_assert!(order::same(&back, &value), "{value:?} went over the wire as {text}");
        prop_assert_eq!(written(&back), text);
    }

    #[test]
    fn a_configuration_tree_is_the_same_as_text(value in arbitrary::wire_value()) {
        let text = written(&value);
        let tree: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&json::to_config(&value), &tree);
        for numbers in [Numbers::FLOATS, Numbers::HTTP_ENDPOINT] {
            let from_tree = json::from_config(&tree, numbers);
            let from_text = json::parse_value(text.as_bytes(), numbers).unwrap();
            prop_assert_eq!(written(&from_tree), written(&from_text));
        }
    }

    #[test]
    fn spaces_between_tokens_do_not_matter(value in arbitrary::wire_value()) {
        let tree = json::to_config(&value);
        let pretty = serde_json::to_string_pretty(&tree).unwrap();
        prop_assert_eq!(written(&crate::value(&pretty)), written(&value));
        let tabs = format!("\t\r\n {pretty}\t\r\n ");
        prop_assert_eq!(written(&crate::value(&tabs)), written(&value));
    }

    /// One byte of a valid text changed: both parsers accept it or neither does.
    #[test]
    fn the_grammar_is_that_of_serde_json(
        value in arbitrary::wire_value(),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![proptest::sample::select(&b"{}[]\",:0123456789.-+eEtfn\\u \n"[..]), any::<u8>()],
        cut in any::<bool>(),
    ) {
        let mut text = written(&value).into_bytes();
        let at = at.index(text.len());
        if cut {
            text.remove(at);
        } else {
            text[at] = byte;
        }
        let theirs: Result<serde_json::Value, _> = serde_json::from_slice(&text);
        let ours = json::parse_plain(&text, Numbers { float_as_decimal: true, float_as_int: false });
        match (&ours, &theirs) {
            // Exponents beyond our limit are the one thing that we refuse alone.
            (Err(error), Ok(_)) => prop_assert!(error.message.contains("exponent"), "{error}"),
            _ => prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}", String::from_utf8_lossy(&text)),
        }
    }

    #[test]
    fn sorted_text_is_the_same_for_any_order_of_names(value in arbitrary::wire_value()) {
        let form = Text { transit: true, sorted: true, spaced: true };
        let text = |value: &Value| {
            let mut out = Vec::new();
            json::write_text(value, form, &mut out);
            String::from_utf8(out).unwrap()
        };
        let back = crate::value(&text(&value));
        prop_assert!(order::same(&back, &value));
        prop_assert_eq!(text(&back), text(&value));
    }
}

#[test]
fn bare_text_has_no_tags() {
    let value = value(
        r#"{"b":["~:a:b","~rx:y","~t2015-12-31","~t2015-12-31T01:02:03.40Z","~f1.50","~bAAE="],"a":"~u00000000-0000-0000-0000-00000000000f"}"#,
    );
    let mut out = Vec::new();
    json::write_text(
        &value,
        Text {
            transit: false,
            sorted: true,
            spaced: true,
        },
        &mut out,
    );
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"{"a": "00000000-0000-0000-0000-00000000000f", "b": ["a:b", "x:y", "2015-12-31", "2015-12-31T01:02:03.4Z", 1.50, "AAE="]}"#
    );
}

#[test]
fn plain_parsing_leaves_tags_alone() {
    let value = json::parse_plain(br#"["~:a:b","~f1"]"#, Numbers::FLOATS).unwrap();
    assert!(order::same(
        &value,
        &Value::List([Value::string("~:a:b"), Value::string("~f1")].into())
    ));
}

#[test]
fn text_is_escaped_only_where_json_demands_it() {
    let all: String = ('\0'..='\u{ff}').chain(['\u{2028}', '😀']).collect();
    let text = written(&Value::string(all.as_str()));
    assert_eq!(serde_json::from_str::<String>(&text).unwrap(), all);
    assert!(text.contains("\u{7f}") && text.contains('\u{2028}') && text.contains("😀"));
    assert!(text.contains(r#"\u0000"#) && text.contains(r#"\n"#) && text.contains(r#"\""#));
    assert!(text.bytes().all(|byte| byte >= 32));
}

#[test]
fn duplicate_names_keep_the_first_place_and_the_last_value() {
    assert_eq!(
        written(&value(
            r#"{"a":1,"b":{"x":1,"x":[2],"y":3,"x":4},"a":{"z":5},"c":6}"#
        )),
        r#"{"a":{"z":5},"b":{"x":4,"y":3},"c":6}"#
    );
    // Also where a dict has so many names that they are searched another way.
    let names: Vec<String> = (0..20).map(|at| format!("\"n{at}\":{at}")).collect();
    let text = format!(
        "{{{},\"n3\":\"last\",\"\\u006e4\":\"escaped\"}}",
        names.join(",")
    );
    let expected = format!("{{{}}}", names.join(","))
        .replace("\"n3\":3", "\"n3\":\"last\"")
        .replace("\"n4\":4", "\"n4\":\"escaped\"");
    assert_eq!(written(&value(&text)), expected);
}

#[test]
fn errors_say_what_was_expected_and_what_was_found() {
    for (text, offset, part) in [
        (
            "",
            0,
            "expected a JSON value, found the end of the JSON text",
        ),
        ("nul", 0, "expected a JSON value, found `nul`"),
        ("[1,]", 3, "expected a JSON value, found `]`"),
        ("[1 2]", 3, "expected `,` or `]`, found `2]`"),
        ("{\"a\" 1}", 5, "expected `:` after a name, found `1}`"),
        (
            "{\"a\":1,}",
            7,
            "expected a name in double quotes, found `}`",
        ),
        ("{a:1}", 1, "expected a name in double quotes, found `a:1}`"),
        ("01", 0, "expected a JSON number, found `01`"),
        ("1.", 0, "expected a JSON number, found `1.`"),
        ("-", 0, "expected a JSON number, found `-`"),
        ("1 1", 2, "expected the end, found `1`"),
        (
            "\"a\nb\"",
            2,
            "expected control characters of a string escaped, found \\u000a",
        ),
        ("\"\\x\"", 1, "expected one of the escapes"),
        ("\"\\u12g4\"", 1, "expected four hex digits after \\u"),
        ("\"\\ud800\"", 1, "found the lone surrogate \\ud800"),
        ("\"\\ud800\\u0041\"", 1, "found the lone surrogate \\ud800"),
        ("\"\\udc00\"", 1, "found the lone surrogate \\udc00"),
        ("\"abc", 4, "expected the closing quote of a string"),
        ("NaN", 0, "expected a JSON value, found `NaN`"),
    ] {
        let error = json::parse_value(text.as_bytes(), Numbers::FLOATS).unwrap_err();
        assert!(error.message.contains(part), "{text}: {error}");
        assert_eq!(error.offset, offset, "{text}: {error}");
    }
    let error = json::parse_value(b"\"a\xff\"", Numbers::FLOATS).unwrap_err();
    assert_eq!(
        (error.offset, error.message.as_str()),
        (2, "expected text in UTF-8, found the byte 0xff")
    );
}

#[test]
fn depth_and_digits_have_limits() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let parse = |text: &str| json::parse_value(text.as_bytes(), Numbers::HTTP_ENDPOINT);
    assert!(parse(&nested(100)).is_ok());
    assert!(
        parse(&nested(101))
            .unwrap_err()
            .message
            .contains("at most 100 deep")
    );
    let limit = json::number::MAX_DIGITS;
    assert!(parse(&"7".repeat(limit)).is_ok());
    assert!(
        parse(&"7".repeat(limit + 1))
            .unwrap_err()
            .message
            .contains("digits")
    );
    assert!(parse("1e100001").unwrap_err().message.contains("exponent"));
    assert!(
        parse("1e99999999999999999999")
            .unwrap_err()
            .message
            .contains("exponent")
    );
}
