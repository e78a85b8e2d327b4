//! Entities that are opened and not read, against the same entities read.

use std::io::{self, Read};

use proptest::prelude::*;
use tahini_entity::json::{
    self, Elements, Fields, Layout, Line, Next, Numbers, Opened, Parser, write_name, write_start,
};
use tahini_entity::{Batch, order};

use crate::{arbitrary, lines};

/// What is written of a line whose values were not read.
fn rewritten(line: &Line<'_>) -> String {
    let mut out = Vec::new();
    let mut first = write_start(line.id(), line.meta(), Fields::RESULT, &mut out);
    for (at, name) in line.shape().names().iter().enumerate() {
        write_name(name, std::mem::take(&mut first), &mut out);
        line.raw(at).write(&mut out);
    }
    out.push(b'}');
    String::from_utf8(out).unwrap()
}

/// Opens an entity; when that succeeds, all that can be seen of it is what the parser sees.
fn check(opened: &mut Opened, text: &str) -> bool {
    // Something else may stand around it.
    let buffer = format!(" \n{text}{{\"next");
    let Some(end) = opened.open(buffer.as_bytes(), 2) else {
        assert!(opened.is_empty(), "{text}");
        return false;
    };
    let mut batch = Batch::new();
    let element = &buffer.as_bytes()[2..end];
    let parsed = Parser::new(Numbers::FLOATS).push_json(&mut batch, element);
    parsed.unwrap_or_else(|error| panic!("{error}: {text}"));
    let record = batch.get(0);
    let line = opened.lines(buffer.as_bytes()).next().unwrap();
    assert_eq!(line.id(), record.id, "{text}");
    assert_eq!(line.shape().names(), record.shape.names(), "{text}");
    assert_eq!(line.hash(), record.hash(), "{text}");
    let (meta, expected) = (line.meta(), record.meta);
    assert_eq!(meta.deleted, expected.deleted, "{text}");
    assert_eq!(meta.filtered, expected.filtered, "{text}");
    assert_eq!(meta.updated, expected.updated, "{text}");
    assert_eq!(meta.previous, expected.previous, "{text}");
    assert_eq!(meta.ts, expected.ts, "{text}");
    assert_eq!(rewritten(&line), lines(&batch, Fields::RESULT)[0], "{text}");
    for (at, name) in line.shape().names().iter().enumerate() {
        let expected = record.value(name).unwrap();
        assert!(
            order::same(&line.raw(at).value(), &expected),
            "{name}: {text}"
        );
        assert_eq!(line.raw(at).is_null(), expected.is_null(), "{name}: {text}");
    }
    check_runs(&line, &batch);
    opened.clear();
    true
}

/// Properties side by side, as their text stands, are what one would write for them.
fn check_runs(line: &Line<'_>, batch: &Batch) {
    let record = batch.get(0);
    let names = line.shape().names();
    for first in 0..names.len() {
        for last in first..names.len() {
            if !line.is_run(first, last) {
                continue;
            }
            if let Some(run) = line.run(first, last) {
                let mut expected = Vec::new();
                for name in &names[first..=last] {
                    write_name(name, expected.is_empty(), &mut expected);
                    json::write_value(&record.value(name).unwrap(), &mut expected);
                }
                assert_eq!(run, expected);
            }
        }
    }
}

#[test]
fn what_is_seen_of_an_entity_is_what_the_parser_reads() {
    let mut opened = Opened::new();
    for text in [
        "{}",
        "{ }",
        r#"{"_id":"a"}"#,
        r#"{"a":1,"_id":"a","b":[1,2.5,null],"c":{"d":{"e":"f"}}}"#,
        r#"{"_id":"a","_deleted":true,"_updated":7,"_previous":3,"_ts":12,"_hash":"x","_filtered":true,"a":1}"#,
        r#"{"_id":"a","_deleted":false,"_updated":"2024","_previous":null,"a":1}"#,
        r#"{"_id":"a","_deleted":null,"_updated":null,"_other":1,"$ids":["~:a:b"]}"#,
        "{ \"_id\" : \"a\" ,\t\"a\" : 1 ,\r\n\"b\" : [ 1, 2 ] , \"c\" : {\"d\": 1} }",
        r#"{"a":-0,"b":1.50,"c":1e2,"d":1E400,"e":-0.0,"f":123456789012345678901234567890,"g":0.0000001}"#,
        r#"{"a":1.0,"b":0.1,"c":100.0,"d":123456789012.25,"e":0.00001,"f":9007199254740993.0}"#,
        r#"{"a":"~:x:y","b":"~rhttp://x","c":"~t2024-01-01","d":"~t2024-01-01T00:00:00.100Z","e":"~f1.50"}"#,
        r#"{"a":"~","b":"~x","c":"~:","d":"~t","e":"~bYQ","f":"~u531a379e-31bb-4ce1-8690-158dceb64be6"}"#,
        r#"{"a":"\u0041","b":"\/","c":"\n\t\"\\","d":"\u007etx","e":"\ud83d\ude00","f":"é😀"}"#,
        r#"{"a":{"x":1,"x":2},"b":{"x":{"y":1,"y":2},"z":3}}"#,
        r#"{"a":{"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1,"8":1,"9":1,"10":1,"11":1,"12":1,"13":1,"14":1,"15":1,"16":1,"17":1}}"#,
        r#"{"a":[],"b":{},"c":[[]],"d":[{}],"e":[ ],"f":{ }}"#,
        "{\"a\":\"\u{7f}\"}",
    ] {
        assert!(check(&mut opened, text), "{text}");
        // Again, now that its names are known.
        assert!(check(&mut opened, text), "{text}");
    }
}

