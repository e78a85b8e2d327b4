//! How the data of a run differs from that of the runs before.

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::{EntityType, Fields, Node, Side, kind_name};

/// Something about the entities that was not so before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When the run ended that showed it.
    pub at: Timestamp,
    /// On which side of the pipe.
    pub side: Side,
    /// Where: names joined by `.`; `[]` stands for the items of a list, `*` for all values of a
    /// dict.
    pub path: String,
    /// What it is.
    pub what: What,
}

/// What changed at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The property is new; its kinds.
    Appeared(String),
    /// A complete full run did not show the property any more; the kinds that it had.
    Vanished(String),
    /// Other kinds of values stand there now: those before, and those now.
    Kinds(String, String),
}

impl What {
    fn name(&self) -> &'static str {
        match self {
            What::Appeared(_) => "appeared",
            What::Vanished(_) => "vanished",
            What::Kinds(..) => "type-changed",
        }
    }

    fn kinds(&self) -> [Option<&str>; 2] {
        match self {
            What::Appeared(is) => [None, Some(is)],
            What::Vanished(was) => [Some(was), None],
            What::Kinds(was, is) => [Some(was), Some(is)],
        }
    }
}

impl Change {
    /// The change in words: `sink: age changed from integer to integer|string`.
    pub fn words(&self) -> String {
        let (side, path) = (self.side.name(), &self.path);
        match &self.what {
            What::Appeared(is) => format!("{side}: {path} appeared as {is}"),
            What::Vanished(was) => format!("{side}: {path} vanished, which was {was}"),
            What::Kinds(was, is) => format!("{side}: {path} changed from {was} to {is}"),
        }
    }

    /// The change as the API shows it.
    pub fn to_json(&self) -> Json {
        let [was, is] = self.what.kinds();
        json!({
            "time": format!("{:.6}", self.at),
            "side": self.side.name(),
            "path": self.path,
            "change": self.what.name(),
            "was": was,
            "is": is,
        })
    }

    /// The change from what `to_json` gives.
    pub(crate) fn of_json(json: &Json) -> Option<Change> {
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        Some(Change {
            at: text("time")?.parse().ok()?,
            side: Side::of(&text("side")?)?,
            path: text("path")?,
            what: match json["change"].as_str()? {
                "appeared" => What::Appeared(text("is")?),
                "vanished" => What::Vanished(text("was")?),
                "type-changed" => What::Kinds(text("was")?, text("is")?),
                _ => return None,
            },
        })
    }
}

/// What is different in `after`, in the order of its properties.
pub(crate) fn compare(
    before: &EntityType,
    after: &EntityType,
    (side, at): (Side, Timestamp),
) -> Vec<Change> {
    let mut found = Found {
        side,
        at,
        changes: Vec::new(),
    };
    found.fields("", &before.fields, &after.fields);
    found.changes
}

struct Found {
    side: Side,
    at: Timestamp,
    changes: Vec<Change>,
}

impl Found {
    fn add(&mut self, path: &str, what: What) {
        self.changes.push(Change {
            at: self.at,
            side: self.side,
            path: path.to_owned(),
            what,
        });
    }

    fn fields(&mut self, path: &str, before: &Fields, after: &Fields) {
        let below = |name: &str| match path {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        match (&before.rest, &after.rest) {
            (Some(before), Some(after)) => return self.node(&below("*"), before, after),
            (None, None) => {}
            // That names are data now, or are no more, is no change of the data.
            _ => return,
        }
        for (guess, (name, is)) in after.named.iter().enumerate() {
            match find(before, name, guess) {
                Some(was) => self.node(&below(name), was, is),
                None => self.add(&below(name), What::Appeared(kinds(is))),
            }
        }
        for (guess, (name, was)) in before.named.iter().enumerate() {
            if find(after, name, guess).is_none() {
                self.add(&below(name), What::Vanished(kinds(was)));
            }
        }
    }

    fn node(&mut self, path: &str, before: &Node, after: &Node) {
        let (was, is) = (kinds(before), kinds(after));
        if was != is {
            self.add(path, What::Kinds(was, is));
        }
        let (Some(before), Some(after)) = (&before.parts, &after.parts) else {
            return;
        };
        if let (Some(before), Some(after)) = (&before.items, &after.items) {
            self.node(&format!("{path}[]"), before, after);
        }
        self.fields(path, &before.fields, &after.fields);
    }
}

fn find<'a>(fields: &'a Fields, name: &str, guess: usize) -> Option<&'a Node> {
    let guessed = fields.named.get(guess).filter(|(known, _)| known == name);
    let found = guessed.or_else(|| fields.named.iter().find(|(known, _)| known == name));
    found.map(|(_, node)| node)
}

fn kinds(node: &Node) -> String {
    let names: Vec<&str> = node.kinds().map(kind_name).collect();
    names.join("|")
}
