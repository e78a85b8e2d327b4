//! Streams cut into entities.

use std::io::{self, Read};

use proptest::prelude::*;
use tahini_entity::json::{Elements, Layout, MAX_ENTITY_BYTES, ReadError, SplitError, Splitter};

/// Elements and outcome of a stream that arrives in chunks of these sizes, over and over.
fn split(layout: Layout, input: &[u8], sizes: &[usize]) -> (Vec<String>, Result<u64, SplitError>) {
    let mut splitter = Splitter::new(layout);
    let mut elements = Vec::new();
    let mut rest = input;
    let mut sizes = sizes.iter().cycle();
    loop {
        loop {
            match splitter.next_element() {
                Ok(Some(element)) => elements.push(String::from_utf8_lossy(element).into_owned()),
                Ok(None) => break,
                Err(error) => return (elements, Err(error)),
            }
        }
        if rest.is_empty() {
            return (elements, splitter.finish());
        }
        let (chunk, tail) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
        splitter.feed(chunk);
        rest = tail;
    }
}

fn error(layout: Layout, input: &str) -> String {
    split(layout, input.as_bytes(), &[7])
        .1
        .unwrap_err()
        .to_string()
}

/// An entity's text with everything that could confuse a splitter.
fn element() -> impl Strategy<Value = String> {
    let string = r#"([a-z{}\[\],:é😀]|\\\\|\\"|\\u0041|\\n){0,12}"#;
    (string, string, "[ \n\t]{0,2}").prop_map(|(name, text, space)| {
        format!("{{\"{name}\":{space}[1,{{\"x\":\"{text}\"}},[]],{space}\"{text}\":-1.5e3}}")
    })
}

fn array(elements: &[String], space: &str) -> String {
    format!(
        "{space}[{space}{}{space}]{space}",
        elements.join(&format!("{space},{space}"))
    )
}

proptest! {
    #[test]
    fn chunks_do_not_matter(
        elements in prop::collection::vec(element(), 0..6),
        sizes in prop::collection::vec(1usize..40, 1..5),
        space in "[ \n\r\t]{0,3}",
    ) {
        let count = elements.len() as u64;
        let text = array(&elements, &space);
        for layout in [Layout::Array, Layout::ArrayOrObject, Layout::ArrayOrLines] {
            let (found, end) = split(layout, text.as_bytes(), &sizes);
            prop_assert_eq!(&found, &elements);
            prop_assert_eq!(end, Ok(count));
        }
        let lines = elements.join("\n");
        for layout in [Layout::Lines, Layout::ArrayOrLines] {
            let (found, end) = split(layout, lines.as_bytes(), &sizes);
            prop_assert_eq!(&found, &elements);
            prop_assert_eq!(end, Ok(count));
        }
    }

    /// Whatever comes, the outcome does not depend on how it was cut into chunks.
    #[test]
    fn errors_do_not_depend_on_chunks(
        elements in prop::collection::vec(element(), 0..4),
        sizes in prop::collection::vec(1usize..40, 1..5),
        at in any::<prop::sample::Index>(),
        byte in proptest::sample::select(&b"{}[]\",:x1\\ \n\xff"[..]),
        layout in proptest::sample::select(&[Layout::Array, Layout::ArrayOrObject, Layout::Lines, Layout::ArrayOrLines][..]),
    ) {
        let mut text = array(&elements, "").into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        prop_assert_eq!(split(layout, &text, &sizes), split(layout, &text, &[text.len()]));
    }
}

#[test]
fn truncation_at_every_byte_is_an_error() {
    let text = r#" [ {"a": "}]\""}, {"b": [{}]} ,{} ] "#;
    let whole = text.rfind(']').unwrap() + 1;
    for layout in [Layout::Array, Layout::ArrayOrObject, Layout::ArrayOrLines] {
        for len in 0..text.len() {
            let (elements, end) = split(layout, &text.as_bytes()[..len], &[3]);
            if len >= whole {
                assert_eq!(end, Ok(3));
                continue;
            }
            if layout == Layout::ArrayOrLines && len <= 1 {
                assert_eq!(end, Ok(0), "an empty stream of lines is whole");
                continue;
            }
            match end.unwrap_err() {
                SplitError::Truncated {
                    bytes, complete, ..
                } => {
                    assert_eq!((bytes, complete), (len as u64, elements.len() as u64));
                }
                SplitError::Root { found, .. } => assert!(len <= 1 && found == "nothing"),
                other => panic!("at {len}: {other}"),
            }
        }
    }
}

