//! Rules whose statements follow each other whatever an entity holds.
//!
//! Which properties such rules leave, in which order and where each of them comes from depends on
//! nothing but the names of the source. So it is worked out once for each shape, and an entity
//! costs its expressions and the copying of what is left. Rules with branches, computed names or
//! views of the target go statement by statement instead (see `run`).

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tahini_entity::{Shape, Str, Value};

use crate::eval::{Env, Machine, Stop};
use crate::expr::{Action, Expr, Name, NameArg, Statement};
use crate::path::Root;
use crate::program::Program;
use crate::results::is_reserved;
use crate::scope::{BOOKKEEPING, Frame, Row, Source, Target};

/// Entities of one shape that go statement by statement before a plan is made for the others.
const BEFORE: u32 = 4;
/// Shapes that are remembered.
const MAX_SHAPES: usize = 1024;

/// The default rule for the entities of one shape.
pub(crate) struct Plan<'p> {
    steps: Vec<Step<'p>>,
    end: Layout,
}

enum Step<'p> {
    /// Gives the next value. As an `_id` it takes its namespace.
    Value {
        at: u32,
        expr: &'p Expr,
        is_id: bool,
    },
    /// `filter`, with what the target is when it stops the entity, or `discard`.
    Unless {
        at: u32,
        condition: Option<&'p Expr>,
        filtered: Option<Layout>,
    },
    /// A statement that only shapes the layout.
    Settled,
}

/// Where the properties of a target come from.
pub(crate) struct Layout {
    /// The names of the properties.
    pub(crate) shape: Arc<Shape>,
    /// For each of them, its value.
    pub(crate) parts: Vec<Part>,
    /// For each of them, how many from there on stand side by side in the source.
    pub(crate) runs: Vec<usize>,
    /// Reserved fields, in the order in which they were set.
    pub(crate) reserved: Vec<(Str, Part)>,
    /// Bookkeeping fields that are taken over, by `BOOKKEEPING`.
    pub(crate) carried: u8,
}

impl Layout {
    /// Whether no rule sets a reserved field: the `_id` is the source's own.
    pub(crate) fn is_usual(&self) -> bool {
        matches!(&*self.reserved, [(name, Part::Id)] if name == "_id")
    }
}

/// Where one value of a target comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A place of the source's shape.
    Source(usize),
    /// One of the values that were computed.
    Value(usize),
    /// The source's `_id`.
    Id,
    /// The source's `_deleted`, which is true.
    Deleted,
}

/// The plans of an evaluation.
#[derive(Default)]
pub(crate) struct Plans<'p> {
    known: HashMap<Key, Known<'p>>,
    recent: Option<(Key, Rc<Plan<'p>>)>,
}

/// The address of a shape, which `Known` holds on to; whether there is an `_id`; `_deleted`.
type Key = (usize, bool, bool);

struct Known<'p> {
    _shape: Arc<Shape>,
    met: u32,
    plan: Option<Rc<Plan<'p>>>,
}

impl<'p> Plans<'p> {
    /// The plan for a row, if it is time to have one.
    pub(crate) fn of(&mut self, program: &'p Program, row: &Row<'_>) -> Option<Rc<Plan<'p>>> {
        let address = Arc::as_ptr(row.shape).addr();
        let key = (address, row.id.is_some(), row.meta.deleted);
        if let Some((recent, plan)) = &self.recent
            && *recent == key
        {
            return Some(Rc::clone(plan));
        }
        if self.known.len() >= MAX_SHAPES && !self.known.contains_key(&key) {
            self.known.clear();
        }
        let known = self.known.entry(key).or_insert_with(|| Known {
            _shape: Arc::clone(row.shape),
            met: 0,
            plan: None,
        });
        known.met += 1;
        if known.met > BEFORE && known.plan.is_none() {
            known.plan = Plan::of(program, row).map(Rc::new);
        }
        let plan = Rc::clone(known.plan.as_ref()?);
        self.recent = Some((key, Rc::clone(&plan)));
        Some(plan)
    }
}

impl<'p> Plan<'p> {
    fn of(program: &'p Program, row: &Row<'_>) -> Option<Plan<'p>> {
        let mut draft = Draft::inherit(row);
        let mut steps = Vec::new();
        for statement in &program.rules[program.default] {
            steps.push(draft.statement(statement, program)?);
        }
        Some(Plan {
            steps,
            end: draft.layout(),
        })
    }
}

