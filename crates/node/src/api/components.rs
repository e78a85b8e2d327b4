//! Changing single pipes, systems and the metadata.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value as Json, json};
use tahini_hub::config::{Component, ComponentKind};

use super::answer::{json_answer, with_json};
use super::call::kind_of;
use super::config::change;
use super::runtime::{Parts, by_level, pipe_json};
use super::systems::system_json;
use super::{Answer, Call, Node, Problem};
use crate::configuration::Judge;

/// A kind of component that has a collection of its own.
#[derive(Clone, Copy)]
struct Shelf {
    noun: &'static str,
    /// The path's parameter.
    param: &'static str,
    kind: ComponentKind,
}

const PIPES: Shelf = Shelf {
    noun: "pipe",
    param: "pipe_id",
    kind: ComponentKind::Pipe,
};
const SYSTEMS: Shelf = Shelf {
    noun: "system",
    param: "system_id",
    kind: ComponentKind::System,
};

impl Shelf {
    fn holds(self, config: &Json) -> bool {
        let kind = config
            .get("type")
            .and_then(Json::as_str)
            .unwrap_or_default();
        match self.kind {
            ComponentKind::Pipe => kind == "pipe",
            _ => kind.starts_with("system:"),
        }
    }

    fn find(self, node: &Node, id: &str) -> Result<Component, Problem> {
        let configuration = node.assembly.hub.configuration();
        let found = configuration.get(id).filter(|one| one.kind == self.kind);
        found
            .cloned()
            .ok_or_else(|| Problem::missing(self.noun, id))
    }

    fn show(self, node: &Node, id: &str) -> Result<Json, Problem> {
        match self.kind {
            ComponentKind::Pipe => {
                let live = node.assembly.hub.pipe(id)?;
                Ok(pipe_json(node, &live, &Parts::of(None)))
            }
            _ => Ok(system_json(node, &self.find(node, id)?)),
        }
    }

    /// What was written.
    fn config(self, node: &Node, call: &Call) -> Answer {
        json_answer(&self.find(node, call.id(self.param))?.original)
    }

    /// Adds new components, all or none; an id that is taken is a conflict.
    fn add(self, node: &Node, call: &Call) -> Result<Response, Problem> {
        let list = match call.json()? {
            Json::Array(list) => list,
            one => vec![one],
        };
        let mut ids = Vec::new();
        let configuration = node.assembly.hub.configuration();
        for config in &list {
            let id = self.id_of(config)?;
            if configuration.get(id).is_some() || ids.iter().any(|known| known == id) {
                return Err(Problem::conflict(format!("the id {id:?} is taken")));
            }
            ids.push(id.to_owned());
        }
        let judge = Judge::These(ids.iter().cloned().collect());
        change(node, call, judge, |held| {
            list.into_iter().for_each(|one| held.put(one))
        })?;
        let shown: Result<Vec<Json>, Problem> = ids.iter().map(|id| self.show(node, id)).collect();
        Ok(with_json(StatusCode::CREATED, &Json::Array(shown?)))
    }

    /// Replaces or adds the component that the path names.
    fn put(self, node: &Node, call: &Call) -> Answer {
        let id = call.id(self.param);
        let config = call.json()?;
        let found = self.id_of(&config)?;
        if found != id {
            let words = format!("expected the _id {id:?}, as in the path, found {found:?}");
            return Err(Problem::bad(words));
        }
        let other = node
            .assembly
            .hub
            .configuration()
            .get(id)
            .map(|one| one.kind);
        if other.is_some_and(|kind| kind != self.kind) {
            return Err(Problem::conflict(format!("the id {id:?} is taken")));
        }
        change(
            node,
            call,
            Judge::These(BTreeSet::from([id.to_owned()])),
            |held| held.put(config),
        )?;
        json_answer(&self.show(node, id)?)
    }

    /// Takes a component away.
    fn delete(self, node: &Node, call: &Call) -> Answer {
        let id = call.id(self.param);
        let gone = self.find(node, id)?;
        change(node, call, Judge::Nothing, |held| held.remove(id))?;
        json_answer(&gone.original)
    }

