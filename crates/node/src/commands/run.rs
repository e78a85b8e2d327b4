//! `tahini run`: a project, run to rest.

use serde_json::{Value as Json, json};
use tahini_hub::Cancel;
use tahini_hub::execution_log::Summary;
use tahini_hub::settle::{self, Ending, Options, Ran, Rest};

use crate::assembly::{Assembly, Loaded, print_problems, read_objects, secrets_from, suggest};
use crate::backup::hosting_id;
use crate::cli::{FAILED, INTERRUPTED, INVALID, OK, Run, Setting};
use crate::microservices::HostOptions;
use crate::programs::Programs;
use crate::say;

/// Runs the project and prints the table.
pub fn run(options: &Run) -> anyhow::Result<u8> {
    let mut loaded = Loaded::read(
        std::slice::from_ref(&options.project),
        &options.setting.profile,
    )?;
    loaded.env.extend(read_objects(&options.setting.env)?);
    let configuration = loaded.configure();
    let invalid = print_problems(&loaded.problems(&configuration));
    for name in &options.pipes {
        if !configuration.pipes().any(|pipe| pipe.id == *name) {
            let help = suggest(&configuration, name)
                .map(|near| format!("; did you mean {near:?}?"))
                .unwrap_or_default();
            anyhow::bail!("expected a pipe of the project, found {name:?}{help}");
        }
    }
    let store = super::open_store(&options.store.data)?;
    // Nobody else runs on this data: what a killed command left of containers is this one's.
    let who = hosting_id(&options.store.data)?;
    let assembly = assemble_as(who, store.clone(), &options.setting)?;
    let cancel = super::until_interrupted();
    stop_runs_on(&cancel, &assembly);
    for problem in assembly.apply(configuration)? {
        say::error_line(&problem.to_string());
    }
    let what = Options {
        only: options.pipes.clone(),
        max_passes: options.max_passes.max(1),
        ..Options::default()
    };
    let mut rows = Vec::new();
    let rest = settle::settle(&assembly.hub, &what, &cancel, |ran| {
        say::progress(&format!("pass {}: {} …", ran.pass, ran.pipe));
        rows.push(ran.clone());
    });
    say::progress_end();
    assembly.close();
    store.close()?;
    let rest = rest?;
    if options.json {
        say::line(&report(&rows, &rest).to_string());
    } else {
        say::line(&table(&rows));
        for ran in &rows {
            complain(ran);
        }
        explain(&rest);
    }
    Ok(match rest.ending {
        Ending::Stopped => INTERRUPTED,
        _ if !rest.is_settled() => FAILED,
        _ if invalid => INVALID,
        _ => OK,
    })
}

/// A hub for commands: no API, processes allowed since the project is on disk.
pub fn assemble(
    store: std::sync::Arc<dyn tahini_store::Backend>,
    setting: &Setting,
) -> anyhow::Result<Assembly> {
    // Two commands at a time are two nodes: neither touches the other's containers.
    let who = format!("command-{}", uuid::Uuid::new_v4().simple());
    assemble_as(who, store, setting)
}

/// The same for a node that an engine knows by this name.
fn assemble_as(
    node_id: String,
    store: std::sync::Arc<dyn tahini_store::Backend>,
    setting: &Setting,
) -> anyhow::Result<Assembly> {
    let secrets = secrets_from(&setting.secrets)?;
    let options = HostOptions {
        node_id,
        eager_by_default: false,
        ..HostOptions::default()
    };
    Ok(Assembly::new(store, secrets, options, Programs::Any))
}

/// Passes a stop request on to the runs that are under way.
pub fn stop_runs_on(cancel: &Cancel, assembly: &Assembly) {
    let (cancel, hub) = (cancel.clone(), assembly.hub.clone());
    let spawned = std::thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(move || {
            // Sleeps until the request comes; the program's end takes the thread along.
            while cancel.sleep(std::time::Duration::from_secs(3600)).is_ok() {}
            hub.stop_all();
        });
    if let Err(error) = spawned {
        tracing::warn!(%error, "Ctrl-C will stop the program between runs only");
    }
}

/// The kind of a run, as people call it.
fn kind(summary: &Summary) -> &str {
    if summary.sync_type.is_empty() {
        "-"
    } else {
        &summary.sync_type
    }
}