#[test]
fn truncated_lines_are_an_error() {
    let text = "{\"a\":1}\n{\"b\":2}\n";
    for len in 0..text.len() {
        let (elements, end) = split(Layout::Lines, &text.as_bytes()[..len], &[2]);
        match len {
            0 | 7 | 8 | 15 => assert_eq!(end, Ok(elements.len() as u64)),
            _ => assert!(matches!(end, Err(SplitError::Truncated { .. })), "at {len}"),
        }
    }
}

#[test]
fn truncation_says_how_far_it_came() {
    assert_eq!(
        error(Layout::Array, r#"[{"a":1},{"b":2},{"c"#),
        "expected the rest of an entity, found the end of the input after 20 bytes \
         and 2 complete entities: the answer was cut off"
    );
    assert!(
        error(Layout::Array, r#"[{"a":1}"#)
            .starts_with("expected the closing `]` of the JSON array")
    );
    assert!(error(Layout::Array, r#"[{"a":1},"#).starts_with("expected another entity"));
}

#[test]
fn a_wrong_root_is_shown() {
    for (layout, input, message) in [
        (
            Layout::Array,
            r#"{"error": "no such thing"}"#,
            "expected a JSON array of entities, found a JSON object: `{\"error\": \"no such thing\"}`",
        ),
        (
            Layout::ArrayOrObject,
            "<html>\n<body>",
            "expected a JSON array of entities or a single entity, found markup, perhaps an HTML page: `<html> <body>`",
        ),
        (
            Layout::Lines,
            "[{}]",
            "expected a JSON object on each line, found a JSON array: `[{}]`",
        ),
        (Layout::Array, "\"text\"", "found a JSON string: `\"text\"`"),
        (Layout::Array, "  42", "found a number: `42`"),
        (Layout::Array, "null", "found other text: `null`"),
        (Layout::Array, "", "found nothing"),
        (Layout::Array, " \n", "found nothing"),
        (Layout::ArrayOrObject, "", "found nothing"),
    ] {
        let error = error(layout, input);
        assert!(error.contains(message), "{input}: {error}");
    }
    let long = format!("<{}>", "é".repeat(100));
    let error = error(Layout::Array, &long);
    assert!(
        error.contains(&format!("`<{}` …", "é".repeat(39))),
        "80 bytes, no half character: {error}"
    );
}

#[test]
fn what_is_no_entity_is_shown_with_its_place() {
    for (layout, input, message) in [
        (
            Layout::Array,
            r#"[{"a":1}, 5, {}]"#,
            "expected an entity, which is a JSON object, at byte 10, after 1 complete entities, found `5, {}]`",
        ),
        (
            Layout::Array,
            r#"["a"]"#,
            "expected an entity, which is a JSON object, at byte 1",
        ),
        (Layout::Array, r#"[[]]"#, "found `[]]`"),
        (Layout::Array, r#"[null]"#, "found `null]`"),
        (
            Layout::Array,
            r#"[{},]"#,
            "expected an entity, which is a JSON object, at byte 4",
        ),
        (
            Layout::Array,
            r#"[,{}]"#,
            "expected an entity, which is a JSON object, at byte 1",
        ),
        (Layout::Array, r#"[{} {}]"#, "expected `,` or `]` at byte 4"),
        (
            Layout::Array,
            r#"[{}] x"#,
            "expected the end of the input at byte 5, after 1 complete entities, found `x`",
        ),
        (
            Layout::Array,
            r#"[{}][{}]"#,
            "expected the end of the input at byte 4",
        ),
        (
            Layout::ArrayOrObject,
            r#"{} {}"#,
            "expected the end of the input at byte 3",
        ),
        (
            Layout::Lines,
            "{}\nx\n",
            "expected an entity, which is a JSON object, at byte 3",
        ),
    ] {
        let error = error(layout, input);
        assert!(error.contains(message), "{input}: {error}");
    }
}

#[test]
fn a_single_entity_and_a_byte_order_mark_are_fine() {
    let (elements, end) = split(Layout::ArrayOrObject, b" {\"a\": 1}\n", &[1]);
    assert_eq!((elements, end), (vec!["{\"a\": 1}".to_owned()], Ok(1)));
    for size in 1..6 {
        let (elements, end) = split(Layout::Array, b"\xef\xbb\xbf [{}]", &[size]);
        assert_eq!((elements, end), (vec!["{}".to_owned()], Ok(1)));
    }
    assert!(split(Layout::Array, b"\xef\xbbx[{}]", &[1]).1.is_err());
    assert_eq!(split(Layout::Lines, b" \n", &[1]).1, Ok(0));
}

/// Hands out at most so many bytes at a time, and fails or stops where it is told to.
struct Slow<'a> {
    rest: &'a [u8],
    step: usize,
    fails: bool,
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.step.min(self.rest.len()).min(buffer.len());
        if len == 0 && self.fails {
            return Err(io::Error::other("connection reset"));
        }
        buffer[..len].copy_from_slice(&self.rest[..len]);
        self.rest = &self.rest[len..];
        Ok(len)
    }
}

fn read(input: &str, fails: bool) -> (usize, Result<(), ReadError>) {
    let mut elements = Elements::new(
        Slow {
            rest: input.as_bytes(),
            step: 5,
            fails,
        },
        Layout::Array,
    );
    let mut count = 0;
    loop {
        match elements.next_element() {
            Ok(Some(_)) => count += 1,
            Ok(None) => return (count, Ok(())),
            Err(error) => return (count, Err(error)),
        }
    }
}

#[test]
fn readers_are_read_to_their_end() {
    assert!(matches!(read(r#"[{"a":1},{"b":2}]"#, false), (2, Ok(()))));
    assert!(matches!(
        read(r#"[{"a":1},{"b":2}"#, false),
        (2, Err(ReadError::Split(SplitError::Truncated { .. })))
    ));
    let (count, end) = read(r#"[{"a":1},{"b":2},"#, true);
    assert_eq!(
        (count, end.unwrap_err().to_string().as_str()),
        (2, "connection reset")
    );
    // An error after the closing bracket is an error too: the answer was not known to be whole.
    assert!(matches!(
        read(r#"[{"a":1}]"#, true),
        (1, Err(ReadError::Io(_)))
    ));
}

#[test]
fn an_entity_has_a_largest_size() {
    let mut splitter = Splitter::new(Layout::Array);
    splitter.feed(b"[{},{\"a\":\"");
    assert!(splitter.next_element().unwrap().is_some());
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..MAX_ENTITY_BYTES / chunk.len() {
        assert_eq!(splitter.next_element(), Ok(None));
        splitter.feed(&chunk);
    }
    assert_eq!(
        splitter.next_element(),
        Err(SplitError::TooLarge { at: 4, complete: 1 })
    );
}

#[test]
fn the_text_of_a_large_entity_is_let_go_of_and_the_stream_goes_on() {
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(9 << 20));
    let input = format!("[{{\"b\":1}},{large},{{\"c\":2}}, {large}]");
    let mut elements = Elements::new(input.as_bytes(), Layout::Array);
    let mut found = Vec::new();
    while let Some(element) = elements.next_element().unwrap() {
        found.push(String::from_utf8(element.to_vec()).unwrap());
        elements.let_go();
        if found.len() % 2 == 0 {
            let left = elements.buffer().len();
            assert!(left <= 256 << 10, "{left} bytes are kept");
        }
    }
    assert_eq!(elements.complete(), 4);
    assert!(found == [r#"{"b":1}"#, large.as_str(), r#"{"c":2}"#, large.as_str()]);
    // A stream that is cut off in the next one says where.
    let cut = format!("[{large},{{\"c\"");
    let mut elements = Elements::new(cut.as_bytes(), Layout::Array);
    assert!(elements.next_element().unwrap().is_some());
    elements.let_go();
    let error = elements.next_element().unwrap_err().to_string();
    assert!(
        error.contains(&format!("after {} bytes", cut.len())),
        "{error}"
    );
}
