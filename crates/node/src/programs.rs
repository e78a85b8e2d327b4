//! Which programs of this machine a configuration may start.
//!
//! A `process` of a project on disk is trusted as the disk says it. Its variables and secrets can
//! be changed over the API, and a command that is made of them would let anybody who may do that
//! start any program; so it is compared with what the disk alone makes of it.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use tahini_hub::SecretSource;
use tahini_hub::config::{Component, Configuration, Problem, resolve_secrets};

use crate::assembly::Loaded;

/// The programs that may be started.
pub enum Programs {
    /// Whatever a configuration names.
    Any,
    /// By system, what projects on disk name.
    OfProjects(BTreeMap<String, Json>),
}

impl Programs {
    /// What these projects name, with their own variables and with secrets that do not come over
    /// the API.
    pub fn of(loaded: &Loaded, secrets: &dyn SecretSource) -> Programs {
        let configuration = loaded.configure();
        let named = configuration
            .systems()
            .filter(|system| has_process(&system.effective));
        let filled = named.filter_map(|system| {
            let program = program(&system.id, &system.effective, secrets)?;
            Some((system.id.clone(), program))
        });
        Programs::OfProjects(filled.collect())
    }

    /// Why the process of this system may not be started, where it has one that may not.
    pub fn refusal(&self, system: &Component, secrets: &dyn SecretSource) -> Option<String> {
        let Programs::OfProjects(known) = self else {
            return None;
        };
        if !has_process(&system.effective) {
            return None;
        }
        if system.folder.is_none() {
            return Some(
                "expected a project on disk, or `serve --allow-process`, for a system with \
                 `process`: it starts a program of this machine"
                    .to_owned(),
            );
        }
        // What is not complete is started by nobody; why is told by whoever fills it in.
        let found = program(&system.id, &system.effective, secrets)?;
        (known.get(&system.id) != Some(&found)).then(|| {
            "expected `process` to start the program that the project on disk names, in its \
             folder; found that a variable, a secret or the metadata makes it another one. Change \
             the project's own variables or secrets, or start the node with `serve --allow-process`"
                .to_owned()
        })
    }

    /// The systems on disk whose process would be another than the disk says.
    pub fn foreign(&self, all: &Configuration, secrets: &dyn SecretSource) -> Vec<Problem> {
        let on_disk = all
            .systems()
            .filter(|system| system.folder.is_some() && system.is_runnable());
        on_disk
            .filter_map(|system| {
                let words = self.refusal(system, secrets)?;
                let mut problem = Problem::error(Default::default(), words);
                problem.component = Some(system.id.clone());
                Some(problem)
            })
            .collect()
    }
}

fn has_process(config: &Json) -> bool {
    config
        .get("process")
        .is_some_and(|process| !process.is_null())
}

/// What decides which program is started: command, folder, the names of its variables, and the
/// values of those by which programs and their libraries are found. `None` when a secret is not
/// set.
fn program(system: &str, config: &Json, secrets: &dyn SecretSource) -> Option<Json> {
    let process = &config["process"];
    let mut variables = Map::new();
    for part in [&config["docker"], process] {
        match &part["environment"] {
            Json::Object(environment) => {
                for (name, value) in environment {
                    let decides = name == "PATH" || name.starts_with("LD_");
                    let value = if decides { value.clone() } else { Json::Null };
                    variables.insert(name.clone(), value);
                }
            }
            other => {
                variables.insert(String::new(), other.clone());
            }
        }
    }
    let parts = json!({
        "command": process["command"], "cwd": process["cwd"], "variables": variables,
    });
    resolve_secrets(&parts, secrets, Some(system)).ok()
}
