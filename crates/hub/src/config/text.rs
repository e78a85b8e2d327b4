//! Configuration text: JSON, or JSON with comments, read losslessly and with positions.

use std::path::Path;
use std::sync::Arc;

use jsonc_parser::ast::{Object, Value as Ast};
use jsonc_parser::common::Range;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use serde_json::{Map, Number, Value as Json};
use tahini_dtl::{JsonPath, Segment};

use super::problem::{Problem, Spot};

/// Configuration text that was read.
#[derive(Debug)]
pub struct Text {
    /// What it says; `None` when it is no JSON.
    pub json: Option<Json>,
    /// Where it says it.
    pub spans: Arc<Spans>,
    /// Syntax errors and duplicate names, with their places.
    pub problems: Vec<Problem>,
}

impl Text {
    /// Reads bytes as [`parse`](Text::parse) reads text. Bytes that are not UTF-8 are a problem
    /// with its place.
    pub fn of_bytes(bytes: &[u8], file: Option<&Path>) -> Text {
        let error = match std::str::from_utf8(bytes) {
            Ok(text) => return Text::parse(text, file),
            Err(error) => error,
        };
        let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        let wrong = bytes[error.valid_up_to()];
        let message = format!("expected UTF-8, found the byte 0x{wrong:02x}");
        let mut problem = Problem::error(JsonPath::default(), message);
        (problem.line, problem.column) = (Some(line as u32), Some(column as u32));
        if let Some(file) = file {
            problem = problem.in_file(file);
        }
        Text {
            json: None,
            spans: Arc::new(Spans::new(&before, Node::default())),
            problems: vec![problem],
        }
    }

    /// Reads JSON with comments and trailing commas. A byte order mark is skipped. The last of
    /// several properties of the same name wins, with a warning.
    pub fn parse(text: &str, file: Option<&Path>) -> Text {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut reader = Reader {
            problems: Vec::new(),
            path: Vec::new(),
            shallow: false,
        };
        let mut read = Text {
            json: None,
            spans: Arc::new(Spans::new(text, Node::default())),
            problems: Vec::new(),
        };
        match parse_to_ast(text, &CollectOptions::default(), &STRICT_BUT_COMMENTS) {
            Ok(parsed) => match parsed.value {
                Some(ast) => {
                    let (json, root) = reader.value(&ast);
                    read.spans = Arc::new(Spans::new(text, root));
                    read.json = Some(json);
                }
                None => reader.problem(0, "expected a JSON value, found nothing".to_owned()),
            },
            Err(error) => {
                let (offset, message) = super::syntax::explain(text, &error, &read.spans);
                reader.problem(offset, message);
            }
        }
        if reader
            .problems
            .iter()
            .any(|(_, problem)| problem.is_error())
        {
            read.json = None;
        }
        for (offset, mut problem) in reader.problems {
            let place = read.spans.place(offset);
            problem.line = Some(place.line);
            problem.column = Some(place.column);
            problem.file = file.map(Path::to_owned);
            read.problems.push(problem);
        }
        read
    }
}

const STRICT_BUT_COMMENTS: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_trailing_commas: true,
    allow_loose_object_property_names: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// A place in a text, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// Where everything stands in a text.
#[derive(Debug)]
pub struct Spans {
    text: Box<str>,
    line_starts: Vec<usize>,
    root: Node,
}

/// Byte offsets of one JSON value, and of what it holds.
#[derive(Debug, Default)]
struct Node {
    name: usize,
    value: usize,
    children: Children,
}

#[derive(Debug, Default)]
enum Children {
    #[default]
    None,
    Names(Vec<(Box<str>, Node)>),
    Positions(Vec<Node>),
}

