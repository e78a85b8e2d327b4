//! `tahini microservice check`: the JSON protocols, spoken to somebody's service, and what it gets
//! wrong. Each thing that is looked at is a row of `rows.rs`.

mod answer;
mod entities;
mod peer;
mod pull;
mod push;
mod report;
mod rows;
mod transform;

use anyhow::{Context as _, bail};
use serde_json::Value as Json;

use self::peer::Peer;
use self::report::{Report, Verdict};
use self::rows::Protocol;
use crate::cli::{CheckService, FAILED, OK, ServiceKind, UNREACHABLE};
use crate::say;

/// Checks the service behind the URL; the code says whether something is wrong.
pub fn check(options: &CheckService) -> anyhow::Result<u8> {
    let peer = Peer::new(options)?;
    let own = options.entities.as_deref().map(read).transpose()?;
    let mut report = Report::default();
    let outcome = look(&peer, options, own.as_deref(), &mut report);
    if options.json {
        let failure = outcome.as_ref().err().map(ToString::to_string);
        say::line(&report.json(&options.url, options.kind, failure).to_string());
    } else {
        say::line(&report.text(&options.url));
    }
    match outcome {
        Ok(()) if report.wrong() == 0 => Ok(OK),
        Ok(()) => Ok(FAILED),
        Err(unreachable) => {
            say::error_line(&format!("tahini: {unreachable}"));
            Ok(UNREACHABLE)
        }
    }
}

fn look(
    peer: &Peer,
    options: &CheckService,
    own: Option<&[Json]>,
    report: &mut Report,
) -> Result<(), peer::Unreachable> {
    let kind = options.kind;
    let both = kind == ServiceKind::Both;
    if both || kind == ServiceKind::Source {
        let outcome = pull::check(peer, report);
        settle(Protocol::Pull, peer, outcome, report)?;
    }
    if both || kind == ServiceKind::Sink {
        let outcome = push::check(peer, own, !options.no_full, report);
        settle(Protocol::Push, peer, outcome, report)?;
    }
    if kind == ServiceKind::Transform {
        let outcome = transform::check(peer, own, report);
        settle(Protocol::Transform, peer, outcome, report)?;
    }
    Ok(())
}

/// Notes what became of the connections. A service that answered before, and then no more, is
/// there, and wrong.
fn settle(
    protocol: Protocol,
    peer: &Peer,
    outcome: Result<(), peer::Unreachable>,
    report: &mut Report,
) -> Result<(), peer::Unreachable> {
    match outcome {
        Err(unreachable) if peer.answered() => {
            let words = format!("no answer: {unreachable}");
            report.note(protocol, &rows::STATUS, Verdict::Wrong, words);
        }
        other => other?,
    }
    if peer.closed_quietly() {
        let words = "a connection closed behind an answer, without a word";
        report.note(protocol, &rows::CONNECTION, Verdict::Warning, words);
    }
    Ok(())
}

/// Entities of somebody's own, to be posted instead of made-up ones: a JSON array, or one a line.
fn read(file: &std::path::Path) -> anyhow::Result<Vec<Json>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let found: Result<Vec<Json>, _> = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(&text),
        false => serde_json::Deserializer::from_str(&text)
            .into_iter()
            .collect(),
    };
    let found = found.with_context(|| format!("{}: expected entities", file.display()))?;
    let all = found.iter().all(|entity| entity["_id"].is_string());
    if found.is_empty() || !all {
        bail!(
            "{}: expected entities with a string _id, at least one, found others",
            file.display()
        );
    }
    Ok(found)
}
