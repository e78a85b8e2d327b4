//! A join seen from its other side: what is there, and by which of its keys it is found.

use serde_json::Value as Json;

use super::Compiler;
use crate::dependencies::{Origin, Side};
use crate::program::Index;

/// By what the entity on the other side goes in an index.
const ENTITY: &str = "_S";

const TARGET: &str = "what it is joined by is of a target (_T), which only a run knows; join by \
                      what the entity has (_S)";
const SEVERAL: &str = "what it is joined by is of several entities at once; join by what one of \
                       them has";
const PARAMETERS: &str = "what it is joined by is of the parameters of a request (_B)";
const IMPURE: &str = "what it is joined by depends on more than the entity itself";

/// The entities on the other side of a join by `key`, which belongs to the alias `other`, or to
/// what is around (`None`); and how those are found whose key it is. An error says why nobody can
/// tell.
pub(super) fn of(
    compiler: &Compiler<'_>,
    other: Option<usize>,
    key: &Json,
) -> Result<(Vec<Origin>, Side), &'static str> {
    let scope = &compiler.scope;
    if let Some(alias) = other {
        let (name, place) = (&scope.aliases[alias], scope.places.get(alias));
        let place = place.copied().ok_or(SEVERAL)?;
        let side = side(compiler, &renamed(key, name))?;
        return Ok((vec![Origin::Place(place)], side));
    }
    let mut variables = Vec::new();
    collect(key, &mut variables)?;
    let [variable] = variables.as_slice() else {
        return Err(SEVERAL);
    };
    let origins = match variable.strip_prefix("_R.") {
        Some(_) => vec![Origin::Source],
        None => {
            let up = variable.matches("_P.").count();
            compiler.around().source(up)
        }
    };
    Ok((origins, side(compiler, &renamed(key, variable))?))
}

fn side(compiler: &Compiler<'_>, key: &Json) -> Result<Side, &'static str> {
    if key == "_S._id" {
        return Ok(Side::Id);
    }
    let mut index = compiler.index_there(ENTITY, key).ok_or(IMPURE)?;
    index.items = items(compiler, key);
    Ok(Side::Index(index))
}

/// For a join by `tuples`, the items of a tuple that are of one property each, with their places.
fn items(compiler: &Compiler<'_>, key: &Json) -> Vec<(usize, Index)> {
    let Some([Json::String(name), items @ ..]) = key.as_array().map(Vec::as_slice) else {
        return Vec::new();
    };
    let items = items.iter().enumerate().filter(|_| name == "tuples");
    let compiled = items.filter_map(|(nth, item)| {
        let index = compiler.index_there(ENTITY, item)?;
        index.goes_item_by_item().then_some((nth, index))
    });
    compiled.collect()
}

/// Collects the variables of an expression that stand for an entity, each once.
fn collect<'j>(json: &'j Json, all: &mut Vec<&'j str>) -> Result<(), &'static str> {
    match json {
        Json::String(text) => {
            if let Some(variable) = variable(text)?
                && !all.contains(&variable)
            {
                all.push(variable);
            }
            Ok(())
        }
        Json::Array(items) => items.iter().try_for_each(|item| collect(item, all)),
        _ => Ok(()),
    }
}

/// The variable at the start of a path: `_S`, `_P._S`, `_P._P._S`, `_R._S`.
fn variable(text: &str) -> Result<Option<&str>, &'static str> {
    let head = text.split_once('.').map(|(head, _)| head);
    match head {
        Some("_S" | "_P" | "_R" | "_T" | "_B") => {}
        _ => return Ok(None),
    }
    let mut rest = text.strip_prefix("_R.").unwrap_or(text);
    if rest.len() == text.len() {
        while let Some(after) = rest.strip_prefix("_P.") {
            rest = after;
        }
    }
    match rest.split_once('.') {
        Some((ENTITY, path)) => Ok(Some(&text[..text.len() - path.len() - 1])),
        Some(("_B", _)) => Err(PARAMETERS),
        _ => Err(TARGET),
    }
}

/// The expression with `_S` instead of a variable or an alias.
fn renamed(json: &Json, name: &str) -> Json {
    match json {
        Json::String(text) => match text.strip_prefix(name).and_then(|t| t.strip_prefix('.')) {
            Some(path) => Json::from(format!("{ENTITY}.{path}")),
            None => json.clone(),
        },
        Json::Array(items) => items.iter().map(|item| renamed(item, name)).collect(),
        other => other.clone(),
    }
}