impl Spans {
    fn new(text: &str, root: Node) -> Spans {
        let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0)
            .chain(after_breaks.map(|(at, _)| at + 1))
            .collect();
        Spans {
            text: text.into(),
            line_starts,
            root,
        }
    }

    /// Where the value at `path` stands, or its name; for a path that leads nowhere, the nearest
    /// place above it.
    pub fn locate(&self, path: &JsonPath, spot: Spot) -> Place {
        let mut node = &self.root;
        let mut found = true;
        for segment in &path.0 {
            let next = match (segment, &node.children) {
                (Segment::Name(name), Children::Names(nodes)) => {
                    // The last of a name counts.
                    let named = nodes.iter().rev().find(|(own, _)| **own == **name);
                    named.map(|(_, node)| node)
                }
                (Segment::Position(at), Children::Positions(nodes)) => nodes.get(*at),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => {
                    found = false;
                    break;
                }
            }
        }
        self.place(if found && spot == Spot::Name {
            node.name
        } else {
            node.value
        })
    }

    /// The place of a byte of the text.
    pub(super) fn place(&self, offset: usize) -> Place {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        let column = self
            .text
            .get(start..offset)
            .map_or(0, |text| text.chars().count());
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place {
            line: count(line),
            column: count(column + 1),
        }
    }
}

struct Reader {
    problems: Vec<(usize, Problem)>,
    path: Vec<Segment>,
    /// Inside embedded entities: there may be very many, and nobody points into them.
    shallow: bool,
}

impl Reader {
    fn value(&mut self, ast: &Ast<'_>) -> (Json, Node) {
        let node = |range: Range| Node {
            name: range.start,
            value: range.start,
            ..Node::default()
        };
        match ast {
            Ast::StringLit(lit) => (Json::String(lit.value.to_string()), node(lit.range)),
            Ast::BooleanLit(lit) => (Json::Bool(lit.value), node(lit.range)),
            Ast::NullKeyword(lit) => (Json::Null, node(lit.range)),
            Ast::NumberLit(lit) => match lit.value.parse::<Number>() {
                Ok(number) => (Json::Number(number), node(lit.range)),
                Err(_) => {
                    self.problem(
                        lit.range.start,
                        format!("{:?} is no JSON number", lit.value),
                    );
                    (Json::Null, node(lit.range))
                }
            },
            Ast::Array(array) => {
                let mut items = Vec::with_capacity(array.elements.len());
                let mut nodes = Vec::new();
                for (at, element) in array.elements.iter().enumerate() {
                    self.path.push(Segment::Position(at));
                    let (item, child) = self.value(element);
                    self.path.pop();
                    items.push(item);
                    if !self.shallow {
                        nodes.push(child);
                    }
                }
                let children = Children::Positions(nodes);
                (
                    Json::Array(items),
                    Node {
                        children,
                        ..node(array.range)
                    },
                )
            }
            Ast::Object(object) => self.object(object),
        }
    }

    fn object(&mut self, object: &Object<'_>) -> (Json, Node) {
        let mut map = Map::new();
        let mut nodes = Vec::new();
        for property in &object.properties {
            let name = property.name.as_str();
            self.path.push(Segment::Name(name.to_owned()));
            if map.contains_key(name) {
                self.duplicate(property.range.start, name);
            }
            let shallow = self.shallow;
            self.shallow = shallow || name == "entities";
            let (value, mut child) = self.value(&property.value);
            self.shallow = shallow;
            self.path.pop();
            child.name = property.range.start;
            map.insert(name.to_owned(), value);
            if !shallow {
                nodes.push((name.into(), child));
            }
        }
        let start = object.range.start;
        let children = Children::Names(nodes);
        (
            Json::Object(map),
            Node {
                name: start,
                value: start,
                children,
            },
        )
    }

    fn problem(&mut self, offset: usize, message: String) {
        let path = JsonPath(self.path.clone());
        self.problems.push((offset, Problem::error(path, message)));
    }