impl<'m> Machine<'m> {
    /// Evaluates what the plan wants to know into `values`; what is left then, and whether a
    /// filter stopped the entity there.
    ///
    /// # Errors
    /// As `run`, except that a filter is no error.
    pub(crate) fn follow<'q>(
        &mut self,
        plan: &'q Plan<'_>,
        row: &Row<'_>,
        values: &mut Vec<Value>,
    ) -> Result<(&'q Layout, bool), Stop> {
        values.clear();
        let frame = Frame {
            source: Source::Row(row),
            target: Target::new(),
            parent: None,
        };
        for step in &plan.steps {
            self.step(1)?;
            match step {
                Step::Value { at, expr, is_id } => {
                    self.at = *at;
                    let value = self.eval(expr, Env::of(&frame))?;
                    values.push(match is_id {
                        true => self.program.naming.identity(value),
                        false => value,
                    });
                }
                Step::Unless {
                    at,
                    condition,
                    filtered,
                } => {
                    self.at = *at;
                    let passes = match condition {
                        Some(condition) => self.truth(condition, Env::of(&frame))?,
                        None => false,
                    };
                    match filtered {
                        _ if passes => {}
                        Some(layout) => return Ok((layout, true)),
                        None => return Err(Stop::Discarded),
                    }
                }
                Step::Settled => {}
            }
        }
        Ok((&plan.end, false))
    }
}

/// A target of which only the origins of its properties are known.
struct Draft<'r> {
    row: &'r Row<'r>,
    entries: Vec<(Str, Part)>,
    carried: u8,
    values: usize,
}

impl<'r> Draft<'r> {
    fn inherit(row: &'r Row<'_>) -> Draft<'r> {
        let mut entries = Vec::new();
        if row.id.is_some() {
            entries.push(("_id".into(), Part::Id));
        }
        if row.meta.deleted {
            entries.push(("_deleted".into(), Part::Deleted));
        }
        Draft {
            row,
            entries,
            carried: 0,
            values: 0,
        }
    }

    fn set(&mut self, name: &Str, part: Part) {
        match self.entries.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = part,
            None => self.entries.push((name.clone(), part)),
        }
    }

    /// What a statement does; `None` for one that a plan cannot hold.
    fn statement<'p>(&mut self, statement: &'p Statement, program: &Program) -> Option<Step<'p>> {
        let at = statement.at;
        match &statement.action {
            Action::Add(Name::Known(name), expr) => return Some(self.value(at, name, expr)),
            Action::Default(Name::Known(name), expr) => {
                if !self.entries.iter().any(|(known, _)| known == name) {
                    return Some(self.value(at, name, expr));
                }
            }
            Action::Copy(copying) => {
                if copying.takes("_id") && self.row.id.is_some() {
                    self.set(&"_id".into(), Part::Id);
                }
                if copying.takes("_deleted") && self.row.meta.deleted {
                    self.set(&"_deleted".into(), Part::Deleted);
                }
                for (bit, name) in BOOKKEEPING.iter().enumerate() {
                    self.carried |= u8::from(copying.takes(name)) << bit;
                }
                for (place, name) in self.row.shape.names().iter().enumerate() {
                    if copying.takes(name) {
                        self.set(name, Part::Source(place));
                    }
                }
            }
            Action::Remove(patterns) => {
                let matches = |name: &str| patterns.iter().any(|pattern| pattern.matches(name));
                self.entries.retain(|(name, _)| !matches(name));
                for (bit, name) in BOOKKEEPING.iter().enumerate() {
                    self.carried &= !(u8::from(matches(name)) << bit);
                }
            }
            Action::Rename {
                from: NameArg::Known(from),
                to: NameArg::Known(to),
            } if !program.naming.on && !is_reserved(from) => {
                if let Some(place) = self.row.shape.position(from) {
                    self.set(to, Part::Source(place));
                }
            }
            Action::Filter(condition) => {
                return Some(Step::Unless {
                    at,
                    condition: condition.as_ref(),
                    filtered: Some(self.layout()),
                });
            }
            Action::Discard(condition) => {
                return Some(Step::Unless {
                    at,
                    condition: condition.as_ref(),
                    filtered: None,
                });
            }
            Action::Nothing => {}
            _ => return None,
        }
        Some(Step::Settled)
    }

    fn value<'p>(&mut self, at: u32, name: &Str, expr: &'p Expr) -> Step<'p> {
        self.set(name, Part::Value(self.values));
        self.values += 1;
        Step::Value {
            at,
            expr,
            is_id: name == "_id",
        }
    }

    fn layout(&self) -> Layout {
        let (reserved, properties): (Vec<_>, Vec<_>) = self
            .entries
            .iter()
            .cloned()
            .partition(|(name, _)| is_reserved(name));
        let parts: Vec<Part> = properties.iter().map(|(_, part)| *part).collect();
        let mut runs = vec![1; parts.len()];
        for at in (1..parts.len()).rev() {
            if self.is_beside(&properties[at - 1], &properties[at]) {
                runs[at - 1] = runs[at] + 1;
            }
        }
        Layout {
            shape: Arc::new(Shape::new(properties.into_iter().map(|(name, _)| name))),
            parts,
            runs,
            reserved,
            carried: self.carried,
        }
    }

    /// Whether two properties stand side by side, under the same names, in the source.
    fn is_beside(&self, (a, before): &(Str, Part), (b, behind): &(Str, Part)) -> bool {
        let (Part::Source(first), Part::Source(second)) = (*before, *behind) else {
            return false;
        };
        let names = self.row.shape.names();
        let unbroken = self
            .row
            .line()
            .is_none_or(|line| line.is_run(first, second));
        second == first + 1 && names[first] == *a && names[second] == *b && unbroken
    }
}

