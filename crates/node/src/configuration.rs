//! The node's configuration as it is kept, changed and applied.
//!
//! What was set through the API stands in the dataset `system:config`, an entity a component with
//! its JSON as text, so that nothing of it is lost; variables stand in `system:env`. What comes
//! from a project's folder belongs to the folder: it is loaded over the rest at every start and
//! is not kept.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value as Json, json};
use tahini_entity::{Batch, Entity, Value};
use tahini_hub::config::{Component, Configuration, Input, Problem};
use tahini_hub::scheduler::Scheduler;
use tahini_hub::secrets::{MemorySecrets, SecretChain, SecretSource};
use tahini_hub::{Clock, Failure};
use tahini_store::{Backend, Commit, Limit, Rule, Show, StoreError, View};

use crate::assembly::{Assembly, Loaded, REGISTRY};

const CONFIG: &str = "system:config";
const ENV: &str = "system:env";
/// The datasets that hold the configuration.
pub const DATASETS: [&str; 2] = [CONFIG, ENV];
/// The entity of `system:env`.
const VARIABLES: &str = "env";

/// The configuration, its variables, and what is wrong with its hosted services.
pub struct Stored {
    store: Arc<dyn Backend>,
    clock: Arc<dyn Clock>,
    held: Mutex<Held>,
    /// What is damaged of what was kept when the node started.
    damage: Option<String>,
}

/// What holds now.
#[derive(Clone, Default)]
pub struct Held {
    /// One document a component, in order.
    pub inputs: Vec<Input>,
    /// The variables.
    pub env: Map<String, Json>,
    /// Why services of valid systems are not hosted.
    services: Vec<Problem>,
}

/// Which problems refuse a change.
pub enum Judge {
    /// Errors anywhere.
    All,
    /// Errors of these components.
    These(BTreeSet<String>),
    /// None: what breaks is marked.
    Nothing,
}

/// Why a change was not made.
pub enum Rejected {
    /// The configuration has errors; nothing changed. One item a component with problems.
    Invalid(Vec<Json>),
    /// It could not be saved or applied.
    Failed(Failure),
}

impl From<Failure> for Rejected {
    fn from(failure: Failure) -> Rejected {
        Rejected::Failed(failure)
    }
}

impl Stored {
    /// Reads what is kept; nothing of it, where some of it is damaged.
    ///
    /// # Errors
    /// When the store cannot be read, or holds something else than was written.
    pub fn load(store: Arc<dyn Backend>, clock: Arc<dyn Clock>) -> Result<Stored, Failure> {
        let kept = read(store.as_ref(), CONFIG);
        let kept = kept.and_then(|components| Ok((components, read(store.as_ref(), ENV)?)));
        let (components, variables, damage) = match kept {
            Ok((components, variables)) => (components, variables, None),
            Err(error @ StoreError::Damaged { .. }) => {
                (Vec::new(), Vec::new(), Some(error.to_string()))
            }
            Err(error) => return Err(error.into()),
        };
        let mut found = Vec::new();
        for entity in components {
            let at = match entity.properties.get("position") {
                Some(Value::Int(at)) => *at,
                _ => i64::MAX,
            };
            found.push((at, Input::new(parse(&entity)?)));
        }
        found.sort_by_key(|(at, _)| *at);
        let inputs = found.into_iter().map(|(_, input)| input).collect();
        let mut env = Map::new();
        for entity in variables {
            if let Json::Object(variables) = parse(&entity)? {
                env.extend(variables);
            }
        }
        let held = Held {
            inputs,
            env,
            services: Vec::new(),
        };
        Ok(Stored {
            store,
            clock,
            held: Mutex::new(held),
            damage,
        })
    }

    /// What is damaged of the configuration. A node that does not know all of it rests: pipes of a
    /// folder would run without the metadata, and would remove versions that pipes which nobody
    /// knows now have still to read. It stays so until the next start.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Puts projects from disk over what is kept; the later one of an id wins.
    pub fn overlay(&self, loaded: &Loaded) {
        let fresh: Vec<Input> = loaded.inputs.iter().flat_map(split).collect();
        let ids: BTreeSet<&str> = fresh
            .iter()
            .filter_map(|input| id_of(&input.json))
            .collect();
        let mut held = self.lock();
        held.inputs
            .retain(|input| id_of(&input.json).is_none_or(|id| !ids.contains(id)));
        held.inputs.extend(fresh);
        held.env.extend(loaded.env.clone());
    }

    /// What holds now.
    pub fn held(&self) -> Held {
        self.lock().clone()
    }

    /// What is wrong with the hosted service of a system.
    pub fn service_problems(&self, system: &str) -> Vec<Problem> {
        let held = self.lock();
        let own = held
            .services
            .iter()
            .filter(|one| one.component.as_deref() == Some(system));
        own.cloned().collect()
    }

    /// Applies what holds, as it is, errors marked; for the start, and for changed secrets.
    pub fn apply(&self, assembly: &Assembly) -> Result<Arc<Configuration>, Failure> {
        let mut held = self.lock();
        held.services = assembly.apply(held.build())?;
        Ok(assembly.hub.configuration())
    }

