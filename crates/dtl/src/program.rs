//! Compiled rules and what is known about them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::Value as Json;
use tahini_entity::{Dict, Entity, Record, Str, Value};

use crate::analysis::{Cause, Properties};
use crate::context::Context;
use crate::dependencies::Dependencies;
use crate::error::{JsonPath, Problem};
use crate::eval::{Env, Machine};
use crate::expr::{Block, Expr, Prefixed};
use crate::lookup::NoLookup;
use crate::namespace::Naming;
use crate::options::{Options, TriggerOn};
use crate::pattern::Pattern;
use crate::prefixes::Prefixes;
use crate::scope::{Frame, Source, Target};
use crate::values;

/// Rules, compiled: immutable, shared between threads, evaluated any number of times.
pub struct Program {
    pub(crate) rules: Vec<Block>,
    /// The rule that entities start with, by its place in `rules`.
    pub(crate) default: usize,
    /// The JSON path of every statement.
    pub(crate) paths: Vec<JsonPath>,
    /// The JSON path of every expression that notes its step.
    pub(crate) traced: Vec<JsonPath>,
    /// How many caches an evaluation needs.
    pub(crate) slots: u32,
    pub(crate) naming: Naming,
    /// URI prefixes and the namespaces that stand for them, longest prefix first.
    pub(crate) prefixes: Prefixes,
    pub(crate) pipe: Str,
    pub(crate) id_required: bool,
    pub(crate) trigger: Option<Trigger>,
    pub(crate) datasets: Vec<String>,
    /// The `trace` of each call of `hops` that has one.
    pub(crate) traced_hops: Vec<String>,
    pub(crate) reads: Vec<Read>,
    pub(crate) indexes: Vec<Index>,
    pub(crate) dependencies: Dependencies,
    pub(crate) facts: Facts,
    pub(crate) properties: Properties,
    pub(crate) causes: Vec<Cause>,
    pub(crate) warnings: Vec<Problem>,
    /// Whether the default rule can have plans, once somebody asked.
    pub(crate) straight: OnceLock<bool>,
}

/// What the compiler noticed on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// Something has to be looked up.
    pub(crate) lookups: bool,
    pub(crate) children: bool,
    pub(crate) sleeps: bool,
}

/// A dataset that rules read beside their source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The dataset's id.
    pub dataset: String,
    /// Changes of it should make the pipe process entities again (`track-dependencies`).
    pub tracked: bool,
    /// The dataset must be populated before the pipe may run.
    pub populated: bool,
}

/// An index that joins want: entities of a dataset by the values of an expression.
#[derive(Clone)]
pub struct Index {
    pub(crate) dataset: String,
    pub(crate) fingerprint: String,
    /// The one root property that it reads as it is, where it is as simple as that.
    pub(crate) plain: Option<Str>,
    /// An entity without `$ids` has its own `_id` there.
    pub(crate) own_ids: bool,
    /// The expression over alias 0, and what it needs to be evaluated.
    pub(crate) expr: Arc<(Expr, Program)>,
    /// It reads one property, item by item; known for the other side of a join only.
    pub(crate) by_item: bool,
    /// Where the keys are tuples, what those items of them are that are of one property each, and
    /// their places; known for the other side of a join only.
    pub(crate) items: Vec<(usize, Index)>,
}

/// The compiled `trigger_on`.
pub(crate) struct Trigger {
    path: Vec<Str>,
    value: Value,
    pattern: Option<Pattern>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("pipe", &self.pipe)
            .field("rules", &self.rules.len())
            .field("reads", &self.reads)
            .finish_non_exhaustive()
    }
}

impl Program {
    /// A program without rules, for expressions that stand alone.
    pub(crate) fn bare(options: &Options) -> Program {
        Program {
            rules: Vec::new(),
            default: 0,
            paths: Vec::new(),
            traced: Vec::new(),
            slots: 0,
            naming: Naming::of(options),
            prefixes: Prefixes::of(&options.namespaces),
            pipe: options.pipe.as_str().into(),
            id_required: options.id_required,
            trigger: options.trigger_on.as_ref().map(Trigger::new),
            datasets: Vec::new(),
            traced_hops: Vec::new(),
            reads: Vec::new(),
            indexes: Vec::new(),
            dependencies: Dependencies::default(),
            facts: Facts::default(),
            properties: Properties::default(),
            causes: Vec::new(),
            warnings: Vec::new(),
            straight: OnceLock::new(),
        }
    }

