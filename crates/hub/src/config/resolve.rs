//! From what was written to what holds here: variables inserted, alternatives chosen.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};
use tahini_dtl::{JsonPath, Segment};

use super::problem::Problem;

/// A component with its variables inserted and its alternatives chosen.
#[derive(Debug)]
pub struct Resolved {
    /// The component.
    pub json: Json,
    /// What was wrong on the way, with paths of the resolved component, and the path at which it
    /// was written.
    pub problems: Vec<(Problem, JsonPath)>,
    /// Where parts stand that are not where they were written.
    pub moves: Moves,
}

/// Parts of a configuration that stand elsewhere than where they were written, since they are the
/// alternatives that were chosen: (path here, path there).
#[derive(Clone, Debug, Default)]
pub struct Moves(Vec<(JsonPath, JsonPath)>);

impl Moves {
    /// Notes that what stands at `here` was written as `step` of what stands at `of`.
    pub(super) fn note(&mut self, here: JsonPath, of: &JsonPath, step: &str) {
        let there = self.written(of).name(step);
        self.0.push((here, there));
    }

    /// The path at which the part at `path` was written.
    pub fn written(&self, path: &JsonPath) -> JsonPath {
        let mut best: Option<&(JsonPath, JsonPath)> = None;
        for entry in &self.0 {
            let longer = best.is_none_or(|(here, _)| entry.0.0.len() >= here.0.len());
            if longer && path.0.starts_with(&entry.0.0) {
                best = Some(entry);
            }
        }
        match best {
            None => path.clone(),
            Some((here, there)) => {
                let mut segments = there.0.clone();
                segments.extend_from_slice(&path.0[here.0.len()..]);
                JsonPath(segments)
            }
        }
    }
}

/// Inserts the variables of `env` into a component and chooses its alternatives. A variable that
/// is missing is a problem where it is used and stays as it was written; what stands in an
/// alternative that is not chosen is never looked at.
pub fn resolve(original: &Json, env: &Map<String, Json>) -> Resolved {
    let mut resolver = Resolver {
        env,
        here: Vec::new(),
        there: Vec::new(),
        problems: Vec::new(),
        moves: Vec::new(),
        missed: BTreeSet::new(),
        unresolved: 0,
    };
    let json = resolver.value(original, Reach::All);
    Resolved {
        json,
        problems: resolver.problems,
        moves: Moves(resolver.moves),
    }
}

/// What is looked at in a part of the configuration.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Variables, conditional components and conditional properties.
    All,
    /// Everything but conditional properties: transforms do not have them.
    Transform,
    /// Variables only: rules and embedded entities are data.
    Data,
}

struct Resolver<'a> {
    env: &'a Map<String, Json>,
    here: Vec<Segment>,
    there: Vec<Segment>,
    problems: Vec<(Problem, JsonPath)>,
    moves: Vec<(JsonPath, JsonPath)>,
    /// The names of variables that were listed as missing.
    missed: BTreeSet<String>,
    /// How many texts held a variable that is missing.
    unresolved: usize,
}

