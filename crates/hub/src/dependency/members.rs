//! From what was merged back to its members: how a join of a `merge` source's entity leads to the
//! entities of the source's datasets.
//!
//! What was merged has what its members have, item by item. So whoever joins by a property of it
//! joins by that property of one of its members, and the member leads to what it became. Who joins by
//! tuples has each item of them from one of its members, perhaps from another one each.

use std::sync::Arc;

use serde_json::Value as Json;
use tahini_dtl::{Index, Side};

use super::given::Given;
use super::ways::There;
use crate::Pipe;

/// Parts of an id that are looked at for the end of one member's.
const PARTS: usize = 64;

/// Why a join by this side of what was merged cannot be followed, if it cannot.
pub(crate) fn obstacle(source: &Json, side: &Side) -> Option<&'static str> {
    match side {
        Side::Id => None,
        Side::Index(index) if !index.goes_item_by_item() => {
            items(source, index).is_empty().then_some(
                "it joins by something other than the values of one property of what was merged, \
                 each by itself; join by one property, by what a function makes of each value that \
                 is not null, or by \"tuples\" of some",
            )
        }
        Side::Index(index) if source["strategy"] == "list" && !index.is_of_ids() => Some(
            "with the strategy \"list\" what was merged has its members' properties in $merged",
        ),
        Side::Index(_) => None,
    }
}

/// The items of a join by tuples that members can be found by, with their places.
fn items<'i>(source: &Json, index: &'i Index) -> Vec<&'i (usize, Index)> {
    let lists = source["strategy"] == "list";
    let items = index.items().iter();
    items
        .filter(|(_, item)| !lists || item.is_of_ids())
        .collect()
}

/// The way from a join by `side` to the members in the source's nth dataset.
pub(super) fn way(
    side: &Side,
    (nth, dataset): (usize, &str),
    given: &Given,
    pipe: &Pipe,
) -> Option<There> {
    let source = &pipe.effective["source"];
    if obstacle(source, side).is_some() {
        return None;
    }
    let given = given.of_member();
    match side {
        Side::Id if source["identity"] != "first" => {
            let adding = given.adding();
            let prefix = adding.map(|options| format!("{}:", options.identity()));
            Some(There::PartOfId(nth, prefix))
        }
        Side::Id => Some(There::of(side, Some((dataset, &given, pipe)))),
        Side::Index(index) => {
            let given = Some(&given).filter(|given| !given.is_plain());
            let given = given.map(|given| Arc::new(given.clone()));
            let there = |index: &Index| Arc::new(index.in_source(dataset));
            if index.goes_item_by_item() {
                return Some(There::Index(there(index), given));
            }
            let items = items(source, index).into_iter();
            let items = items.map(|(nth, index)| (*nth, There::Index(there(index), given.clone())));
            Some(There::Items(items.collect()))
        }
    }
}

/// The ids that entities of the nth dataset may have in an id that was put together (see
/// `merge::reach`): places of datasets and ids in turn. An id may have bars in it, too; more is
/// named here than was meant then, and none is left out.
pub(super) fn ids(text: &str, nth: usize) -> Vec<&str> {
    let mut bars: Vec<usize> = text.match_indices('|').map(|(at, _)| at).collect();
    bars.push(text.len());
    let mut starts = vec![0];
    starts.extend(bars.iter().map(|at| at + 1));
    let number = nth.to_string();
    let mut found = Vec::new();
    for (part, end) in bars.iter().enumerate() {
        if text[starts[part]..*end] != number || *end == text.len() {
            continue;
        }
        let from = end + 1;
        for (next, until) in bars.iter().enumerate().skip(part + 1).take(PARTS) {
            // Behind an id stands the number of a dataset, or nothing.
            let behind = bars.get(next + 1).map(|end| &text[starts[next + 1]..*end]);
            if behind.is_none_or(|behind| behind.bytes().all(|byte| byte.is_ascii_digit())) {
                found.push(&text[from..*until]);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::ids;

    #[test]
    fn ids_are_found_in_what_was_put_together() {
        assert_eq!(ids("0|a", 0), ["a"]);
        assert_eq!(ids("0|a", 1), [""; 0]);
        assert_eq!(ids("0|a|1|b", 1), ["b"]);
        assert!(ids("0|a|0|b|1|c", 0).contains(&"b"));
        assert!(ids("0|a|x|1|c", 0).contains(&"a|x"));
        assert!(ids("0|0|1|1", 1).contains(&"1"));
        assert_eq!(ids("", 0), [""; 0]);
    }
}
