//! `tahini hops`: how many entities the joins of a pipe of a running node lead to.

use serde_json::Value as Json;

use crate::cli::Hops;
use crate::remote::{escaped, list, text};

/// Asks the node, and prints what it says.
pub fn hops(options: &Hops) -> anyhow::Result<u8> {
    let path = format!("/api/pipes/{}/hops", escaped(&options.pipe));
    let words = |told: &Json, lines: &mut Vec<String>| tell(told, &options.pipe, lines);
    Ok(options.remote.tell(&path, options.json, words))
}

fn tell(told: &Json, pipe: &str, lines: &mut Vec<String>) {
    let (joins, tracked) = (list(&told["joins"]), list(&told["tracked"]));
    if joins.is_empty() && tracked.is_empty() {
        lines.push(format!(
            "The rules of {pipe} join nothing by an index: by `_id` alone, or not at all"
        ));
    }
    for (rows, title) in [
        (joins, "An entity is joined with:"),
        (tracked, "A change of what is joined leads back to:"),
    ] {
        lines.extend((!rows.is_empty()).then(|| title.to_owned()));
        lines.extend(rows.iter().map(in_words));
    }
    let warnings = list(&told["warnings"]).iter();
    lines.extend(warnings.map(|warning| format!("Warning: {}", text(warning))));
}

/// How many entities of a dataset share a key.
fn in_words(told: &Json) -> String {
    let mut words = format!(
        "- {} by {}: {} of {} at most",
        text(&told["dataset"]),
        text(&told["by"]),
        told["largest"],
        told["entities"],
    );
    if !told["largest-key"].is_null() {
        words.push_str(&format!(" (for {})", told["largest-key"]));
    }
    if let Some(average) = told["average"].as_f64() {
        words.push_str(&format!(", {average} on average"));
    }
    match text(&told["counted"]) {
        "sample" => words.push_str("; by a sample"),
        "estimate" => words.push_str("; estimated, while the index is being built"),
        _ => {}
    }
    words
}
