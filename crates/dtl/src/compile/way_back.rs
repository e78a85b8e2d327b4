//! A join seen from its other side: what is there, and by which of its keys it is found.

use serde_json::{Value as Json, json};
use tahini_entity::Entity;

use super::Compiler;
use crate::dependencies::{Origin, Side};
use crate::expr::Expr;
use crate::namespace::{Read as Name, is_bare};
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
    let mut index = index(compiler, key).ok_or(IMPURE)?;
    index.items = items(compiler, key);
    Ok(Side::Index(index))
}

fn index(compiler: &Compiler<'_>, key: &Json) -> Option<Index> {
    let mut index = compiler.index_there(ENTITY, key)?;
    index.by_item = by_item(compiler, key);
    Some(index)
}

/// Whether what a key reads is one property, taken item by item.
fn by_item(compiler: &Compiler<'_>, key: &Json) -> bool {
    let (of_null, values) = through(key);
    let mut variables = Vec::new();
    let looks_elsewhere = collect(&of_null, &mut variables).is_err() || !variables.is_empty();
    // A null alone has no items, and is one beside what others have: nothing may come of it.
    let mut keys = Vec::new();
    if let Some(index) = compiler.index_there(ENTITY, &of_null) {
        index.keys(&Entity::default(), &mut keys);
    }
    let values = compiler.index_there(ENTITY, values);
    let of_one = values.is_some_and(|index| of_one_property(&index.expr.0));
    of_one && !looks_elsewhere && keys.is_empty()
}

/// A key whose values are null, and the values, behind all calls that take them item by item.
fn through(key: &Json) -> (Json, &Json) {
    if let Json::Array(call) = key
        && let [Json::String(name), function @ .., values] = call.as_slice()
        && matches!(
            (name.as_str(), function.len()),
            ("map" | "filter", 1) | ("distinct", 0)
        )
    {
        let (of_null, values) = through(values);
        let mut call = call.clone();
        call.splice(call.len() - 1.., [of_null]);
        return (Json::Array(call), values);
    }
    (json!(["list", null]), key)
}

/// Whether an expression is one property, or what functions make of each of its items.
fn of_one_property(expr: &Expr) -> bool {
    match expr {
        Expr::Path(path) => match path.elements.first() {
            Some(Name::Exact(name)) => &**name == "$ids" || !is_bare(name),
            Some(Name::Any(_)) => true,
            None => false,
        },
        Expr::Each(_, inner) | Expr::Collapse(_, inner) => of_one_property(inner),
        Expr::With(_, _, args) => args.split_last().is_some_and(|(last, before)| {
            of_one_property(last) && before.iter().all(|arg| arg.constant().is_some())
        }),
        _ => false,
    }
}

/// For a join by `tuples`, the items of a tuple that are of one property each, with their places.
fn items(compiler: &Compiler<'_>, key: &Json) -> Vec<(usize, Index)> {
    let Some([Json::String(name), items @ ..]) = key.as_array().map(Vec::as_slice) else {
        return Vec::new();
    };
    let items = items.iter().enumerate().filter(|_| name == "tuples");
    let compiled = items.filter_map(|(nth, item)| {
        let index = index(compiler, item)?;
        index.by_item.then_some((nth, index))
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