    fn id_of(self, config: &Json) -> Result<&str, Problem> {
        if !config.is_object() {
            let words = format!(
                "expected a {} (an object), found {}",
                self.noun,
                kind_of(config)
            );
            return Err(Problem::bad(words));
        }
        if !self.holds(config) {
            let words = format!(
                "expected a {}, found the type {}",
                self.noun, config["type"]
            );
            return Err(Problem::bad(words));
        }
        let id = config
            .get("_id")
            .and_then(Json::as_str)
            .filter(|id| !id.is_empty());
        id.ok_or_else(|| Problem::bad(format!("the {} has no _id", self.noun)))
    }
}

/// A pipe's configuration.
pub fn pipe_config(node: &Node, call: &Call) -> Answer {
    PIPES.config(node, call)
}

/// Adds pipes.
pub fn add_pipes(node: &Node, call: &Call) -> Answer {
    PIPES.add(node, call)
}

/// Replaces a pipe's configuration.
pub fn put_pipe(node: &Node, call: &Call) -> Answer {
    PIPES.put(node, call)
}

/// Deletes a pipe; its datasets stay.
pub fn delete_pipe(node: &Node, call: &Call) -> Answer {
    PIPES.delete(node, call)
}

/// A system's configuration.
pub fn system_config(node: &Node, call: &Call) -> Answer {
    SYSTEMS.config(node, call)
}

/// Adds systems.
pub fn add_systems(node: &Node, call: &Call) -> Answer {
    SYSTEMS.add(node, call)
}

/// Replaces a system's configuration.
pub fn put_system(node: &Node, call: &Call) -> Answer {
    SYSTEMS.put(node, call)
}

/// Deletes a system.
pub fn delete_system(node: &Node, call: &Call) -> Answer {
    SYSTEMS.delete(node, call)
}

/// The `_id` of metadata that has none.
const METADATA_ID: &str = "node";

/// The node's metadata: as written, and with defaults.
pub fn metadata(node: &Node, _: &Call) -> Answer {
    let configuration = node.assembly.hub.configuration();
    let written = configuration.metadata_component();
    let (errors, warnings) = by_level(written.into_iter().flat_map(|one| &one.problems));
    json_answer(&json!({
        "_id": written.map_or(METADATA_ID, |one| one.id.as_str()),
        "type": "metadata",
        "config": {
            "original": written.map(|one| &one.original),
            "effective": configuration.metadata(),
        },
        "runtime": {
            "is-valid-config": written.is_none_or(Component::is_valid),
            "config-errors": errors,
            "config-warnings": warnings,
        },
    }))
}

/// Replaces the metadata.
pub fn put_metadata(node: &Node, call: &Call) -> Answer {
    let mut config = match call.json()? {
        Json::Array(mut list) if list.len() == 1 => list.remove(0),
        other => other,
    };
    let Json::Object(map) = &mut config else {
        let words = format!(
            "expected the metadata (an object), found {}",
            kind_of(&config)
        );
        return Err(Problem::bad(words));
    };
    let known = node.assembly.hub.configuration();
    let known = known.metadata_component().map(|one| one.id.clone());
    map.entry("_id")
        .or_insert_with(|| json!(known.as_deref().unwrap_or(METADATA_ID)));
    map.entry("type").or_insert_with(|| json!("metadata"));
    if map["type"] != "metadata" {
        let words = format!("expected the type \"metadata\", found {}", map["type"]);
        return Err(Problem::bad(words));
    }
    let id = map["_id"].as_str().unwrap_or_default().to_owned();
    change(node, call, Judge::These(BTreeSet::from([id])), |held| {
        known.iter().for_each(|old| held.remove(old));
        held.put(config);
    })?;
    metadata(node, call)
}

/// Takes the metadata away; defaults hold then.
pub fn delete_metadata(node: &Node, call: &Call) -> Answer {
    let known = node.assembly.hub.configuration();
    if let Some(known) = known.metadata_component() {
        change(node, call, Judge::Nothing, |held| held.remove(&known.id))?;
    }
    metadata(node, call)
}