    /// Makes a change: edits a copy, judges it, prepares it, saves it, takes it over. All or
    /// nothing, and one change at a time. Returns what is wrong all the same, one item a component.
    pub fn change(
        &self,
        assembly: &Assembly,
        scheduler: &Scheduler,
        judge: &Judge,
        edit: impl FnOnce(&mut Held),
    ) -> Result<Vec<Json>, Rejected> {
        let mut held = self.lock();
        let mut changed = held.clone();
        edit(&mut changed);
        changed.keep_origins(&held);
        let configuration = changed.build();
        if judge.refuses(&configuration) {
            return Err(Rejected::Invalid(report(&configuration, judge)));
        }
        refuse_foreign_programs(assembly, &configuration, assembly.secrets.as_ref())?;
        let warnings = report(&configuration, judge);
        let prepared = assembly.hub.prepare(configuration)?;
        self.save(&held, &changed)?;
        changed.services = assembly.take_over(prepared);
        *held = changed;
        drop(held);
        scheduler.reload(false);
        Ok(warnings)
    }

    /// Judges secrets before they are set; `None` are global ones.
    pub fn judge_secrets(
        &self,
        assembly: &Assembly,
        system: Option<&str>,
        values: &Map<String, Json>,
    ) -> Result<(), Rejected> {
        let mut fresh = MemorySecrets::default();
        for (name, value) in values {
            let text = value.as_str().map(str::to_owned);
            fresh.set(system, name, &text.unwrap_or_else(|| value.to_string()));
        }
        let chain = SecretChain(vec![Arc::new(fresh), assembly.secrets.clone()]);
        refuse_foreign_programs(assembly, &self.lock().build(), &chain)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves what does not belong to a folder; what did not change writes nothing.
    fn save(&self, old: &Held, held: &Held) -> Result<(), Failure> {
        let own = held.inputs.iter().filter(|input| input.folder.is_none());
        let mut entities = Vec::new();
        for (at, input) in own.enumerate() {
            let Some(id) = id_of(&input.json) else {
                continue;
            };
            let mut entity = written(id, &input.json);
            let at = i64::try_from(at).unwrap_or(i64::MAX);
            entity.properties.set("position", Value::Int(at));
            entities.push(entity);
        }
        self.replace(CONFIG, entities)?;
        if old.env == held.env {
            return Ok(());
        }
        self.replace(
            ENV,
            vec![written(VARIABLES, &Json::Object(held.env.clone()))],
        )
    }

    /// Makes a dataset hold exactly these entities, in one step.
    fn replace(&self, name: &str, mut entities: Vec<Entity>) -> Result<(), Failure> {
        let wanted: BTreeSet<String> = entities
            .iter()
            .filter_map(|one| one.id.as_ref().map(ToString::to_string))
            .collect();
        for old in read(self.store.as_ref(), name)? {
            if old.id.as_deref().is_some_and(|id| !wanted.contains(id)) {
                entities.push(Entity {
                    id: old.id,
                    deleted: true,
                    ..Entity::default()
                });
            }
        }
        let mut rows = Batch::new();
        for entity in &entities {
            rows.push_entity(entity)
                .map_err(|error| Failure::fatal(error.to_string()))?;
        }
        let dataset = self.store.open(name, true)?;
        let now = self.clock.micros();
        let commit = Commit {
            rows: &rows,
            rule: Rule::IfChanged,
            state: &[],
            populated: true,
            now,
            show: Show::Now,
            note: None,
        };
        dataset.commit(commit)?.1.wait()?;
        Ok(())
    }
}

impl Held {
    /// The configuration that it says.
    pub fn build(&self) -> Configuration {
        Configuration::build(self.inputs.clone(), &self.env, &REGISTRY)
    }

    /// The components as they were written, in order.
    pub fn components(&self) -> Vec<&Json> {
        let documents = self.inputs.iter().map(|input| &input.json);
        documents
            .flat_map(|json| match json {
                Json::Array(list) => list.iter().collect(),
                one => vec![one],
            })
            .collect()
    }

    /// Puts a component in the place of the one with its id, or at the end.
    pub fn put(&mut self, component: Json) {
        let id = id_of(&component).map(str::to_owned);
        let place = self
            .inputs
            .iter_mut()
            .find(|input| id.is_some() && id_of(&input.json) == id.as_deref());
        match place {
            Some(place) => *place = Input::new(component),
            None => self.inputs.push(Input::new(component)),
        }
    }

    /// Takes the component of that id away.
    pub fn remove(&mut self, id: &str) {
        self.inputs.retain(|input| id_of(&input.json) != Some(id));
    }

    /// Replaces all components.
    pub fn replace(&mut self, components: Vec<Json>) {
        self.inputs = components.into_iter().map(Input::new).collect();
    }