impl Resolver<'_> {
    fn value(&mut self, json: &Json, reach: Reach) -> Json {
        match json {
            Json::String(text) => self.text(text),
            Json::Array(items) => self.list(items, reach),
            Json::Object(map) => self.object(map, reach),
            other => other.clone(),
        }
    }

    fn list(&mut self, items: &[Json], reach: Reach) -> Json {
        // In rules, `comment` takes statements out of use, whatever they hold.
        if reach == Reach::Data && items.first().and_then(Json::as_str) == Some("comment") {
            return self.unheeded(|resolver| resolver.items(items, reach));
        }
        self.items(items, reach)
    }

    fn items(&mut self, items: &[Json], reach: Reach) -> Json {
        let mut list = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            self.here.push(Segment::Position(at));
            self.there.push(Segment::Position(at));
            list.push(self.value(item, reach));
            self.there.pop();
            self.here.pop();
        }
        Json::Array(list)
    }

    fn object(&mut self, map: &Map<String, Json>, reach: Reach) -> Json {
        if reach != Reach::Data
            && map.get("type").and_then(Json::as_str) == Some("conditional")
            && map.contains_key("alternatives")
        {
            return self.conditional(map, reach);
        }
        let mut object = Map::new();
        for (name, value) in map {
            if name == CONDITIONAL_PROPERTIES && reach == Reach::All {
                continue;
            }
            self.here.push(Segment::Name(name.clone()));
            self.there.push(Segment::Name(name.clone()));
            object.insert(name.clone(), self.property(name, value, reach));
            self.there.pop();
            self.here.pop();
        }
        if reach == Reach::All
            && let Some(block) = map.get(CONDITIONAL_PROPERTIES)
        {
            self.there
                .push(Segment::Name(CONDITIONAL_PROPERTIES.to_owned()));
            self.conditional_properties(block, &mut object);
            self.there.pop();
        }
        Json::Object(object)
    }

    /// Does something whose problems do no harm.
    fn unheeded(&mut self, work: impl FnOnce(&mut Self) -> Json) -> Json {
        let before = (self.problems.len(), self.missed.clone());
        let resolved = work(self);
        self.problems.truncate(before.0);
        self.missed = before.1;
        resolved
    }

    fn property(&mut self, name: &str, value: &Json, reach: Reach) -> Json {
        match name {
            // Words for people: a variable that is not there does no harm.
            "comment" | "description" => {
                self.unheeded(|resolver| resolver.value(value, Reach::Data))
            }
            "rules" | "entities" => self.value(value, Reach::Data),
            "transform" if reach == Reach::All => self.value(value, Reach::Transform),
            _ => self.value(value, reach),
        }
    }

    /// A conditional source, sink or transform becomes the alternative that is chosen.
    fn conditional(&mut self, map: &Map<String, Json>, reach: Reach) -> Json {
        let Some((name, alternative)) = self.choose(map) else {
            return Json::Object(map.clone());
        };
        let Some(alternative) = alternative else {
            self.no_alternative(map, &name, true);
            return Json::Object(map.clone());
        };
        self.there.push(Segment::Name("alternatives".to_owned()));
        self.there.push(Segment::Name(name));
        self.moved();
        let chosen = self.value(alternative, reach);
        self.there.pop();
        self.there.pop();
        chosen
    }

    /// The properties of the alternative that is chosen replace those at the same level.
    fn conditional_properties(&mut self, block: &Json, object: &mut Map<String, Json>) {
        let Json::Object(block) = block else {
            self.problem("expected an object with \"condition\" and \"alternatives\"".to_owned());
            return;
        };
        let Some((name, alternative)) = self.choose(block) else {
            return;
        };
        let Some(alternative) = alternative else {
            self.no_alternative(block, &name, false);
            return;
        };
        self.there.push(Segment::Name("alternatives".to_owned()));
        self.there.push(Segment::Name(name));
        match self.nested_alternative(alternative) {
            Json::Object(properties) => {
                for (name, value) in properties {
                    if self.here.is_empty() && (name == "_id" || name == "type") {
                        self.there.push(Segment::Name(name.clone()));
                        self.problem(format!("{name:?} cannot depend on a condition"));
                        self.there.pop();
                        continue;
                    }
                    object.insert(name, value);
                }
            }
            _ => self.problem("expected an object of properties".to_owned()),
        }
        self.there.pop();
        self.there.pop();
    }

    /// Resolves the properties of an alternative one by one, noting where each was written.
    fn nested_alternative(&mut self, alternative: &Json) -> Json {
        let Json::Object(map) = alternative else {
            return Json::Null;
        };
        let mut object = Map::new();
        for (name, value) in map {
            if name == CONDITIONAL_PROPERTIES {
                continue;
            }
            self.here.push(Segment::Name(name.clone()));
            self.there.push(Segment::Name(name.clone()));
            self.moved();
            object.insert(name.clone(), self.property(name, value, Reach::All));
            self.there.pop();
            self.here.pop();
        }
        if let Some(block) = map.get(CONDITIONAL_PROPERTIES) {
            self.there
                .push(Segment::Name(CONDITIONAL_PROPERTIES.to_owned()));
            self.conditional_properties(block, &mut object);
            self.there.pop();
        }
        Json::Object(object)
    }

    /// The name that the condition gives, and its alternative if there is one. `None` when the
    /// condition says nothing; then the problem is listed.
    fn choose<'j>(&mut self, map: &'j Map<String, Json>) -> Option<(String, Option<&'j Json>)> {
        let (Some(condition), Some(Json::Object(alternatives))) =
            (map.get("condition"), map.get("alternatives"))
        else {
            self.problem("expected \"condition\" and an object \"alternatives\"".to_owned());
            return None;
        };
        let before = self.unresolved;
        self.there.push(Segment::Name("condition".to_owned()));
        let condition = self.value(condition, Reach::Data);
        self.there.pop();
        if self.unresolved > before {
            return None;
        }
        let name = as_text(&condition);
        let alternative = alternatives.get(&name);
        Some((name, alternative))
    }

    fn no_alternative(&mut self, map: &Map<String, Json>, name: &str, required: bool) {
        let names: Vec<&str> = match map.get("alternatives") {
            Some(Json::Object(alternatives)) => alternatives.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        let message = format!("the condition is {name:?}, and there is no such alternative");
        let path = JsonPath(self.here.clone());
        let problem = match required {
            true => Problem::error(path, message),
            false => Problem::warning(path, format!("{message}: nothing is replaced")),
        };
        self.list_problem(problem.with_help(format!("the alternatives are {}", names.join(", "))));
    }

    /// Inserts variables into a text. A text that is one variable and nothing else becomes the
    /// variable's value, of whatever type.
    fn text(&mut self, text: &str) -> Json {
        if !text.contains("$ENV(") {
            return Json::String(text.to_owned());
        }
        if let Some((0, end, name)) = next_call(text, "$ENV(", 0)
            && end == text.len()
        {
            return match self.env.get(name) {
                Some(value) => value.clone(),
                None => self.missing(name, text),
            };
        }
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        while let Some((start, end, name)) = next_call(text, "$ENV(", from) {
            out.push_str(&text[from..start]);
            match self.env.get(name) {
                Some(value) => out.push_str(&as_text(value)),
                None => {
                    self.missing(name, text);
                    out.push_str(&text[start..end]);
                }
            }
            from = end;
        }
        out.push_str(&text[from..]);
        Json::String(out)
    }

    /// Lists a variable that is missing, once a component: it is set in one place, too.
    fn missing(&mut self, name: &str, text: &str) -> Json {
        self.unresolved += 1;
        if !self.missed.insert(name.to_owned()) {
            return Json::String(text.to_owned());
        }
        let near = super::nearest(name, self.env.keys().map(String::as_str));
        let mut problem = Problem::error(
            JsonPath(self.here.clone()),
            format!("there is no environment variable {name:?}"),
        );
        problem.help = Some(match near {
            Some(near) => format!("did you mean {near:?}?"),
            None => "add it to the profile's env file, or set it in the node's variables".into(),
        });
        self.list_problem(problem);
        Json::String(text.to_owned())
    }

    fn problem(&mut self, message: String) {
        self.list_problem(Problem::error(JsonPath(self.here.clone()), message));
    }

    fn list_problem(&mut self, problem: Problem) {
        self.problems.push((problem, JsonPath(self.there.clone())));
    }

    /// Notes that what stands here was written there.
    fn moved(&mut self) {
        if self.here != self.there {
            self.moves
                .push((JsonPath(self.here.clone()), JsonPath(self.there.clone())));
        }
    }
}

