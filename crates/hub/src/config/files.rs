//! Rules between the properties of sources and sinks that read and publish files.

use serde_json::{Map, Value as Json};
use tahini_dtl::JsonPath;

use super::problem::Problem;

/// Judges the source and the sink of a pipe as it was written.
pub(super) fn check(
    source: &Map<String, Json>,
    sink: Option<&Map<String, Json>>,
    root: &JsonPath,
    problems: &mut Vec<Problem>,
) {
    if is(source, "csv") {
        csv_source(source, &root.name("source"), problems);
    }
    if let Some(sink) = sink.filter(|sink| is(sink, "csv_endpoint")) {
        csv_sink(sink, &root.name("sink"), problems);
    }
}

fn is(part: &Map<String, Json>, kind: &str) -> bool {
    part.get("type").is_some_and(|value| value == kind)
}

fn text<'a>(part: &'a Map<String, Json>, name: &str) -> Option<&'a str> {
    part.get(name).and_then(Json::as_str)
}

fn is_written(part: &Map<String, Json>, name: &str) -> bool {
    part.get(name).is_some_and(|value| !value.is_null())
}

fn csv_source(source: &Map<String, Json>, path: &JsonPath, problems: &mut Vec<Problem>) {
    let has_header = source.get("has_header").and_then(Json::as_bool);
    if has_header == Some(false) && !is_written(source, "field_names") {
        let message = "a file without header needs field_names, which is missing";
        let problem = Problem::error(path.name("has_header"), message).at_name();
        problems.push(problem.with_help("list the names of its columns there, in order"));
    }
    let guesses = source.get("auto_dialect").and_then(Json::as_bool) == Some(true);
    if guesses && is_written(source, "dialect") {
        let message = "auto_dialect means nothing beside dialect, which goes first";
        problems.push(Problem::warning(path.name("auto_dialect"), message).at_name());
    }
    if text(source, "delimiter") == Some("") {
        let message = "expected a character or more, found nothing";
        problems.push(Problem::error(path.name("delimiter"), message));
    }
}

fn csv_sink(sink: &Map<String, Json>, path: &JsonPath, problems: &mut Vec<Problem>) {
    for name in ["delimiter", "quotechar", "escapechar"] {
        let found = text(sink, name).filter(|text| !text.contains('$'));
        if let Some(found) = found.filter(|text| text.chars().count() != 1) {
            let message = format!("expected one character, found {found:?}");
            problems.push(Problem::error(path.name(name), message));
        }
    }
    let columns = sink.get("columns").and_then(Json::as_array);
    if columns.is_some_and(Vec::is_empty) {
        let message = "expected the name of at least one column, found none";
        problems.push(Problem::error(path.name("columns"), message));
    }
    let encoding = text(sink, "encoding").unwrap_or("utf-8");
    let is_utf8 = encoding
        .to_ascii_lowercase()
        .replace(['_', ' ', '-'], "")
        .starts_with("utf8");
    let marks = sink.get("byte_order_mark").and_then(Json::as_bool) == Some(true);
    if marks && !is_utf8 && !encoding.contains('$') {
        let message = format!("only UTF-8 has this mark, and the encoding is {encoding:?}");
        let problem = Problem::error(path.name("byte_order_mark"), message).at_name();
        problems.push(problem.with_help("leave it out; utf-16 has a mark anyway"));
    }
    if text(sink, "quoting") != Some("none") {
        return;
    }
    if !is_written(sink, "escapechar") && sink.get("doublequote") != Some(&Json::Bool(false)) {
        let message = "without quotes, a value that holds the delimiter breaks its row";
        let problem = Problem::warning(path.name("quoting"), message);
        problems.push(problem.with_help("set escapechar, which is then put before it"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(pipe: Json) -> Vec<String> {
        let mut problems = Vec::new();
        let source = pipe["source"].as_object().cloned().unwrap_or_default();
        let sink = pipe["sink"].as_object();
        check(&source, sink, &JsonPath::default(), &mut problems);
        problems
            .iter()
            .map(|problem| format!("{} {}", problem.path, problem.is_error()))
            .collect()
    }

    #[test]
    fn properties_that_do_not_go_together_are_told() {
        let source = |more: Json| json!({"source": more});
        let csv = json!({"type": "csv", "has_header": false});
        assert_eq!(found(source(csv)), ["$.source.has_header true"]);
        let csv = json!({"type": "csv", "has_header": false, "field_names": ["a"], "auto_dialect": true, "dialect": "excel"});
        assert_eq!(found(source(csv)), ["$.source.auto_dialect false"]);
        let sink = |more: Json| {
            let mut sink = json!({"type": "csv_endpoint", "columns": ["a"]});
            for (name, value) in more.as_object().unwrap() {
                sink[name] = value.clone();
            }
            found(json!({"sink": sink}))
        };
        assert_eq!(sink(json!({})), [] as [&str; 0]);
        assert_eq!(sink(json!({"delimiter": "||"})), ["$.sink.delimiter true"]);
        assert_eq!(sink(json!({"columns": []})), ["$.sink.columns true"]);
        let mark = json!({"byte_order_mark": true, "encoding": "latin-1"});
        assert_eq!(sink(mark), ["$.sink.byte_order_mark true"]);
        let mark = json!({"byte_order_mark": true, "encoding": "UTF_8"});
        assert_eq!(sink(mark), [] as [&str; 0]);
        assert_eq!(sink(json!({"quoting": "none"})), ["$.sink.quoting false"]);
    }
}