    /// What the author should look at, though the rules run.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The datasets that the rules read, by id.
    pub fn reads(&self) -> &[Read] {
        &self.reads
    }

    /// The indexes that the rules' joins want.
    pub fn indexes(&self) -> &[Index] {
        &self.indexes
    }

    /// How changes of joined entities lead back to the entities that have to be processed again.
    pub fn dependencies(&self) -> &Dependencies {
        &self.dependencies
    }

    /// The properties of the source entity that the rules read.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Whether equal entities always give equal results: no `now`, `uuid` or other datasets.
    pub fn is_deterministic(&self) -> bool {
        self.causes.is_empty()
    }

    /// Why equal entities may give different results, in the order of the rules; each place once.
    pub fn causes(&self) -> &[Cause] {
        &self.causes
    }

    /// Whether the rules create children (`create-child`): a dataset sink then tracks them.
    pub fn creates_children(&self) -> bool {
        self.facts.children
    }

    /// Whether the rules may pause (`sleep!`).
    pub fn sleeps(&self) -> bool {
        self.facts.sleeps
    }

    /// Whether the default rule's statements follow each other whatever an entity holds.
    pub(crate) fn is_straight(&self) -> bool {
        *self.straight.get_or_init(|| crate::plan::is_straight(self))
    }

    /// What the namespaces of the pipe make of a value.
    pub(crate) fn prefixed(&self, how: Prefixed, value: &Value) -> Option<Value> {
        match how {
            Prefixed::Identifier => self.prefixes.identifier(&self.pipe, value),
            Prefixed::Collapsed => self.prefixes.collapsed(value),
            Prefixed::Expanded => self.prefixes.expanded(value),
        }
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Index({}: {})", self.dataset, self.fingerprint)
    }
}

impl Index {
    /// Compiles an expression over the entities (`_S`) of `dataset`.
    ///
    /// # Errors
    /// What is wrong with it, with paths that begin with the position 1.
    pub fn compile(dataset: &str, json: &Json, options: &Options) -> Result<Index, Vec<Problem>> {
        crate::compile::compile_index(dataset, json, options)
    }

    /// Compiles one side of an equality between datasets: an expression over the entities of
    /// `dataset`, called `alias` in it, that mentions none of the `others`.
    ///
    /// # Errors
    /// What is wrong with it, with paths from the expression's own root.
    pub fn of_side(
        dataset: &str,
        alias: &str,
        others: &[String],
        json: &Json,
        options: &Options,
    ) -> Result<Index, Vec<Problem>> {
        crate::compile::compile_side(dataset, alias, others, json, options)
    }

    /// The dataset's id.
    pub fn dataset(&self) -> &str {
        &self.dataset
    }

    /// The same expression over the entities of another dataset.
    pub(crate) fn in_dataset(&self, dataset: &str) -> Index {
        Index {
            dataset: dataset.to_owned(),
            ..self.clone()
        }
    }

    /// The same expression over the entities of a source's dataset, which have `$ids` where rules
    /// ask for them, given or not.
    pub fn in_source(&self, dataset: &str) -> Index {
        self.in_dataset(dataset).with_own_ids()
    }

    /// The same, where an entity without `$ids` has its own `_id` there.
    pub(crate) fn with_own_ids(mut self) -> Index {
        if !self.own_ids && self.is_of_ids() {
            self.own_ids = true;
            self.fingerprint.push_str(" or its own");
            // Which that is goes by the pipe.
            if let Some(identity) = self.expr.1.naming.own_identity() {
                self.fingerprint.push_str(&format!(" in {identity:?}"));
            }
        }
        self
    }