const CONDITIONAL_PROPERTIES: &str = "$conditional_properties";

/// A value as it stands inside a text: text as it is, everything else as JSON.
fn as_text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The next `$ENV(name)` or `$SECRET(name)` from byte `from`: its start, its end and the name.
pub fn next_call<'t>(text: &'t str, opening: &str, from: usize) -> Option<(usize, usize, &'t str)> {
    let start = from + text.get(from..)?.find(opening)?;
    let name_start = start + opening.len();
    let name_len = text[name_start..].find(')')?;
    let name_end = name_start + name_len;
    Some((start, name_end + 1, &text[name_start..name_end]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resolved(original: Json) -> Resolved {
        let env = json!({
            "n": 5, "b": true, "s": "text", "o": {"a": [1, "x"]}, "env": "test", "nested": "$ENV(n)"
        });
        resolve(&original, env.as_object().unwrap())
    }

    #[test]
    fn a_lone_variable_keeps_its_type() {
        let result = resolved(json!({
            "a": "$ENV(n)", "b": "$ENV(b)", "c": "$ENV(o)", "d": ["$ENV(s)"], "e": "$ENV(nested)"
        }));
        let expected =
            json!({"a": 5, "b": true, "c": {"a": [1, "x"]}, "d": ["text"], "e": "$ENV(n)"});
        assert_eq!(result.json, expected);
        assert_eq!(result.problems, []);
    }

    #[test]
    fn inside_text_it_becomes_text() {
        let result = resolved(json!({"a": "<$ENV(n)-$ENV(s)-$ENV(b)> $ENV(o) $SECRET(x) $ENV("}));
        assert_eq!(
            result.json,
            json!({"a": r#"<5-text-true> {"a":[1,"x"]} $SECRET(x) $ENV("#})
        );
    }

    #[test]
    fn a_missing_one_is_a_problem_where_it_counts() {
        let result = resolved(json!({
            "comment": "$ENV(gone)",
            "source": {"type": "conditional", "condition": "$ENV(env)", "alternatives": {
                "prod": {"type": "sql", "url": "$ENV(gone)"},
                "test": {"type": "json", "url": "$ENV(gone2)"}
            }}
        }));
        assert_eq!(
            result.json["source"],
            json!({"type": "json", "url": "$ENV(gone2)"})
        );
        assert_eq!(result.problems.len(), 1);
        let (problem, there) = &result.problems[0];
        assert_eq!(problem.path.to_string(), "$.source.url");
        assert!(problem.message.contains("gone2"), "{problem}");
        assert_eq!(there.to_string(), "$.source.alternatives.test.url");
        assert_eq!(result.moves.written(&problem.path), *there);
    }

    #[test]
    fn a_missing_one_is_listed_once_and_still_decides_nothing() {
        let result = resolved(json!({
            "comment": "$ENV(gone)",
            "a": ["$ENV(gone)", "x $ENV(gone)"],
            "sink": {"type": "conditional", "condition": "$ENV(gone)", "alternatives": {
                "$ENV(gone)": {"type": "null"}
            }}
        }));
        assert_eq!(result.problems.len(), 1);
        assert_eq!(result.problems[0].0.path.to_string(), "$.a[0]");
        assert_eq!(result.json["sink"]["type"], "conditional");
    }

    #[test]
    fn a_condition_without_alternative_names_those_there_are() {
        let result = resolved(json!({
            "sink": {"type": "conditional", "condition": "staging", "alternatives": {
                "prod": {"type": "null"}, "test": {"type": "null"}
            }}
        }));
        let (problem, _) = &result.problems[0];
        assert_eq!(problem.path.to_string(), "$.sink");
        assert!(
            problem.help.as_deref().unwrap().contains("prod, test"),
            "{problem}"
        );
    }

    #[test]
    fn conditional_properties_replace_and_nest() {
        let result = resolved(json!({
            "_id": "s",
            "$conditional_properties": {"condition": "$ENV(env)", "alternatives": {
                "test": {
                    "url": "http://$ENV(s)",
                    "$conditional_properties": {"condition": "x", "alternatives": {
                        "x": {"deep": "$ENV(gone)"}
                    }}
                },
                "prod": {"url": "$ENV(gone)"}
            }},
            "url": "http://example.org",
            "inner": {"$conditional_properties": {"condition": "a", "alternatives": {"a": {"b": 1}}}}
        }));
        assert_eq!(
            result.json,
            json!({"_id": "s", "url": "http://text", "deep": "$ENV(gone)", "inner": {"b": 1}})
        );
        let (problem, there) = &result.problems[0];
        assert_eq!(problem.path.to_string(), "$.deep");
        assert_eq!(result.moves.written(&problem.path), *there);
        assert_eq!(
            there.to_string(),
            "$[\"$conditional_properties\"].alternatives.test[\"$conditional_properties\"]\
             .alternatives.x.deep"
        );
    }

    #[test]
    fn identity_does_not_depend_on_a_condition() {
        let result = resolved(json!({
            "_id": "a", "type": "pipe",
            "$conditional_properties": {"condition": "x", "alternatives": {"x": {"_id": "b"}}}
        }));
        assert_eq!(result.json["_id"], "a");
        assert!(result.problems[0].0.message.contains("_id"));
        assert!(
            result
                .moves
                .written(&JsonPath::default().name("type"))
                .to_string()
                == "$.type"
        );
    }

    #[test]
    fn data_is_left_alone() {
        let embedded = json!({"source": {"type": "embedded", "entities": [
            {"type": "conditional", "condition": "a", "alternatives": {}},
            {"$conditional_properties": 1}
        ]}});
        let result = resolved(embedded.clone());
        assert_eq!(result.json, embedded);
        assert_eq!(result.problems, []);
    }

    #[test]
    fn transforms_choose_too() {
        let result = resolved(json!({"transform": [
            {"type": "dtl"},
            {"type": "conditional", "condition": "$ENV(b)", "alternatives": {"true": {"type": "http"}}}
        ]}));
        assert_eq!(
            result.json,
            json!({"transform": [{"type": "dtl"}, {"type": "http"}]})
        );
    }
}