#[test]
fn what_is_unusual_or_wrong_is_for_the_parser() {
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(101), "]".repeat(101));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    let mut opened = Opened::new();
    for text in [
        "",
        "[]",
        "{",
        r#"{"a"#,
        r#"{"a":"#,
        r#"{"a":1"#,
        r#"{"a":1,"#,
        r#"{"a":1,}"#,
        r#"{,}"#,
        r#"{"a" 1}"#,
        r#"{a:1}"#,
        r#"{"a":1 "b":2}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"\u0061":1}"#,
        r#"{"_id":1}"#,
        r#"{"_id":"\n"}"#,
        r#"{"_updated":1.5}"#,
        r#"{"_id":"a","_id":"b"}"#,
        r#"{"a":01}"#,
        r#"{"a":1.}"#,
        r#"{"a":nul}"#,
        r#"{"a":truex}"#,
        r#"{"a":[1,]}"#,
        r#"{"a":[1}"#,
        r#"{"a":{"b"}}"#,
        r#"{"a":"\x"}"#,
        r#"{"a":"\ud800"}"#,
        "{\"a\":\"\t\"}",
        "{\"a\":\"\n",
        r#"{"a":]}"#,
        r#"{"a":1]"#,
        r#"{"_ts":}"#,
        r#"{"_deleted":[}"#,
        &deep,
        &large,
    ] {
        assert!(!check(&mut opened, text), "{text:.80}");
    }
    for bytes in [
        &b"{\"a\":\"\xff\"}"[..],
        b"{\"a\":\"~t\\",
        b"{\"\xff\":1}",
        b"{\"a\":[\"\xc3\"]}",
    ] {
        assert_eq!(opened.open(bytes, 0), None);
    }
}

/// JSON text with everything that makes text differ from what we would write.
fn text() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        3 => r#""([a-z ]|\\n|\\"|\\u00e9|\\/|~|é){0,12}""#,
        1 => r#""~[trfbu:x][a-z0-9:.-]{0,6}""#,
        2 => "-?(0|[1-9][0-9]{0,19})(\\.[0-9]{1,8})?([eE][+-]?[0-9]{1,2})?",
        1 => Just("null".to_owned()),
        1 => Just("true".to_owned()),
    ];
    let name = r#""([a-d]|\\n|é){1,2}""#;
    let space = prop_oneof![6 => Just(""), 1 => Just(" ")];
    let value = scalar.prop_recursive(3, 12, 4, move |inner| {
        let pair = (name, space.clone(), inner.clone());
        let pair = pair.prop_map(|(name, space, value)| format!("{name}:{space}{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(pair, 0..4).prop_map(|pairs| format!("{{{}}}", pairs.join(","))),
        ]
    });
    let name = prop_oneof![6 => r#""[a-f]{1,2}""#, 1 => r#""_(id|deleted|updated|ts|x)""#];
    let pair = (name, value).prop_map(|(name, value)| format!("{name}:{value}"));
    let id = prop_oneof![Just(String::new()), Just(r#""_id":"x","#.to_owned())];
    (id, prop::collection::vec(pair, 1..6))
        .prop_map(|(id, pairs)| format!("{{{id}{}}}", pairs.join(",")))
}

proptest! {
    #[test]
    fn any_text_is_seen_as_the_parser_reads_it(texts in prop::collection::vec(text(), 1..6)) {
        // One after another, so that known names and others follow each other.
        let mut opened = Opened::new();
        for text in &texts {
            check(&mut opened, text);
        }
    }

    #[test]
    fn broken_text_is_never_opened(text in text(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let end = Opened::new().open(&bytes, 0);
        if let Some(end) = end {
            let mut batch = Batch::new();
            prop_assert!(Parser::new(Numbers::FLOATS).push_json(&mut batch, &bytes[..end]).is_ok());
        }
    }

    #[test]
    fn entities_that_we_write_are_opened(entity in arbitrary::entity()) {
        let mut text = Vec::new();
        json::write_entity(&entity, Fields::ALL, &mut text);
        let text = String::from_utf8(text).unwrap();
        let escaped = |name: &str| name.chars().any(|c| c == '"' || c == '\\' || c < ' ');
        let odd = entity.properties.iter().any(|(name, _)| escaped(name))
            || entity.id.as_deref().is_some_and(escaped);
        prop_assert!(check(&mut Opened::new(), &text) || odd || text.contains('\\'), "{}", text);
    }

    /// However a stream arrives, opened or not, its entities are those of the splitter.
    #[test]
    fn a_stream_gives_the_same_entities(
        texts in prop::collection::vec(text(), 0..8), size in 1usize..40, array in any::<bool>(),
    ) {
        let stream = if array { format!("[{}]", texts.join(" ,\n")) } else { texts.join("\n") };
        let mut elements = Elements::new(Slow(stream.as_bytes(), size), Layout::ArrayOrLines);
        let mut opened = Opened::new();
        let mut found = Vec::new();
        loop {
            match elements.next_opened(&mut opened).unwrap() {
                Next::Opened => {}
                Next::Element(text) => {
                    found.push(parsed(text));
                    continue;
                }
                Next::End => break,
            }
            found.extend(opened.lines(elements.buffer()).map(|line| Some(rewritten(&line))));
            opened.clear();
        }
        let expected: Vec<_> = texts.iter().map(|text| parsed(text.as_bytes())).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(elements.complete(), texts.len() as u64);
    }
}

/// An entity as the parser reads it, written; `None` when it is wrong.
fn parsed(text: &[u8]) -> Option<String> {
    let mut batch = Batch::new();
    Parser::new(Numbers::FLOATS)
        .push_json(&mut batch, text)
        .ok()?;
    Some(lines(&batch, Fields::RESULT).remove(0))
}

/// A reader that gives a few bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.1.min(into.len());
        self.0.read(&mut into[..len])
    }
}