/// A table of runs: pipe, kind, read, changed, deleted, failed, time, offset.
pub fn table(rows: &[Ran]) -> String {
    let header = [
        "pipe", "run", "read", "changed", "deleted", "failed", "seconds", "offset", "result",
    ];
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|ran| {
            let summary = &ran.summary;
            vec![
                ran.pipe.clone(),
                kind(summary).to_owned(),
                summary.read.to_string(),
                summary.changed.to_string(),
                summary.deleted.to_string(),
                summary.failed.to_string(),
                format!("{:.3}", summary.total_seconds()),
                summary
                    .offset
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), ToString::to_string),
                result(ran).to_owned(),
            ]
        })
        .collect();
    say::table(&header, &cells, &[2, 3, 4, 5, 6])
}

/// What became of a pipe, in one word.
fn result(ran: &Ran) -> &'static str {
    match &ran.disabled {
        Some(_) => "disabled",
        None if ran.summary.success() => "ok",
        None => "FAILED",
    }
}

/// Says why a run failed, and what else is worth knowing of it.
fn complain(ran: &Ran) {
    if let Some(failure) = &ran.summary.failure {
        say::error_line(&format!("pipe {:?} failed: {failure}", ran.pipe));
    }
    for warning in &ran.summary.warnings {
        say::error_line(&format!("pipe {:?}: {warning}", ran.pipe));
    }
    if let Some(comment) = ran.disabled.as_ref().filter(|text| !text.is_empty()) {
        say::error_line(&format!("pipe {:?} is disabled: {comment}", ran.pipe));
    }
}

/// Says what keeps a project from being at rest.
pub fn explain(rest: &Rest) {
    match rest.ending {
        Ending::Stopped => return say::error_line("stopped; what was finished is saved"),
        Ending::AtRest if rest.waits.is_empty() => {}
        Ending::AtRest => {
            say::error_line("nothing is left to run, and these waits can never end:");
        }
        Ending::OutOfPasses => {
            say::error_line("not at rest after the last pass that is allowed (--max-passes):");
        }
    }
    for (pipe, ids) in &rest.restless {
        let ids = ids.join(", ");
        say::error_line(&format!("  pipe {pipe:?} keeps changing {ids}"));
    }
    for wait in &rest.waits {
        say::error_line(&format!("  {wait}"));
    }
}

fn report(rows: &[Ran], rest: &Rest) -> Json {
    let runs: Vec<Json> = rows
        .iter()
        .map(|ran| {
            let mut object = summary_json(&ran.summary);
            object["pipe"] = json!(ran.pipe);
            object["pass"] = json!(ran.pass);
            object["disabled"] = json!(ran.disabled);
            if ran.disabled.is_some() {
                // It neither succeeded nor failed.
                object["success"] = Json::Null;
            }
            object
        })
        .collect();
    let status = match rest.ending {
        Ending::Stopped => "stopped",
        Ending::OutOfPasses => "restless",
        Ending::AtRest if !rest.failed.is_empty() => "failed",
        Ending::AtRest if !rest.waits.is_empty() => "stuck",
        Ending::AtRest => "settled",
    };
    json!({
        "status": status, "failed": rest.failed, "waits": rest.waits, "restless": rest.restless,
        "runs": runs,
    })
}

/// A run's outcome, as API and commands print it.
pub fn summary_json(summary: &Summary) -> Json {
    let offset = match &summary.offset {
        None => Json::Null,
        Some(tahini_entity::Offset::Int(number)) => json!(number),
        Some(tahini_entity::Offset::Text(text)) => json!(text.as_str()),
    };
    json!({
        "sync_type": summary.sync_type,
        "entities_read": summary.read,
        "changed": summary.changed,
        "deleted": summary.deleted,
        "unchanged": summary.unchanged,
        "failed": summary.failed,
        "total_time": summary.total_seconds(),
        "start_time": format!("{:.6}", summary.started),
        "end_time": format!("{:.6}", summary.ended),
        "pipe_offset": offset,
        "success": summary.success(),
        "message": summary.failure.as_ref().map(ToString::to_string),
        "warnings": summary.warnings,
        "entity_type_changes": summary.drift,
        "entity_type_changes_first": summary.drift_told,
    })
}