    fn duplicate(&mut self, offset: usize, name: &str) {
        let message = format!("{name:?} stands here more than once; the last one counts");
        let path = JsonPath(self.path.clone());
        self.problems
            .push((offset, Problem::warning(path, message).at_name()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &Text, path: JsonPath, spot: Spot) -> (u32, u32) {
        let place = text.spans.locate(&path, spot);
        (place.line, place.column)
    }

    #[test]
    fn places_of_names_and_values() {
        let text = Text::parse(
            "\u{feff}// a pipe\n{\n  \"_id\": \"ø\", \"source\": {\n    \"list\": [1, {\"x\": 2,},]\n  }\n}\n",
            None,
        );
        assert_eq!(text.problems, []);
        let source = JsonPath::default().name("source");
        assert_eq!(at(&text, JsonPath::default(), Spot::Value), (2, 1));
        assert_eq!(at(&text, source.clone(), Spot::Name), (3, 15));
        assert_eq!(at(&text, source.clone(), Spot::Value), (3, 25));
        let x = source.name("list").at(1).name("x");
        assert_eq!(at(&text, x.clone(), Spot::Name), (4, 18));
        assert_eq!(at(&text, x.clone(), Spot::Value), (4, 23));
        // What is not there is sought in what should hold it.
        assert_eq!(at(&text, source.name("missing"), Spot::Name), (3, 25));
    }

    #[test]
    fn embedded_entities_are_one_place() {
        let text = Text::parse("{\"entities\":\n [{\"a\": 1}],\n \"b\": [2]}", None);
        let entities = JsonPath::default().name("entities");
        assert_eq!(at(&text, entities.at(0).name("a"), Spot::Name), (2, 2));
        assert_eq!(at(&text, entities, Spot::Name), (1, 2));
        assert_eq!(
            at(&text, JsonPath::default().name("b").at(0), Spot::Value),
            (3, 8)
        );
    }

    #[test]
    fn numbers_and_order_are_kept_as_written() {
        let written = r#"{"z":1.0,"a":12345678901234567890.1230,"m":1e+400,"list":[-0.0,0]}"#;
        let text = Text::parse(written, None);
        assert_eq!(text.json.unwrap().to_string(), written);
    }

    #[test]
    fn syntax_errors_have_places() {
        for (written, place, message) in [
            (
                "{\n  \"a\": 1\n  \"b\": 2\n}",
                (2, 9),
                "expected a comma before the next value, found \"b\"",
            ),
            (
                "{\"a\": 01}",
                (1, 8),
                "expected a comma before the next value, found 1",
            ),
            (
                "{'a': 1}",
                (1, 2),
                "expected text in double quotes, found 'a'",
            ),
            ("", (1, 1), "expected a JSON value, found nothing"),
            (
                "{\"a\": [1, 2}",
                (1, 12),
                "expected \"]\" to close the list that starts in line 1, column 7, found }",
            ),
            (
                "{} {}",
                (1, 4),
                "expected the end of the text behind its one value, found {",
            ),
            (
                "[\n {\"a\": \"}\", // }\n  \"b\": {\"c\": 1}\n\n",
                (2, 2),
                "expected \"}\" to close the object that starts here, found the end of the text \
                 in line 3, column 16",
            ),
            (
                "{\"a\": [1,",
                (1, 7),
                "expected \"]\" to close the list that starts here, found the end of the text in \
                 line 1, column 10",
            ),
            (
                "{\"a\" 1}",
                (1, 6),
                "expected a colon behind the property's name, found 1",
            ),
            (
                "{\"a\": nope}",
                (1, 7),
                "expected a value (text, a number, true, false, null, a list or an object), found nope",
            ),
            (
                "{\"a\": \"x}\n",
                (1, 7),
                "expected text with a closing quote, found \"x}",
            ),
        ] {
            let text = Text::parse(written, Some(Path::new("a.json")));
            assert!(text.json.is_none(), "{written}");
            let problem = &text.problems[0];
            let found = (problem.line.unwrap(), problem.column.unwrap());
            assert_eq!((&*problem.message, found), (message, place), "{written}");
            assert_eq!(problem.file.as_deref(), Some(Path::new("a.json")));
        }
    }

    #[test]
    fn duplicate_names_warn_and_the_last_counts() {
        let text = Text::parse("{\"a\": 1,\n \"b\": {\"c\": 1, \"c\": 2}}", None);
        assert_eq!(text.json.unwrap().to_string(), r#"{"a":1,"b":{"c":2}}"#);
        let problem = &text.problems[0];
        assert!(!problem.is_error());
        assert_eq!(problem.path.to_string(), "$.b.c");
        assert_eq!((problem.line, problem.column), (Some(2), Some(16)));
    }
}
