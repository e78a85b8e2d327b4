//! Asking a running node over its API, for commands.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::Value as Json;
/// A text as a part of a path.
pub use tahini_connectors::http::encode as escaped;
use tahini_connectors::http::runtime;

use crate::cli::{FAILED, FORBIDDEN, OK, UNREACHABLE};
use crate::say;

/// A node to ask.
#[derive(Args, Clone)]
pub struct Remote {
    /// Ask the running node at this address, such as http://127.0.0.1:9042.
    #[arg(long, value_name = "URL", env = "TAHINI_NODE")]
    pub node: Option<String>,
    /// The token to show it, in a file.
    #[arg(long, value_name = "FILE", env = "TAHINI_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

/// Why a node did not do what was asked, with the exit code for it.
pub struct Unanswered {
    /// The exit code.
    pub code: u8,
    /// Why.
    pub why: anyhow::Error,
}

impl Unanswered {
    /// Prints why, and returns the exit code.
    pub fn told(self) -> u8 {
        say::error_line(&format!("tahini: {:#}", self.why));
        self.code
    }
}

impl From<anyhow::Error> for Unanswered {
    fn from(why: anyhow::Error) -> Unanswered {
        Unanswered { code: FAILED, why }
    }
}

/// Where a node listens unless somebody says otherwise.
const HERE: &str = "http://127.0.0.1:9042";

impl Remote {
    /// Prints what the node says at a path, which without --node is the one on this machine: as
    /// JSON, or in the lines that `words` makes of it. Returns the exit code; what went wrong is
    /// printed too.
    pub fn tell(&self, path: &str, json: bool, words: impl FnOnce(&Json, &mut Vec<String>)) -> u8 {
        let node = self.node.as_deref().unwrap_or(HERE);
        let told = match get(node, self.token_file.as_deref(), path) {
            Ok(told) => told,
            Err(unanswered) => return unanswered.told(),
        };
        let mut lines = Vec::new();
        match json {
            true => lines.push(told.to_string()),
            false => words(&told, &mut lines),
        }
        lines.iter().for_each(|line| say::line(line));
        OK
    }
}

/// The items of a list in an answer; none where there is no list.
pub fn list(told: &Json) -> &[Json] {
    told.as_array().map_or(&[][..], Vec::as_slice)
}

/// A text in an answer; empty where there is none.
pub fn text(told: &Json) -> &str {
    told.as_str().unwrap_or_default()
}

/// Posts JSON to the node at `url` and waits for its answer, however long that takes.
pub fn post(
    url: &str,
    token_file: Option<&Path>,
    path: &str,
    body: &Json,
) -> Result<Json, Unanswered> {
    ask(url, token_file, path, Some(body))
}

/// Gets what the node at `url` says at a path.
pub fn get(url: &str, token_file: Option<&Path>, path: &str) -> Result<Json, Unanswered> {
    ask(url, token_file, path, None)
}

fn ask(
    url: &str,
    token_file: Option<&Path>,
    path: &str,
    body: Option<&Json>,
) -> Result<Json, Unanswered> {
    let token = token_file.map(read_token).transpose()?;
    let address = format!(
        "{}{path}",
        url.trim_end_matches('/').trim_end_matches("/api")
    );
    let body = body.map(Json::to_string);
    runtime().block_on(async {
        let client = reqwest::Client::builder().no_proxy().build();
        let client = client.context("cannot set up the HTTP client")?;
        let mut request = match body {
            Some(body) => {
                let request = client.post(&address).body(body);
                request.header("content-type", "application/json")
            }
            None => client.get(&address),
        };
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(|error| Unanswered {
            code: UNREACHABLE,
            why: anyhow!("expected a node at {url}, could not reach it: {error}"),
        })?;
        let status = answer.status();
        let text = answer.text().await.context("the answer broke off")?;
        let json: Json = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() {
            return Ok(json);
        }
        let detail = json["detail"].as_str().unwrap_or(&text).to_owned();
        Err(Unanswered {
            code: match status.as_u16() {
                401 | 403 => FORBIDDEN,
                _ => FAILED,
            },
            why: anyhow!("the node at {url} answered {status}: {detail}"),
        })
    })
}

fn read_token(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(text.trim().to_owned())
}