    /// A component that comes back as it was still belongs to its folder.
    fn keep_origins(&mut self, old: &Held) {
        for input in &mut self.inputs {
            let same = |known: &&Input| known.folder.is_some() && known.json == input.json;
            if input.folder.is_none()
                && let Some(known) = old.inputs.iter().find(same)
            {
                *input = known.clone();
            }
        }
    }
}

impl Judge {
    fn refuses(&self, configuration: &Configuration) -> bool {
        match self {
            Judge::Nothing => false,
            Judge::All => !configuration.is_valid(),
            Judge::These(ids) => {
                let without_id = |one: &Problem| one.component.is_none() && one.is_error();
                configuration.problems().any(without_id)
                    || ids
                        .iter()
                        .any(|id| configuration.get(id).is_none_or(|one| !one.is_valid()))
            }
        }
    }

    fn covers(&self, component: &Component) -> bool {
        match self {
            Judge::All | Judge::Nothing => true,
            Judge::These(ids) => ids.contains(&component.id),
        }
    }
}

/// Whoever may change variables and secrets may not thereby choose a program of this machine: not
/// with `force` either, for this is no mistake in a component that could be marked.
fn refuse_foreign_programs(
    assembly: &Assembly,
    configuration: &Configuration,
    secrets: &dyn SecretSource,
) -> Result<(), Rejected> {
    let programs = &assembly.programs;
    let before = programs.foreign(&assembly.hub.configuration(), assembly.secrets.as_ref());
    let is_new = |one: &Problem| !before.iter().any(|old| old.component == one.component);
    let after = programs.foreign(configuration, secrets);
    let items: Vec<Json> = after
        .iter()
        .filter(|one| is_new(one))
        .map(|one| item(json!({ "_id": one.component }), false, &[one]))
        .collect();
    match items.is_empty() {
        true => Ok(()),
        false => Err(Rejected::Invalid(items)),
    }
}

/// What clients read of a configuration's problems: one item a component that has some.
fn report(configuration: &Configuration, judge: &Judge) -> Vec<Json> {
    let mut items = Vec::new();
    for problem in configuration
        .problems()
        .filter(|problem| problem.component.is_none())
    {
        let errors = [problem];
        items.push(item(json!({ "_id": "" }), !problem.is_error(), &errors));
    }
    for component in configuration.components() {
        if component.problems.is_empty() || !judge.covers(component) {
            continue;
        }
        let errors: Vec<&Problem> = component.problems.iter().collect();
        items.push(item(
            component.original.clone(),
            component.is_valid(),
            &errors,
        ));
    }
    items
}

fn item(posted: Json, is_valid: bool, errors: &[&Problem]) -> Json {
    let errors: Vec<Json> = errors.iter().map(|problem| problem.to_json()).collect();
    json!({ "posted-config": posted, "is-valid-config": is_valid, "config-errors": errors })
}

/// One document a component.
fn split(input: &Input) -> Vec<Input> {
    match &input.json {
        // Positions are of the whole file, and a part of it stands elsewhere: better no line
        // than a wrong one.
        Json::Array(list) if list.len() != 1 => list
            .iter()
            .map(|json| Input {
                json: json.clone(),
                spans: None,
                ..input.clone()
            })
            .collect(),
        _ => vec![input.clone()],
    }
}

/// The id of a document that is one component.
fn id_of(json: &Json) -> Option<&str> {
    let json = match json {
        Json::Array(list) if list.len() == 1 => &list[0],
        other => other,
    };
    json.get("_id")?.as_str()
}

/// An entity that keeps JSON as it was written: numbers, order and unknown names included.
fn written(id: &str, json: &Json) -> Entity {
    let mut entity = Entity {
        id: Some(id.into()),
        ..Entity::default()
    };
    if let Some(kind) = json.get("type").and_then(Json::as_str) {
        entity.properties.set("type", Value::string(kind));
    }
    entity
        .properties
        .set("json", Value::string(json.to_string()));
    entity
}

fn parse(entity: &Entity) -> Result<Json, Failure> {
    let text = entity.properties.get("json").and_then(Value::as_str);
    let parsed = text.and_then(|text| serde_json::from_str(text).ok());
    parsed.ok_or_else(|| {
        let id = entity.id.as_deref().unwrap_or_default();
        Failure::fatal(format!(
            "expected the configuration of {id:?} in its `json`, found none"
        ))
    })
}

/// The latest versions of a small dataset; none where there is no such dataset.
fn read(store: &dyn Backend, name: &str) -> Result<Vec<Entity>, StoreError> {
    let Some(dataset) = store.find(name)? else {
        return Ok(Vec::new());
    };
    let snapshot = dataset.snapshot()?;
    let view = View {
        history: false,
        deleted: false,
    };
    let limit = Limit {
        rows: 1_000,
        bytes: 8 << 20,
    };
    let (mut after, mut all) = (None, Vec::new());
    loop {
        let mut batch = Batch::new();
        let next = snapshot.changes(after, view, limit, &mut batch)?;
        all.extend(batch.iter().map(|record| record.to_entity()));
        match next {
            Some(seq) => after = Some(seq),
            None => return Ok(all),
        }
    }
}