/// Whether a program's default rule can have plans: its statements are of the kinds that they
/// hold, and no expression looks at a target that does not exist then.
pub(crate) fn is_straight(program: &Program) -> bool {
    let Some(rule) = program.rules.get(program.default) else {
        return false;
    };
    let blind = |statement: &Statement| sees_no_target(&statement.action);
    if !rule.iter().all(blind) {
        return false;
    }
    // An applied rule has a target of its own; what is above it is the default rule's.
    let others = program.rules.iter().enumerate();
    let mut others = others.filter(|(at, _)| *at != program.default);
    others.all(|(_, block)| {
        block
            .iter()
            .all(|statement| stays_inside(&statement.action))
    })
}

/// Of a statement of the default rule that a plan can hold.
fn sees_no_target(action: &Action) -> bool {
    match action {
        Action::Add(Name::Known(_), expr) | Action::Default(Name::Known(_), expr) => {
            is_blind(expr, false)
        }
        Action::Filter(condition) | Action::Discard(condition) => {
            condition.as_ref().is_none_or(|expr| is_blind(expr, false))
        }
        Action::Copy(_) | Action::Remove(_) | Action::Nothing => true,
        Action::Rename {
            from: NameArg::Known(_),
            to: NameArg::Known(_),
        } => true,
        _ => false,
    }
}

/// Of a statement of an applied rule: it looks at no target but its own.
fn stays_inside(action: &Action) -> bool {
    let name = |name: &Name| match name {
        Name::Known(_) => true,
        Name::Dynamic(expr) => is_blind(expr, true),
    };
    let arg = |arg: &NameArg| match arg {
        NameArg::Known(_) => true,
        NameArg::Dynamic(expr) => is_blind(expr, true),
    };
    let block = |block: &[Statement]| block.iter().all(|inner| stays_inside(&inner.action));
    let expr = |expr: &Expr| is_blind(expr, true);
    match action {
        Action::Add(to, value) | Action::Default(to, value) => name(to) && expr(value),
        Action::AddIf {
            name: to,
            condition,
            value,
        } => name(to) && condition.as_ref().is_none_or(expr) && expr(value),
        Action::Copy(_) | Action::Remove(_) | Action::Nothing => true,
        Action::Rename { from, to } => arg(from) && arg(to),
        Action::MakeNi {
            namespace,
            from,
            to,
        } => expr(namespace) && arg(from) && to.as_ref().is_none_or(arg),
        Action::Merge(value)
        | Action::MergeUnion(value)
        | Action::Create(value)
        | Action::CreateChild(value)
        | Action::Fail(value)
        | Action::Trip(value)
        | Action::Sleep(value) => expr(value),
        Action::If {
            condition,
            then,
            otherwise,
        } => expr(condition) && block(then) && block(otherwise),
        Action::Case { arms, otherwise } => {
            arms.iter().all(|(when, then)| expr(when) && block(then)) && block(otherwise)
        }
        Action::CaseEq {
            value,
            arms,
            otherwise,
        } => {
            let arms = arms.iter().all(|(when, then)| expr(when) && block(then));
            expr(value) && arms && block(otherwise)
        }
        Action::Filter(condition) | Action::Discard(condition) => {
            condition.as_ref().is_none_or(expr)
        }
        _ => false,
    }
}

/// Whether an expression looks at no target; `own` allows that of the rule which it is part of.
fn is_blind(expr: &Expr, own: bool) -> bool {
    let all = |exprs: &[Expr]| exprs.iter().all(|expr| is_blind(expr, own));
    match expr {
        Expr::Absent | Expr::Const(_) | Expr::Now | Expr::NewUuid => true,
        Expr::Path(path) => match path.root {
            Root::Target(up) => own && up == 0,
            Root::Parent(_) | Root::Outer | Root::OuterTarget => false,
            Root::Source(_)
            | Root::OuterSource
            | Root::Parameters
            | Root::Current
            | Root::Alias(_) => true,
        },
        Expr::Each(_, arg)
        | Expr::Test(_, arg)
        | Expr::Apply(_, arg)
        | Expr::Follow(_, arg)
        | Expr::ApplyNs(_, arg)
        | Expr::Collapse(_, arg) => is_blind(arg, own),
        Expr::With(_, _, args) | Expr::Eager(_, _, args) | Expr::Form(_, args) => all(args),
        Expr::Cast(_, arg, otherwise) => is_blind(arg, own) && is_blind(otherwise, own),
        Expr::FollowDynamic(names, arg) => is_blind(names, own) && is_blind(arg, own),
        Expr::Hops(hops) | Expr::ApplyHops(_, hops) => hops.all(&|expr| is_blind(expr, own)),
        Expr::Lookup(lookups) => lookups.all(&|expr| is_blind(expr, own)),
        Expr::IsChanged(_) | Expr::Traced(..) => false,
    }
}
