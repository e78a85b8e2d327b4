//! `/api/env`: the variables that configuration refers to as `$ENV(name)`.

use serde_json::{Map, Value as Json};

use super::answer::json_answer;
use super::call::kind_of;
use super::config::change;
use super::{Answer, Call, Node, Problem};
use crate::configuration::Judge;

/// All variables.
pub fn show(node: &Node, _: &Call) -> Answer {
    json_answer(&Json::Object(node.stored.held().env))
}

/// Replaces all variables. Components that then lack one are marked, not refused: clients set
/// the variables before the configuration that goes with them.
pub fn replace(node: &Node, call: &Call) -> Answer {
    let variables = posted(call)?;
    change(node, call, Judge::Nothing, |held| held.env = variables)?;
    show(node, call)
}

/// Adds variables, or overwrites those of the same name.
pub fn add(node: &Node, call: &Call) -> Answer {
    let variables = posted(call)?;
    change(node, call, Judge::Nothing, |held| {
        held.env.extend(variables)
    })?;
    show(node, call)
}

/// Takes a variable away.
pub fn delete(node: &Node, call: &Call) -> Answer {
    let name = call.id("env_var");
    if !node.stored.held().env.contains_key(name) {
        return Err(Problem::missing("variable", name));
    }
    change(node, call, Judge::Nothing, |held| {
        held.env.shift_remove(name);
    })?;
    show(node, call)
}

/// The variables of a body: an object, or a list of objects.
fn posted(call: &Call) -> Result<Map<String, Json>, Problem> {
    let list = match call.json()? {
        Json::Array(list) => list,
        one => vec![one],
    };
    let mut all = Map::new();
    for one in list {
        match one {
            Json::Object(variables) => all.extend(variables),
            other => {
                let words = format!("expected an object of variables, found {}", kind_of(&other));
                return Err(Problem::bad(words));
            }
        }
    }
    Ok(all)
}
