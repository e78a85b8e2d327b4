//! The `dtl` transform: rules, compiled once a run.

use std::cell::Cell;
use std::sync::Arc;

use serde_json::Value as Json;
use tahini_dtl::{
    Context, EvalClass, EvalError, Joined, JsonPath, MostJoined, Options, Problem, Program,
    TriggerOn,
};
use tahini_entity::json::{self, Numbers, Opened};
use tahini_entity::{Batch, Entity};

use crate::config::{Kind, Property, dtl_options, trigger_on};
use crate::dependency::Limits;
use crate::lookup::Datasets;
use crate::registry::TransformDef;
use crate::{Cancel, Class, Clock, Ctx, Failure, Fault, Transform};

pub(super) const DEF: TransformDef = TransformDef {
    name: "dtl",
    summary: "Reshapes entities by rules in DTL.",
    properties: &[
        Property::required(
            "rules",
            Kind::Rules,
            "The rules; `default` is applied first.",
        ),
        Property::new("id_required", Kind::Boolean, "Entities must have an `_id`.").or("true"),
        Property::new(
            "trigger_on",
            Kind::Any,
            "Only these entities are transformed.",
        ),
        Property::new(
            "side_effects",
            Kind::Boolean,
            "Whether the rules do anything outside.",
        ),
    ],
    stands_for: None,
    open,
};

struct Dtl {
    program: Program,
    pipe: String,
    place: JsonPath,
    clock: Arc<dyn Clock>,
    cancel: Cancel,
    lookup: Datasets,
    joined: Cell<Joined>,
    traced_hops: Vec<Cell<u64>>,
    most_joined: Option<MostJoined>,
}

fn open(ctx: &Ctx<'_>) -> Result<Box<dyn Transform>, Failure> {
    let program = program(ctx, tahini_dtl::compile)?;
    let (clock, cancel) = (Arc::clone(ctx.clock), ctx.cancel.clone());
    let limits = Limits::of_pipe(ctx.whole)?;
    Ok(Box::new(Dtl {
        traced_hops: vec![Cell::default(); program.traced_hops().len()],
        program,
        pipe: ctx.owner.to_owned(),
        place: ctx.place.clone(),
        clock,
        cancel,
        lookup: Datasets::of(ctx),
        joined: Cell::default(),
        most_joined: limits.of_hops.then_some(MostJoined {
            entities: limits.error,
            bytes: limits.error_bytes,
        }),
    }))
}

/// Compiles the rules of a transform.
pub(crate) fn program(
    ctx: &Ctx<'_>,
    compile: fn(&Json, &Options) -> Result<Program, Vec<Problem>>,
) -> Result<Program, Failure> {
    let rules = ctx
        .props
        .get("rules")
        .ok_or_else(|| ctx.props.wrong("rules", "rules", None))?;
    let options = Options {
        trigger_on: trigger(ctx)?,
        ..dtl_options(ctx.whole.map(), ctx.props.map())
    };
    compile(rules, &options).map_err(|problems| {
        let told = |problem: &Problem| {
            let path = ctx.place.join(&problem.path);
            format!("{path}: {}", problem.message)
        };
        let words: Vec<String> = problems.iter().map(told).collect();
        Failure::config(words.join("; "))
    })
}

fn trigger(ctx: &Ctx<'_>) -> Result<Option<TriggerOn>, Failure> {
    trigger_on(ctx.props.map()).map_err(|(name, words)| {
        let inner = name.map(|name| format!(".{name}")).unwrap_or_default();
        Failure::config(format!("{}.trigger_on{inner}: {words}", ctx.props.path()))
    })
}

impl Transform for Dtl {
    fn apply(
        &mut self,
        input: &Batch,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), Failure> {
        let pause = |pause| self.cancel.sleep(pause).is_ok();
        let stopped = || self.cancel.is_cancelled();
        let mut context = Context::new(self.clock.now(), &self.lookup);
        context.pause = Some(&pause);
        context.stopped = Some(&stopped);
        context.joined = Some(&self.joined);
        context.traced_hops = Some(&self.traced_hops);
        context.most_joined = self.most_joined;
        let result = self.program.transform(input, &context, out, origins);
        result.map_err(|error| {
            let record = input.iter().nth(error.position);
            self.failure(&error, || record.map(|record| record.to_entity()))
        })
    }

    fn joined(&self) -> Option<Joined> {
        let joins = !self.program.reads().is_empty();
        joins.then(|| self.joined.get())
    }

    fn traced_hops(&self) -> Vec<(&str, u64)> {
        let names = self.program.traced_hops().iter().map(String::as_str);
        names.zip(self.traced_hops.iter().map(Cell::get)).collect()
    }

    fn apply_lines(
        &mut self,
        opened: &Opened,
        buffer: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Result<(), Failure>> {
        if !self.program.takes_lines() {
            return None;
        }
        let pause = |pause| self.cancel.sleep(pause).is_ok();
        let stopped = || self.cancel.is_cancelled();
        let mut context = Context::new(self.clock.now(), &self.lookup);
        context.pause = Some(&pause);
        context.stopped = Some(&stopped);
        let lines = opened.lines(buffer);
        let result = self.program.transform_lines(lines, &context, out);
        Some(result.map_err(|error| {
            let line = opened.lines(buffer).nth(error.position);
            let text = line.map(|line| line.text());
            self.failure(&error, || json::parse_entity(text?, Numbers::FLOATS).ok())
        }))
    }
}

impl Dtl {
    fn failure(&self, error: &EvalError, entity: impl FnOnce() -> Option<Entity>) -> Failure {
        self.cancel.check().err().unwrap_or_else(|| {
            let class = match error.class {
                EvalClass::Lookup => Class::Transient,
                // The rules say that the pump fails, not that this entity does.
                EvalClass::Fail => Class::Fatal,
                EvalClass::Trip => Class::Tripped,
                EvalClass::Cancelled => Class::Cancelled,
                EvalClass::Id | EvalClass::Limit => Class::Entity,
            };
            let fault = Fault::of(error, &self.place);
            let failure = Failure::new(class, fault.told(&self.pipe)).with_fault(fault);
            match entity() {
                Some(entity) => failure.with_entity(entity),
                None => failure,
            }
        })
    }
}
