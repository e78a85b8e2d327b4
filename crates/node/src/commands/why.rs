//! `tahini why`: why a pipe of a running node is idle.

use serde_json::Value as Json;

use crate::cli::Why;
use crate::remote::{escaped, list, text};

/// Asks the node, and prints what it says.
pub fn why(options: &Why) -> anyhow::Result<u8> {
    let path = format!("/api/pipes/{}/idle", escaped(&options.pipe));
    let words = |told: &Json, lines: &mut Vec<String>| {
        tell(told, 0, lines);
        let roots = list(&told["root-causes"]).iter();
        // Where it begins is worth a line of its own when that is not the pipe itself.
        let elsewhere = roots.filter(|root| root["pipe"] != told["pipe"]);
        lines.extend(elsewhere.map(|root| {
            let (pipe, message) = (text(&root["pipe"]), text(&root["message"]));
            format!("It begins at pipe {pipe}: {message}")
        }));
    };
    Ok(options.remote.tell(&path, options.json, words))
}

/// What is said of a pipe, and below it what is behind that.
fn tell(told: &Json, depth: usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    let is_idle = if told["idle"] == false {
        "is not idle"
    } else {
        "is idle"
    };
    lines.push(format!("{indent}{} {is_idle}:", text(&told["pipe"])));
    for reason in list(&told["reasons"]) {
        let message = text(&reason["message"]);
        let mut words = message.lines();
        lines.push(format!("{indent}- {}", words.next().unwrap_or_default()));
        lines.extend(words.map(|line| format!("{indent}  {line}")));
        for dataset in list(&reason["datasets"]) {
            lines.push(format!(
                "{indent}  dataset {}: last sequence {}, read up to {}",
                text(&dataset["dataset"]),
                sequence(&dataset["last"]),
                sequence(&dataset["read"]),
            ));
        }
        for behind in list(&reason["because"]) {
            tell(behind, depth + 2, lines);
        }
    }
    if let Some(next) = told["next-run"].as_str() {
        lines.push(format!("{indent}- its next run is at {next}"));
    }
}

fn sequence(json: &Json) -> String {
    json.as_u64()
        .map_or_else(|| "none".to_owned(), |seq| seq.to_string())
}
