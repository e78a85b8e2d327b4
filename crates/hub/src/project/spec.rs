//! A test of a project: what a pipe should give.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};
use tahini_dtl::JsonPath;

use super::stem;
use crate::config::{Kind, Problem, Property, by_rows};

/// The properties of a test file.
pub const TEST: &[Property] = &[
    Property::new("type", Kind::Enum(&["test"]), "`test`.").noted(),
    Property::new("name", Kind::String, "A name for people.").noted(),
    Property::new(
        "pipe",
        Kind::String,
        "The pipe; by default that of the file's name without `.test.json`.",
    ),
    Property::new(
        "file",
        Kind::String,
        "The file of what is expected; by default that of the test's name with `.json`.",
    ),
    Property::new("endpoint", Kind::String, "How the pipe is read.").or("\"json\""),
    Property::new(
        "stage",
        Kind::Enum(&[
            "source",
            "before-transforms",
            "before-transform",
            "after-transforms",
            "after-transform",
            "sink",
        ]),
        "Where in the pipe.",
    )
    .or("\"sink\""),
    Property::new("ignore", Kind::Boolean, "The test is left out.").or("false"),
    Property::new(
        "ignore_deletes",
        Kind::Boolean,
        "Deleted entities count only where they are expected.",
    )
    .or("true"),
    Property::new(
        "blacklist",
        Kind::Strings,
        "Properties that do not count, dots for nested ones.",
    ),
    Property::new(
        "parameters",
        Kind::Object,
        "Parameters of the request to a published endpoint.",
    ),
    Property::new(
        "fields_to_sort_by",
        Kind::Strings,
        "The properties that entities are sorted by.",
    )
    .or("[\"_id\"]"),
];

/// One test of a project: what a pipe should give.
#[derive(Clone, Debug, PartialEq)]
pub struct TestSpec {
    /// The file of the test.
    pub spec: PathBuf,
    /// The test's name: the file's, without `.test.json`.
    pub name: String,
    /// The pipe; the test's name by default.
    pub pipe: String,
    /// The file of what is expected; `<name>.json` beside the test by default.
    pub file: PathBuf,
    /// How the pipe is read: `json` by default, or `xml`, `csv`, …
    pub endpoint: String,
    /// Where in the pipe; its end by default.
    pub stage: Option<String>,
    /// Whether the test is left out.
    pub ignore: bool,
    /// Whether deleted entities count only where they are expected; true by default.
    pub ignore_deletes: bool,
    /// Properties that do not count, dots for nested ones.
    pub blacklist: Vec<String>,
    /// Parameters of the request to a published endpoint.
    pub parameters: Map<String, Json>,
    /// The properties that entities are sorted by; `_id` by default.
    pub fields_to_sort_by: Vec<String>,
}

impl TestSpec {
    /// The test in a file, unless it has errors, and what is wrong with it.
    pub(super) fn of(file: &Path, json: &Json) -> (Option<TestSpec>, Vec<Problem>) {
        let Json::Object(map) = json else {
            let problem = Problem::error(JsonPath::default(), "expected a test (an object)");
            return (None, vec![problem]);
        };
        let problems = by_rows(map, TEST);
        if problems.iter().any(Problem::is_error) {
            return (None, problems);
        }
        let text = |name: &str| Some(map.get(name)?.as_str()?.to_owned());
        let flag = |name: &str, default: bool| {
            let value = map.get(name).and_then(Json::as_bool);
            value.unwrap_or(default)
        };
        let texts = |name: &str| {
            let list = map.get(name).and_then(Json::as_array).into_iter().flatten();
            let texts = list.filter_map(|item| item.as_str().map(str::to_owned));
            texts.collect::<Vec<String>>()
        };
        let parameters = map.get("parameters").and_then(Json::as_object);
        let name = stem(file, ".test.json");
        let mut fields_to_sort_by = texts("fields_to_sort_by");
        if fields_to_sort_by.is_empty() {
            fields_to_sort_by.push("_id".to_owned());
        }
        let test = TestSpec {
            spec: file.to_owned(),
            pipe: text("pipe").unwrap_or_else(|| name.clone()),
            file: file.with_file_name(text("file").unwrap_or_else(|| format!("{name}.json"))),
            name,
            endpoint: text("endpoint").unwrap_or_else(|| "json".to_owned()),
            stage: text("stage"),
            ignore: flag("ignore", false),
            ignore_deletes: flag("ignore_deletes", true),
            blacklist: texts("blacklist"),
            parameters: parameters.cloned().unwrap_or_default(),
            fields_to_sort_by,
        };
        (Some(test), problems)
    }
}
