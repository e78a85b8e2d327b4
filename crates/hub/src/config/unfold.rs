//! Transforms that stand for others, replaced by those: everything behind validation sees what
//! runs, and problems of it name the place where the template stands.

use serde_json::{Map, Value as Json, json};
use tahini_dtl::JsonPath;

use super::problem::Problem;
use super::resolve::Moves;
use crate::Registry;

/// Puts the transforms that a pipe's templates stand for in their places, as `chained` lists, and
/// returns where these stand. A template that cannot be unfolded stays; validation tells why.
pub(super) fn unfold(
    pipe: &mut Map<String, Json>,
    moves: &mut Moves,
    registry: &Registry,
) -> Vec<JsonPath> {
    let mut unfolded = Vec::new();
    if let Some(transform) = pipe.get_mut("transform") {
        let path = JsonPath::default().name("transform");
        part(transform, &path, (moves, &mut unfolded), registry);
    }
    unfolded
}

/// Whether a problem is an error, or stands where somebody wrote it: what a template makes of
/// somebody's properties needs no advice.
pub(super) fn is_worth_telling(problem: &Problem, unfolded: &[JsonPath]) -> bool {
    let inside = |path: &JsonPath| problem.path.0.starts_with(&path.0);
    problem.is_error() || !unfolded.iter().any(inside)
}

fn part(
    json: &mut Json,
    path: &JsonPath,
    (moves, unfolded): (&mut Moves, &mut Vec<JsonPath>),
    registry: &Registry,
) {
    match json {
        Json::Array(list) => {
            for (at, one) in list.iter_mut().enumerate() {
                part(one, &path.at(at), (moves, unfolded), registry);
            }
        }
        Json::Object(map) => {
            let kind = map.get("type").and_then(Json::as_str).unwrap_or_default();
            if kind == "chained" {
                if let Some(inner) = map.get_mut("transforms") {
                    let inside = path.name("transforms");
                    part(inner, &inside, (moves, unfolded), registry);
                }
                return;
            }
            let Some(stands_for) = registry.transform(kind).and_then(|row| row.stands_for) else {
                return;
            };
            let Ok(transforms) = stands_for(map) else {
                return;
            };
            let mut chained = json!({"type": "chained", "transforms": transforms});
            if let Some(effects) = map.get("side_effects") {
                chained["side_effects"] = effects.clone();
            }
            *json = chained;
            moves.note(path.name("transforms"), path, "template");
            unfolded.push(path.name("transforms"));
        }
        _ => {}
    }
}
