//! Schemas that are read from a server: a run asks for its schema at its beginning, unless it was
//! read a moment ago. While the server does not answer, the one that was read last holds.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::HeaderMap;
use tahini_hub::{Class, Ctx, Failure};

use super::rules::Rules;
use crate::http::{Ask, HttpSystem};

/// How long a schema is taken as it was read.
const FRESH: Duration = Duration::from_secs(60);
/// Schemas that are remembered.
const MAX_KNOWN: usize = 100;
/// The most bytes of a schema.
const MAX_BYTES: usize = 16 << 20;

/// What was read and when, by pipe and address.
type Known = HashMap<(String, String), (Instant, Rules)>;

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// The schema at `url` of the system that the transform names.
///
/// # Errors
/// Config, when there is no system or what it gives is no schema; else those of the request, if the
/// schema was never read.
pub(super) fn rules(ctx: &Ctx<'_>, url: &str) -> Result<Rules, Failure> {
    let system = HttpSystem::of(ctx)?;
    let address = system.address(url, ctx.cancel)?.to_string();
    let key = (ctx.owner.to_owned(), address);
    let known = known().get_or_insert_default().get(&key).cloned();
    if let Some((at, rules)) = &known
        && at.elapsed() < FRESH
    {
        return Ok(rules.clone());
    }
    let read = read(ctx, &system, url);
    let rules = match (read, known) {
        (Ok(rules), _) => rules,
        (Err(failure), Some((_, rules))) if failure.class == Class::Transient => {
            tracing::warn!(
                pipe = ctx.owner,
                %failure,
                "the schema could not be read: the one that was read before holds"
            );
            return Ok(rules);
        }
        (Err(failure), _) => return Err(failure),
    };
    let mut known = self::known();
    let known = known.get_or_insert_default();
    if known.len() >= MAX_KNOWN {
        known.clear();
    }
    known.insert(key, (Instant::now(), rules.clone()));
    Ok(rules)
}

fn read(ctx: &Ctx<'_>, system: &HttpSystem, url: &str) -> Result<Rules, Failure> {
    let ask = Ask {
        method: Method::GET,
        url,
        parameters: Vec::new(),
        headers: &HeaderMap::new(),
        body: Default::default(),
    };
    let mut body = system.ask(ask, ctx.cancel)?.body;
    let bytes = body.read_up_to(MAX_BYTES + 1)?;
    let wrong = |found: &str| {
        let place = ctx.props.path();
        Failure::config(format!(
            "{place}.schema_url: expected a JSON Schema, found {found}"
        ))
        .context(body.request())
    };
    if bytes.len() > MAX_BYTES {
        return Err(wrong(&format!("more than {MAX_BYTES} bytes")));
    }
    let schema = serde_json::from_slice(&bytes).map_err(|error| wrong(&error.to_string()))?;
    Rules::of(&schema).map_err(|words| wrong(&format!("one that is wrong: {words}")))
}

fn known<'a>() -> MutexGuard<'a, Option<Known>> {
    KNOWN.lock().unwrap_or_else(|lock| lock.into_inner())
}
