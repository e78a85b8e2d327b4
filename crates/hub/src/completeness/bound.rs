//! How far a dataset source may read (`completeness`, `initial_completeness`).

use serde_json::{Map, Value as Json, json};
use tahini_dtl::{Context, Options, Problem, Program, compile};
use tahini_entity::{Batch, Entity, Record, Value};

use super::value_in;
use crate::config::dtl_options;
use crate::lookup::Datasets;
use crate::{Ctx, Failure};

/// The property of the throw-away entity that an expression is evaluated into.
const RESULT: &str = "value";
/// Where the path of an expression begins within the rules that it is compiled in.
pub(crate) const EXPRESSION_DEPTH: usize = 3;

/// Up to where a source may read.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The newest `_ts` that may be read; `None` lets nothing through.
    pub(crate) until: Option<i64>,
    /// What it waits for.
    pub(crate) words: String,
}

impl Bound {
    /// What the configuration of a source of `dataset` says, with the values as they are now: this
    /// comes before anything is read. `None` lets everything through.
    ///
    /// # Errors
    /// Config, when a property is not what the manual says; when a dataset cannot be read.
    pub(crate) fn of(ctx: &Ctx<'_>, dataset: &str) -> Result<Option<Bound>, Failure> {
        for name in ctx.props.datasets("initial_completeness")? {
            if value_in(ctx, name, name)?.is_none() {
                return Ok(Some(Bound {
                    until: None,
                    words: format!(
                        "dataset {name:?} has no completeness yet (`initial_completeness`)"
                    ),
                }));
            }
        }
        match ctx.props.get("completeness") {
            None | Some(Json::Bool(false)) => Ok(None),
            Some(Json::Bool(true)) => Bound::least(ctx, dataset, &[dataset]).map(Some),
            Some(Json::Array(list)) if list.is_empty() => Ok(None),
            Some(Json::Array(_)) => {
                let names = ctx.props.datasets("completeness")?;
                Bound::least(ctx, dataset, &names).map(Some)
            }
            Some(Json::Object(map)) if map.is_empty() => Ok(None),
            Some(Json::Object(map)) => Bound::evaluated(ctx, map).map(Some),
            Some(other) => Err(ctx.props.wrong("completeness", EXPECTED, Some(other))),
        }
    }

    /// The smallest value of `names` as they are known through `dataset`; one that it has not heard
    /// of is asked itself.
    fn least(ctx: &Ctx<'_>, dataset: &str, names: &[&str]) -> Result<Bound, Failure> {
        let mut least: Option<(i64, &str)> = None;
        for name in names {
            let heard = match value_in(ctx, dataset, name)? {
                Some(value) => Some(value),
                None if is_joined(ctx, name) => value_in(ctx, name, name)?,
                None => None,
            };
            let Some(value) = heard else {
                return Ok(Bound {
                    until: None,
                    words: match *name == dataset {
                        true => format!("dataset {name:?} has no completeness yet"),
                        false => {
                            format!("dataset {dataset:?} knows no completeness of {name:?} yet")
                        }
                    },
                });
            };
            if least.is_none_or(|(known, _)| value < known) {
                least = Some((value, name));
            }
        }
        Ok(Bound {
            until: least.map(|(value, _)| value),
            words: least.map_or_else(String::new, |(value, name)| {
                format!("the completeness of dataset {name:?} is {}", moment(value))
            }),
        })
    }

    fn evaluated(ctx: &Ctx<'_>, map: &Map<String, Json>) -> Result<Bound, Failure> {
        let Some(json) = map.get("expression") else {
            return Err(ctx.props.wrong("completeness", EXPECTED, None));
        };
        let options = dtl_options(ctx.whole.map(), &Default::default());
        let program = expression(json, &options).map_err(|problems| {
            let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Failure::config(format!(
                "{}.completeness.expression: {}",
                ctx.props.path(),
                words.join("; ")
            ))
        })?;
        let lookup = Datasets::of(ctx);
        let context = Context::new(ctx.clock.now(), &lookup);
        let (mut input, mut out, mut origins) = (Batch::new(), Batch::new(), Vec::new());
        let pushed = input.push_entity(&Entity::default());
        pushed.map_err(|error| Failure::fatal(error.to_string()))?;
        program
            .transform(&input, &context, &mut out, &mut origins)
            .map_err(|error| {
                Failure::transient(format!("{}.completeness: {error}", ctx.props.path()))
            })?;
        let value = out.iter().next().and_then(|record| record.value(RESULT));
        // Documented: what is no datetime means the beginning of time.
        let until = match value {
            Some(Value::Datetime(at)) => at.as_nanosecond().div_euclid(1_000),
            _ => 0,
        };
        let until = i64::try_from(until).unwrap_or(i64::MAX);
        Ok(Bound {
            until: Some(until),
            words: format!("the expression in `completeness` gives {}", moment(until)),
        })
    }

    /// Whether a version is too new.
    pub(crate) fn holds(&self, record: Record<'_>) -> bool {
        self.until.is_none_or(|until| record.meta.ts > until)
    }

    /// Why what comes now does not come yet.
    pub(crate) fn told(&self, dataset: &str) -> String {
        format!(
            "entities of dataset {dataset:?} are held back: {}",
            self.words
        )
    }
}

const EXPECTED: &str = "true, false, a list of datasets, or an object with an \"expression\"";

/// Compiles the expression of `completeness`; paths of problems begin `EXPRESSION_DEPTH` steps
/// above it.
pub(crate) fn expression(json: &Json, options: &Options) -> Result<Program, Vec<Problem>> {
    let rules = json!({ "default": [["add", RESULT, json]] });
    let options = Options {
        id_required: false,
        ..options.clone()
    };
    compile(&rules, &options)
}

/// Whether the rules of the source's pipe read `dataset`.
fn is_joined(ctx: &Ctx<'_>, dataset: &str) -> bool {
    ctx.joined.iter().any(|read| read.dataset == dataset)
}

fn moment(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros)
        .map_or_else(|_| micros.to_string(), |at| format!("{at:.6}"))
}
