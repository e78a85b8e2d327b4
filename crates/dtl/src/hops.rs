//! Evaluation of joins: `hops` and `lookup-entity`, over what the memo knows.

use tahini_entity::{Dict, Value};

use crate::eval::{Env, Machine, Stop};
use crate::expr::Expr;
use crate::limits::{Limit, MAX_HOPS_ROWS};
use crate::memo::{Found, Key};
use crate::program::Program;
use crate::scope::{Frame, Source, Target};
use crate::values::{self, Items, Seen};
use crate::weight;

/// A compiled `hops`: one or more specs, the output of one being the input of the next.
pub(crate) struct Hops {
    pub(crate) specs: Box<[Spec]>,
}

/// One spec: aliases bound one after the other.
pub(crate) struct Spec {
    /// How many aliases the spec binds.
    pub(crate) aliases: usize,
    /// Conditions that need no alias.
    pub(crate) before: Box<[Expr]>,
    pub(crate) steps: Box<[Step]>,
    pub(crate) recursion: Option<Recursion>,
    pub(crate) returns: Returns,
    /// The place of the call's `trace` among the program's.
    pub(crate) traced: Option<u32>,
}

/// Binds one alias: finds entities, then filters the rows.
pub(crate) struct Step {
    /// The alias, by its place in the row.
    pub(crate) alias: usize,
    pub(crate) access: Access,
    pub(crate) filters: Box<[Filter]>,
}

/// How the entities of an alias are found.
pub(crate) enum Access {
    /// By `_id`, in the dataset at that place of the program's.
    Id(u32, Expr),
    /// By an index of the program.
    Index(u32, Expr),
}

/// A condition on rows.
pub(crate) enum Filter {
    /// Any expression.
    True(Expr),
    /// Both sides share a value.
    Overlap(Expr, Expr),
}

/// `recurse` and what belongs to it.
pub(crate) struct Recursion {
    pub(crate) exclude_root: bool,
    /// How many levels; `None` for no limit.
    pub(crate) max_depth: Option<u64>,
}

/// What a spec returns for a row.
pub(crate) enum Returns {
    /// The entities of these aliases.
    Aliases(Box<[usize]>),
    /// The value of an expression over the aliases.
    Template(Expr),
}

/// A compiled `lookup-entity` or `completeness`.
pub(crate) enum Lookups {
    Entity { dataset: u32, id: Expr },
    Completeness { via: Expr, of: Expr },
}

impl Hops {
    /// Whether something is so for all expressions of all specs.
    pub(crate) fn all(&self, is_so: &dyn Fn(&Expr) -> bool) -> bool {
        self.specs.iter().all(|spec| spec.all(is_so))
    }
}

impl Spec {
    fn all(&self, is_so: &dyn Fn(&Expr) -> bool) -> bool {
        let filter = |filter: &Filter| match filter {
            Filter::True(expr) => is_so(expr),
            Filter::Overlap(a, b) => is_so(a) && is_so(b),
        };
        let step = |step: &Step| {
            let (Access::Id(_, expr) | Access::Index(_, expr)) = &step.access;
            is_so(expr) && step.filters.iter().all(filter)
        };
        let returns = match &self.returns {
            Returns::Aliases(_) => true,
            Returns::Template(expr) => is_so(expr),
        };
        returns && self.before.iter().all(is_so) && self.steps.iter().all(step)
    }
}

impl Lookups {
    /// Whether something is so for all of its expressions.
    pub(crate) fn all(&self, is_so: &dyn Fn(&Expr) -> bool) -> bool {
        match self {
            Lookups::Entity { id, .. } => is_so(id),
            Lookups::Completeness { via, of } => is_so(via) && is_so(of),
        }
    }
}

type Rows = Vec<Vec<Value>>;

/// How many entities a `hops` with `trace` joined.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counted {
    /// In the evaluation at work.
    now: u64,
    /// In one evaluation at the most.
    most: u64,
}

impl Program {
    /// The `trace` of each call of `hops` or `apply-hops` that has one.
    pub fn traced_hops(&self) -> &[String] {
        &self.traced_hops
    }
}