    /// Whether the expression reads `$ids`.
    pub fn is_of_ids(&self) -> bool {
        // Of a path only the alias before it is not in the fingerprint.
        self.fingerprint.contains("$ids")
    }

    /// Whether an entity whose properties hold what those of several others hold has no keys but
    /// those that they have: what it reads is one property, taken item by item. Known for the other
    /// side of a join only.
    pub fn goes_item_by_item(&self) -> bool {
        self.by_item
    }

    /// Where the keys are tuples: the items of them that go item by item, with their places. Who has
    /// a key has such an item of it.
    pub fn items(&self) -> &[(usize, Index)] {
        &self.items
    }

    /// The expression in one stable form: equal fingerprints have equal keys.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The same for an entity that is still encoded, of which no more is decoded than the
    /// expression reads, where that is one property.
    pub fn keys_of(&self, record: Record<'_>, out: &mut Vec<Value>) {
        let Some(name) = &self.plain else {
            return self.keys(&record.to_entity(), out);
        };
        if let Some(value) = record.value(name) {
            distinct(values::items(&value), out);
        }
    }

    /// Appends the keys under which `entity` is found, each once; nulls are none. An entity on
    /// which the expression fails (a limit) has none.
    pub fn keys(&self, entity: &Entity, out: &mut Vec<Value>) {
        if let Some(name) = &self.plain {
            if let Some(value) = entity.properties.get(name) {
                distinct(values::items(value), out);
            }
            return;
        }
        let (expr, program) = &*self.expr;
        let context = Context::new(jiff::Timestamp::UNIX_EPOCH, &NoLookup);
        let mut machine = Machine::new(program, &context);
        let frame = Frame {
            source: Source::Value(&Value::Null),
            target: Target::new(),
            parent: None,
        };
        let mut dict = entity.to_dict();
        if let Some(id) = entity.id.as_ref().filter(|_| self.own_ids)
            && dict.get("$ids").is_none()
        {
            let own = match program.naming.on {
                true => program.naming.ids_of(id),
                false => Value::String(id.clone()),
            };
            dict.push_new("$ids", own);
        }
        let aliases = [Value::Dict(dict)];
        let env = Env {
            aliases: &aliases,
            ..Env::of(&frame)
        };
        let Ok(keys) = machine.eval(expr, env) else {
            return;
        };
        distinct(values::items(&keys), out);
    }
}

/// Appends the items that are not null, each once.
fn distinct(items: &[Value], out: &mut Vec<Value>) {
    if let [one] = items {
        out.extend((!one.is_null()).then(|| one.clone()));
        return;
    }
    let mut seen = values::Seen::default();
    let keys = items.iter();
    out.extend(
        keys.filter(|key| !key.is_null() && seen.insert(key))
            .cloned(),
    );
}

impl Trigger {
    fn new(trigger: &TriggerOn) -> Trigger {
        let pattern = match &trigger.value {
            Value::String(text) if text.contains('*') => Some(Pattern::new(text)),
            _ => None,
        };
        Trigger {
            path: trigger.key.split('.').map(Str::from).collect(),
            value: trigger.value.clone(),
            pattern,
        }
    }

    /// Whether an entity has the value that lets it into the transform.
    pub(crate) fn fires(&self, source: Source<'_>) -> bool {
        let Some((first, rest)) = self.path.split_first() else {
            return false;
        };
        let found = match source {
            Source::Row(row) => {
                let place = row.shape.position(first);
                place
                    .map(|at| row.value(at))
                    .or_else(|| row.reserved(first))
            }
            Source::Value(Value::Dict(dict)) => dict.get(first).cloned(),
            Source::Value(_) => None,
        };
        let Some(mut found) = found.filter(|value| !value.is_null()) else {
            return false;
        };
        for name in rest {
            found = match found {
                Value::Dict(dict) => dict_get(&dict, name),
                _ => return false,
            };
        }
        match (&self.pattern, &found) {
            (Some(pattern), Value::String(text)) => pattern.matches(text),
            _ => values::equal(&found, &self.value),
        }
    }
}

fn dict_get(dict: &Dict, name: &str) -> Value {
    dict.get(name).cloned().unwrap_or_default()
}
