//! Which rule joined what: the entities that became one, and a value for every step between them.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::{Value as Json, json};
use tahini_entity::json;

use super::clash::{self, Clashes};
use super::part::{Part, Trouble};
use super::reach::{At, Reach, When};
use super::rules::{Identity, Key, Merging};
use crate::config::dtl_options;
use crate::{Cancel, Failure, Hub, Pipe};

/// Tells what `entity`, the `_id` of a merged entity or of one that was merged, belongs to in the
/// pipe's datasets as they are now, as JSON: `_id`, `deleted`, `members` and `joins`; where something
/// else has the same `_id`, also `clashes` with its members and whether this one is `given`. `None`
/// where no dataset has it.
///
/// # Errors
/// Config where the pipe does not merge, or where more are the same than may become one; as a run
/// of it otherwise.
pub fn explain(hub: &Hub, pipe: &Pipe, entity: &str) -> Result<Option<Json>, Failure> {
    let source = pipe.effective["source"].as_object();
    let source = source.filter(|source| source.get("type").is_some_and(|kind| kind == "merge"));
    let (Some(source), Some(whole)) = (source, pipe.effective.as_object()) else {
        return Err(Failure::config(format!(
            "expected a pipe with a merge source, found {:?} with another one",
            pipe.id
        )));
    };
    let options = dtl_options(whole, &Default::default());
    let merging = Merging::compile(source, &options).map_err(|problems| {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::config(words.join("; "))
    })?;
    let mut parts = Vec::new();
    for name in &merging.datasets {
        let dataset = hub.world.store.find(name)?;
        let snapshot = dataset.map(|dataset| dataset.snapshot()).transpose()?;
        let head = snapshot.as_ref().map_or(0, |snapshot| snapshot.head().next);
        parts.push(Part::new(snapshot, head));
    }
    let cancel = Cancel::new();
    for (part, id) in candidates(&merging, entity) {
        // Each candidate is looked at by itself.
        parts.iter_mut().for_each(Part::advance);
        let mut reach = Reach {
            merging: &merging,
            parts: &mut parts,
            cancel: &cancel,
        };
        let told = explained(&mut reach, (part, &id), entity);
        match told {
            Ok(Some(told)) => return Ok(Some(told)),
            Ok(None) => {}
            // Whoever asks is told; nothing broke.
            Err(trouble @ Trouble::TooMany(_)) => {
                return Err(Failure::config(reach.failure(trouble).message));
            }
            Err(trouble) => return Err(reach.failure(trouble)),
        }
    }
    Ok(None)
}

/// What an `_id` may stand for: entities of datasets, by their places.
fn candidates(merging: &Merging, entity: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    if merging.identity == Identity::Composite
        && let Some((part, rest)) = entity.split_once('|')
        && let Some(part) = part
            .parse()
            .ok()
            .filter(|part| *part < merging.datasets.len())
    {
        // An `_id` may hold the character that stands between them.
        let cuts = rest.match_indices('|').map(|(at, _)| &rest[..at]);
        all.extend(cuts.chain([rest]).map(|id| (part, id.to_owned())));
    }
    all.extend((0..merging.datasets.len()).map(|part| (part, entity.to_owned())));
    all
}

fn explained(
    reach: &mut Reach<'_>,
    (part, id): (usize, &str),
    entity: &str,
) -> Result<Option<Json>, Trouble> {
    let Some(node) = reach.parts[part].take_id(reach.merging, part, id)? else {
        return Ok(None);
    };
    reach.close(Clashes::can_be(reach.merging).then_some(&mut true))?;
    let at = (part, node);
    let groups = reach.together(When::Now)?;
    let group = groups.iter().find(|group| group.contains(&at));
    let deleted = group.is_none();
    let members = group.cloned().unwrap_or_else(|| vec![at]);
    let merged = reach.identity(&members);
    if entity != merged && entity != id {
        return Ok(None);
    }
    let named: Vec<Json> = members.iter().map(|at| named_at(reach, *at)).collect();
    let mut told = json!({
        "_id": merged,
        "deleted": deleted,
        "members": named,
        "joins": joins(reach, &members),
    });
    let clashing = groups
        .iter()
        .filter(|group| reach.identity(group) == merged);
    let clashing: Vec<&Vec<At>> = clashing.filter(|group| **group != members).collect();
    if !clashing.is_empty() && !deleted {
        let counts = |group: &Vec<At>| clash::rank(group) < clash::rank(&members);
        told["given"] = json!(!clashing.iter().any(|group| counts(group)));
        let others = clashing.iter().map(|group| -> Json {
            let members = group.iter().map(|at| named_at(reach, *at));
            members.collect()
        });
        told["clashes"] = others.collect();
    }
    Ok(Some(told))
}

fn named_at(reach: &Reach<'_>, at: At) -> Json {
    json!({"dataset": reach.merging.datasets[at.0], "_id": reach.id(at)})
}

/// From the first member to all others, the rule and the value of every step.
fn joins(reach: &Reach<'_>, members: &[At]) -> Vec<Json> {
    let keys = |at: &At| -> &[Key] {
        let now = reach.parts[at.0].nodes[at.1 as usize].now.as_ref();
        now.map_or(&[], |now| &now.keys)
    };
    let mut holders: HashMap<Key, Vec<At>> = HashMap::new();
    for at in members {
        for key in keys(at) {
            holders.entry(*key).or_default().push(*at);
        }
    }
    let (mut linked, mut steps) = (HashSet::new(), Vec::new());
    let mut queue: VecDeque<At> = members.first().copied().into_iter().collect();
    linked.extend(queue.iter().copied());
    while let Some(at) = queue.pop_front() {
        for key in keys(&at) {
            for other in holders.remove(key).unwrap_or_default() {
                if linked.insert(other) {
                    steps.extend(step(reach, at, other, *key));
                    queue.push_back(other);
                }
            }
        }
    }
    steps
}

fn step(reach: &Reach<'_>, one: At, two: At, key: Key) -> Option<Json> {
    let why = |at: At| reach.merging.reason(at.0, reach.record(at)?, key);
    let ((left, value), (right, _)) = (why(one)?, why(two)?);
    Some(json!({
        "from": named_at(reach, one),
        "to": named_at(reach, two),
        "rule": ["eq", left.expression, right.expression],
        "value": json::to_config(&value),
    }))
}
