//! `tahini why`: why a pipe of a running node is idle.

use serde_json::Value as Json;

use crate::cli::{OK, Why};
use crate::{remote, say};

/// Where a node listens unless somebody says otherwise.
const HERE: &str = "http://127.0.0.1:9042";

/// Asks the node, and prints what it says.
pub fn why(options: &Why) -> anyhow::Result<u8> {
    let node = options.remote.node.as_deref().unwrap_or(HERE);
    let token = options.remote.token_file.as_deref();
    let path = format!("/api/pipes/{}/idle", remote::escaped(&options.pipe));
    let told = match remote::get(node, token, &path) {
        Ok(told) => told,
        Err(unanswered) => {
            say::error_line(&format!("tahini: {:#}", unanswered.why));
            return Ok(unanswered.code);
        }
    };
    if options.json {
        say::line(&told.to_string());
        return Ok(OK);
    }
    let mut lines = Vec::new();
    tell(&told, 0, &mut lines);
    let roots = told["root-causes"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    // Where it begins is worth a line of its own when that is not the pipe itself.
    let elsewhere = roots.iter().filter(|root| root["pipe"] != told["pipe"]);
    lines.extend(elsewhere.map(|root| {
        format!(
            "It begins at pipe {}: {}",
            text(&root["pipe"]),
            text(&root["message"])
        )
    }));
    lines.iter().for_each(|line| say::line(line));
    Ok(OK)
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
    for reason in told["reasons"].as_array().into_iter().flatten() {
        let message = text(&reason["message"]);
        let mut words = message.lines();
        lines.push(format!("{indent}- {}", words.next().unwrap_or_default()));
        lines.extend(words.map(|line| format!("{indent}  {line}")));
        for dataset in reason["datasets"].as_array().into_iter().flatten() {
            lines.push(format!(
                "{indent}  dataset {}: last sequence {}, read up to {}",
                text(&dataset["dataset"]),
                sequence(&dataset["last"]),
                sequence(&dataset["read"]),
            ));
        }
        for behind in reason["because"].as_array().into_iter().flatten() {
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

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_default()
}