impl Machine<'_> {
    /// The values that a `hops` returns.
    #[inline(never)]
    pub(crate) fn hops(&mut self, hops: &Hops, env: Env<'_>) -> Result<Value, Stop> {
        let traced = hops.specs.last().and_then(|spec| spec.traced);
        // The same call may be at work around this one, where a rule applies itself.
        let around = traced.map(|at| std::mem::take(&mut self.traced_hops[at as usize].now));
        let result = self.chain(hops, env);
        if let (Some(at), Some(around)) = (traced, around) {
            let counted = &mut self.traced_hops[at as usize];
            // Too many may be why it failed.
            counted.most = counted.most.max(counted.now);
            counted.now = around;
        }
        result
    }

    /// Hands over what was joined with the source entity at work.
    pub(crate) fn tell_joined(&self) {
        if let Some(joined) = self.context.joined {
            joined.set(joined.get().with(self.joined));
        }
        let cells = self.context.traced_hops.unwrap_or_default();
        for (cell, counted) in cells.iter().zip(&self.traced_hops) {
            cell.set(cell.get().max(counted.most));
        }
    }

    /// The specs one after the other.
    #[inline(always)]
    fn chain(&mut self, hops: &Hops, env: Env<'_>) -> Result<Value, Stop> {
        let mut input: Option<Items> = None;
        for spec in &hops.specs {
            let output = match (&input, &spec.recursion) {
                (None, None) => self.spec(spec, env)?,
                (None, Some(recursion)) => {
                    let root = self.whole(env.frame.source);
                    self.recurse(spec, recursion, Items::from([root]), env)?
                }
                (Some(entities), Some(recursion)) => {
                    self.recurse(spec, recursion, entities.clone(), env)?
                }
                (Some(entities), None) => self.for_each(spec, entities, env)?,
            };
            input = Some(output);
        }
        Ok(Value::List(input.unwrap_or_default()))
    }

    /// One spec for each of many sources, in their order.
    fn for_each(&mut self, spec: &Spec, sources: &[Value], env: Env<'_>) -> Result<Items, Stop> {
        let mut output = Items::new();
        for source in sources {
            self.step(1)?;
            let frame = Frame {
                source: Source::Value(source),
                target: Target::new(),
                parent: Some(env.frame),
            };
            let inner = Env {
                frame: &frame,
                current: env.current,
                aliases: env.aliases,
            };
            output.extend(self.spec(spec, inner)?);
        }
        Ok(output)
    }

    /// The spec's output fed to itself, breadth first, until nothing new comes.
    fn recurse(
        &mut self,
        spec: &Spec,
        recursion: &Recursion,
        roots: Items,
        env: Env<'_>,
    ) -> Result<Items, Stop> {
        let mut seen = Seen::default();
        let mut output = Items::new();
        for root in &roots {
            let identity = identity(root);
            self.weigh_key(&identity)?;
            seen.insert(&identity);
            if !recursion.exclude_root {
                output.push(root.clone());
            }
        }
        let mut level = roots;
        let mut depth = 0;
        while !level.is_empty() && recursion.max_depth.is_none_or(|most| depth < most) {
            let found = self.for_each(spec, &level, env)?;
            level = Items::new();
            for entity in found {
                let identity = identity(&entity);
                self.weigh_key(&identity)?;
                if seen.insert(&identity) {
                    level.push(entity);
                }
            }
            output.extend(level.iter().cloned());
            depth += 1;
        }
        Ok(output)
    }

    fn spec(&mut self, spec: &Spec, env: Env<'_>) -> Result<Items, Stop> {
        let mut row = env.aliases.to_vec();
        row.resize(env.aliases.len() + spec.aliases, Value::Null);
        for condition in &spec.before {
            if !self.truth(
                condition,
                Env {
                    aliases: &row,
                    ..env
                },
            )? {
                return Ok(Items::new());
            }
        }
        let mut rows = vec![row];
        for step in &spec.steps {
            rows = self.bind(step, rows, env)?;
        }
        self.count_joined(spec, &rows)?;
        let mut output = Items::new();
        for row in &rows {
            match &spec.returns {
                Returns::Aliases(aliases) => {
                    output.extend(aliases.iter().map(|&alias| row[alias].clone()));
                }
                Returns::Template(expr) => {
                    output.push(self.eval(
                        expr,
                        Env {
                            aliases: row,
                            ..env
                        },
                    )?);
                }
            }
        }
        Ok(output)
    }

    /// Counts what was joined with the source entity at work.
    fn count_joined(&mut self, spec: &Spec, rows: &[Vec<Value>]) -> Result<(), Stop> {
        let found = rows.len() as u64;
        self.joined.rows += found;
        let entities = found * spec.steps.len() as u64;
        self.joined.most += entities;
        if let Some(at) = spec.traced {
            self.traced_hops[at as usize].now += entities;
        }
        let Some(most) = self.context.most_joined else {
            return Ok(());
        };
        if self.joined.most > most.entities {
            let what = "entities joined with one (`enable_hops_thresholds`)";
            return Err(Limit(what, most.entities).into());
        }
        for row in rows {
            for step in &spec.steps {
                let left = most.bytes.saturating_sub(self.joined.most_bytes) as usize;
                let bytes = weight::whole(&row[step.alias], left.saturating_add(1));
                self.joined.most_bytes += bytes as u64;
                if self.joined.most_bytes > most.bytes {
                    let what = "bytes of entities joined with one (`enable_hops_thresholds`)";
                    return Err(Limit(what, most.bytes).into());
                }
            }
        }
        Ok(())
    }

    fn bind(&mut self, step: &Step, rows: Rows, env: Env<'_>) -> Result<Rows, Stop> {
        let mut bound = Vec::new();
        for row in rows {
            for entity in self.find(
                &step.access,
                Env {
                    aliases: &row,
                    ..env
                },
            )? {
                self.step(1)?;
                let mut row = row.clone();
                row[step.alias] = entity;
                if !self.passes(
                    &step.filters,
                    Env {
                        aliases: &row,
                        ..env
                    },
                )? {
                    continue;
                }
                if bound.len() >= MAX_HOPS_ROWS {
                    let most = MAX_HOPS_ROWS as u64;
                    return Err(Limit("rows in one hops", most).into());
                }
                bound.push(row);
            }
        }
        Ok(bound)
    }

    fn passes(&mut self, filters: &[Filter], env: Env<'_>) -> Result<bool, Stop> {
        for filter in filters {
            let passes = match filter {
                Filter::True(expr) => self.truth(expr, env)?,
                Filter::Overlap(a, b) => {
                    let (a, b) = (self.eval(a, env)?, self.eval(b, env)?);
                    self.weigh_key(&a)?;
                    self.weigh_key(&b)?;
                    overlap(&a, &b)
                }
            };
            if !passes {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The entities that share a key, each once, in the order of `_id`.
    fn find(&mut self, access: &Access, env: Env<'_>) -> Result<Found, Stop> {
        let (Access::Id(_, expr) | Access::Index(_, expr)) = access;
        let keys = self.eval(expr, env)?;
        self.weigh_key(&keys)?;
        let mut found = Found::new();
        let mut asked = Seen::default();
        let mut lists = 0;
        for key in values::items(&keys) {
            if key.is_null() || !asked.insert(key) {
                continue;
            }
            let list = match access {
                Access::Index(index, _) => self.memo.join(*index, key),
                Access::Id(dataset, _) => match key {
                    Value::String(id) => {
                        self.memo.get(Key::Id(*dataset, id.clone()), || Value::Null)
                    }
                    _ => None,
                },
            };
            if let Some(list) = list.filter(|list| !list.is_empty()) {
                lists += 1;
                if lists == 1 {
                    found = list;
                } else {
                    found.extend_from_slice(&list);
                }
            }
        }
        if lists > 1 {
            let mut all: Vec<Value> = found.into_iter().collect();
            all.sort_by(|a, b| id_of(a).cmp(&id_of(b)));
            all.dedup_by(|a, b| id_of(a) == id_of(b));
            found = all.into();
        }
        Ok(found)
    }

    /// The value of a `lookup-entity` or `completeness`.
    #[inline(never)]
    pub(crate) fn lookup(&mut self, lookups: &Lookups, env: Env<'_>) -> Result<Value, Stop> {
        match lookups {
            Lookups::Entity { dataset, id } => {
                let ids = self.eval(id, env)?;
                values::lift(&ids, |id| {
                    let Value::String(id) = id else {
                        return Ok(None);
                    };
                    let found = self.memo.get(Key::Id(*dataset, id.clone()), || Value::Null);
                    Ok(found.and_then(|found| found.first().cloned()))
                })
            }
            Lookups::Completeness { via, of } => {
                let (via, of) = (self.eval(via, env)?, self.eval(of, env)?);
                let (Value::String(via), Value::String(of)) = (via, of) else {
                    return Ok(Value::Null);
                };
                let found = self.memo.get(Key::Completeness(via, of), || Value::Null);
                let found = found.and_then(|found| found.first().cloned());
                Ok(match found {
                    Some(Value::Dict(dict)) => {
                        dict.get("completeness").cloned().unwrap_or_default()
                    }
                    _ => Value::Null,
                })
            }
        }
    }
}

/// Whether two values share an item that is not null.
pub(crate) fn overlap(a: &Value, b: &Value) -> bool {
    let (a, b) = (values::items(a), values::items(b));
    let seen = Seen::of(a);
    b.iter().any(|item| !item.is_null() && seen.contains(item))
}

fn id_of(entity: &Value) -> Option<&str> {
    match entity {
        Value::Dict(dict) => dict.get("_id").and_then(Value::as_str),
        _ => None,
    }
}

/// What makes an entity the same one for recursion: its `_id`, or all of it.
fn identity(entity: &Value) -> Value {
    match entity {
        Value::Dict(dict) => dict
            .get("_id")
            .cloned()
            .unwrap_or_else(|| Value::Dict(Dict::clone(dict))),
        other => other.clone(),
    }
}
