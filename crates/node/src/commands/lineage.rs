//! `tahini lineage`: where the properties of what a pipe of a running node makes come from.

use serde_json::Value as Json;

use crate::cli::Lineage;
use crate::remote::{escaped, list, text};

/// Asks the node, and prints what it says.
pub fn lineage(options: &Lineage) -> anyhow::Result<u8> {
    let mut query = Vec::new();
    let property = options.property.as_deref();
    query.extend(property.map(|name| format!("property={}", escaped(name))));
    query.extend(options.depth.map(|depth| format!("depth={depth}")));
    let pipe = escaped(&options.pipe);
    let path = format!("/api/pipes/{pipe}/lineage?{}", query.join("&"));
    let words = |told: &Json, lines: &mut Vec<String>| tell(told, property, lines);
    Ok(options.remote.tell(&path, options.json, words))
}

fn tell(told: &Json, property: Option<&str>, lines: &mut Vec<String>) {
    let pipe = text(&told["pipe"]);
    let into = match told["sink"]["dataset"].as_str() {
        Some(dataset) => format!("dataset {dataset}"),
        None => format!("a {} sink", text(&told["sink"]["type"])),
    };
    lines.push(format!(
        "{pipe} reads {} and fills {into}",
        source(&told["source"])
    ));
    if let Some(places) = places(&told["decided-by"]) {
        lines.push(format!("whether there is an entity is decided by {places}"));
    }
    for row in list(&told["properties"]) {
        tell_property(row, pipe, 0, lines);
    }
    for row in list(&told["others"]) {
        tell_others(row, pipe, lines);
    }
    for row in list(&told["created"]) {
        lines.push("- entities that it creates beside these:".to_owned());
        tell_parts(row, pipe, 1, lines);
    }
    if let Some(name) = property.filter(|_| list(&told["properties"]).is_empty()) {
        lines.push(format!("- it writes no property {name}"));
    }
    if told["complete"] == false {
        lines.push("There is more, which was not looked at.".to_owned());
    }
}

/// A property with what is behind it, and the properties inside of it.
fn tell_property(row: &Json, pipe: &str, depth: usize, lines: &mut Vec<String>) {
    let made = match row["constant"] == true {
        true => ": a constant".to_owned(),
        false => from(row)
            .or_else(|| others(row))
            .map_or_else(String::new, |words| format!(": {words}")),
    };
    let indent = "  ".repeat(depth);
    lines.push(format!("{indent}- {}{made}", text(&row["property"])));
    tell_parts(row, pipe, depth + 1, lines);
    for inside in list(&row["properties"]) {
        tell_property(inside, pipe, depth + 1, lines);
    }
}

/// Properties that are taken over whatever they are called.
fn tell_others(row: &Json, pipe: &str, lines: &mut Vec<String>) {
    lines.push(format!("- others: {}", others(row).unwrap_or_default()));
    tell_parts(row, pipe, 1, lines);
}

/// Which properties are taken over and where from; none for a property that has a name.
fn others(row: &Json) -> Option<String> {
    let names = |name: &str| {
        let names: Vec<&str> = list(&row[name]).iter().map(text).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let mut words = names("names")?;
    if let Some(except) = names("except") {
        words.push_str(&format!(" but not {except}"));
    }
    if let Some(of) = places(&row["from"]) {
        words.push_str(&format!(", of {of}"));
    }
    Some(words)
}

/// What decides about something, what else it depends on, and where it was first.
fn tell_parts(row: &Json, pipe: &str, depth: usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    if let Some(places) = places(&row["decided-by"]) {
        lines.push(format!("{indent}decided by {places}"));
    }
    let beside: Vec<&str> = list(&row["depends-on"]).iter().map(text).collect();
    if !beside.is_empty() {
        lines.push(format!("{indent}depends on {}", beside.join(", ")));
    }
    for first in list(&row["origins"]) {
        lines.push(format!("{indent}begins {}", origin(first, pipe)));
    }
}

/// What a property is taken from, and what it is computed from.
fn from(row: &Json) -> Option<String> {
    let of = |how: &str| {
        let own = list(&row["from"])
            .iter()
            .filter(|place| place["how"] == how);
        let own: Vec<String> = own.map(place).collect();
        (!own.is_empty()).then(|| format!("{how} from {}", own.join(", ")))
    };
    let both: Vec<String> = [of("taken"), of("computed")]
        .into_iter()
        .flatten()
        .collect();
    (!both.is_empty()).then(|| both.join("; "))
}

/// Where something was first, and the pipes on the way to `pipe`.
fn origin(first: &Json, pipe: &str) -> String {
    let (name, of) = (text(&first["property"]), text(&first["pipe"]));
    let mut words = match text(&first["end"]) {
        "source" => format!(
            "as {name} in what {of} reads ({})",
            source(&first["source"])
        ),
        "dataset" => format!("as {}, which no pipe writes", place(first)),
        "rules" => format!("in the rules of {of}"),
        "cycle" => format!("nowhere: {of} is on the way already"),
        "deeper" => format!("before {of}, further back than was asked for"),
        _ => format!("in {of}, which cannot be looked into"),
    };
    let via = list(&first["via"]).iter().map(text);
    let via: Vec<&str> = via.filter(|id| *id != pipe).collect();
    if !via.is_empty() {
        words.push_str(&format!(", by way of {}", via.join(", ")));
    }
    words
}

fn source(told: &Json) -> String {
    let datasets: Vec<&str> = list(&told["datasets"]).iter().map(text).collect();
    let mut words = match datasets.as_slice() {
        [] => format!("a source of type {}", text(&told["type"])),
        [one] => format!("dataset {one}"),
        all => format!("datasets {}", all.join(", ")),
    };
    if let Some(system) = told["system"].as_str() {
        words.push_str(&format!(" of system {system}"));
    }
    words
}

fn places(told: &Json) -> Option<String> {
    let all: Vec<String> = list(told).iter().map(place).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn place(told: &Json) -> String {
    let property = text(&told["property"]);
    match told["dataset"].as_str() {
        Some(dataset) => format!("{property} of {dataset}"),
        None => format!("{property} of the source"),
    }
}
