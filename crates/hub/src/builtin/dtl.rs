//! The `dtl` transform: rules, compiled once a run.

use std::sync::Arc;

use tahini_dtl::{Context, EvalClass, NoLookup, Options, Program, TriggerOn};
use tahini_entity::Batch;
use tahini_entity::json::{self, Numbers};

use crate::config::{Kind, Property, dtl_options};
use crate::registry::TransformDef;
use crate::{Cancel, Class, Clock, Ctx, Failure, Transform};

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
    open,
};

struct Dtl {
    program: Program,
    clock: Arc<dyn Clock>,
    cancel: Cancel,
}

fn open(ctx: &Ctx<'_>) -> Result<Box<dyn Transform>, Failure> {
    let rules = ctx
        .props
        .get("rules")
        .ok_or_else(|| ctx.props.wrong("rules", "rules", None))?;
    let options = Options {
        trigger_on: trigger(ctx)?,
        ..dtl_options(ctx.whole.map(), ctx.props.map())
    };
    let program = tahini_dtl::compile(rules, &options).map_err(|problems| {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::config(format!("{}: {}", ctx.props.path(), words.join("; ")))
    })?;
    let (clock, cancel) = (Arc::clone(ctx.clock), ctx.cancel.clone());
    Ok(Box::new(Dtl {
        program,
        clock,
        cancel,
    }))
}

/// `trigger_on`: a key (`_trigger` by default) and the value it must have.
fn trigger(ctx: &Ctx<'_>) -> Result<Option<TriggerOn>, Failure> {
    let Some(config) = ctx.props.get("trigger_on") else {
        return Ok(None);
    };
    let wrong = || {
        ctx.props.wrong(
            "trigger_on",
            "an object with `key` and `value`",
            Some(config),
        )
    };
    let map = config.as_object().ok_or_else(wrong)?;
    let key = map
        .get("key")
        .map_or(Some("_trigger"), serde_json::Value::as_str);
    let value = map.get("value").ok_or_else(wrong)?;
    Ok(Some(TriggerOn {
        key: key.ok_or_else(wrong)?.to_owned(),
        value: json::from_config(value, Numbers::default()),
    }))
}

impl Transform for Dtl {
    fn apply(
        &mut self,
        input: &Batch,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), Failure> {
        let pause = |pause| self.cancel.sleep(pause).is_ok();
        let context = Context {
            pause: Some(&pause),
            ..Context::new(self.clock.now(), &NoLookup)
        };
        self.program
            .transform(input, &context, out, origins)
            .map_err(|error| {
                self.cancel.check().err().unwrap_or_else(|| {
                    let class = match error.class {
                        EvalClass::Lookup => Class::Transient,
                        _ => Class::Entity,
                    };
                    let failure = Failure::new(class, error.to_string());
                    match input.iter().nth(error.position) {
                        Some(record) => failure.with_entity(record.to_entity()),
                        None => failure,
                    }
                })
            })
    }
}
