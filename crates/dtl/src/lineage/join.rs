//! `hops`: properties of other datasets.

use serde_json::{Map, Value as Json};

use super::flow::{Beside, Flow, Of};
use super::layout::Layout;
use super::rules::{Frame, Walk};

impl<'r> Walk<'r> {
    /// What a chain of specs returns. What they join by decides about it.
    pub(super) fn hops(&mut self, specs: &'r [Json]) -> Flow {
        let mut input: Option<Flow> = None;
        for (nth, json) in specs.iter().enumerate() {
            let Json::Object(spec) = json else {
                return Flow::beside(Beside::Unknown);
            };
            let last = nth + 1 == specs.len();
            input = Some(self.spec(spec, input, last));
        }
        input.unwrap_or_default()
    }

    fn spec(&mut self, spec: &'r Map<String, Json>, input: Option<Flow>, last: bool) -> Flow {
        let base = self.aliases.len();
        let named = spec.get("datasets").and_then(Json::as_array);
        for item in named.into_iter().flatten() {
            let words = item.as_str().unwrap_or_default();
            if let Some((dataset, alias)) = words.split_once(char::is_whitespace) {
                let flow = Flow::of(Of::Dataset(dataset.to_owned()), Vec::new());
                self.aliases.push((alias.trim().to_owned(), flow));
            }
        }
        let own = self.aliases[base..].last().map(|(_, flow)| flow.clone());
        let own = own.unwrap_or_else(|| Flow::beside(Beside::Unknown));
        let recurses = spec.get("recurse") == Some(&Json::Bool(true));
        let before = input.as_ref().map(|flow| flow.when.clone());
        let roots = match (recurses, input) {
            (true, None) => Some(self.source(0)),
            (_, input) => input,
        };
        let framed = roots.is_some();
        if let Some(roots) = roots.clone() {
            let source = match recurses {
                true => roots.or(own.clone()),
                false => roots,
            };
            self.frames.push(Frame {
                source,
                target: Layout::default(),
                is_rule: false,
            });
        }
        let decides = self.conditions(spec, base);
        let mut returned = match spec.get("return").filter(|_| !recurses && last) {
            Some(json) => self.returned(json, base),
            None => own,
        };
        if framed {
            self.frames.pop();
        }
        self.aliases.truncate(base);
        if recurses && spec.get("exclude_root") != Some(&Json::Bool(true)) {
            returned = returned.or(roots.unwrap_or_default());
        }
        returned.when.extend(before.into_iter().flatten());
        returned.decided_by(decides)
    }

    fn returned(&mut self, json: &'r Json, base: usize) -> Flow {
        if let Json::String(text) = json {
            let names = text.split(',').map(str::trim);
            let own = &self.aliases[base..];
            let flows: Option<Vec<Flow>> = names
                .map(|name| {
                    let found = own.iter().find(|(alias, _)| alias == name);
                    found.map(|(_, flow)| flow.clone())
                })
                .collect();
            if let Some(flows) = flows {
                return flows.into_iter().fold(Flow::default(), Flow::or);
            }
        }
        self.value(json)
    }

    /// What decides which entities are joined: `where` and `subsets`.
    fn conditions(&mut self, spec: &'r Map<String, Json>, base: usize) -> Flow {
        let mut all = match spec.get("where") {
            Some(json) => self.condition(json),
            None => Flow::default(),
        };
        let subsets = spec.get("subsets").or_else(|| spec.get("prefilters"));
        for (alias, json) in subsets.and_then(Json::as_object).into_iter().flatten() {
            let own = self.aliases[base..].iter().find(|(name, _)| name == alias);
            let entity = own.map(|(_, flow)| flow.clone());
            if let Some([_, index, value]) = json.as_array().map(Vec::as_slice) {
                let before = std::mem::replace(&mut self.part_of, entity);
                all = all.or(self.value(index));
                self.part_of = before;
                all = all.or(self.value(value));
            }
        }
        all.computed()
    }

    /// A condition, or a list of them.
    fn condition(&mut self, json: &'r Json) -> Flow {
        match json {
            Json::Array(items) if !items.first().is_some_and(Json::is_string) => {
                let conditions = items.iter();
                let mut all = Flow::default();
                for item in conditions {
                    all = all.or(self.condition(item));
                }
                all
            }
            other => self.value(other),
        }
    }
}
