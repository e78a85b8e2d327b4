//! Metrics in the text format that Prometheus reads.

mod documented;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tahini_hub::hub::{LivePipe, LiveState};
use tahini_hub::totals::{Histogram, Totals};
use tahini_store::{Head, StoreError};

use crate::api::{Node, Problem};
use crate::microservices::{Snapshot, State};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A router that serves `/metrics` only, for `--metrics-listen`.
pub fn router(node: Arc<Node>) -> Router {
    Router::new().route("/metrics", get(move || answer(node.clone())))
}

async fn answer(node: Arc<Node>) -> Response {
    match node.work(text).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Ok(Err(error)) => Problem::from(error).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// All metrics of the node.
pub fn text(node: &Node) -> Result<String, StoreError> {
    let mut page = Page::default();
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.gauge("tahini_build_info", "The running version.", &version, 1.0);
    let started = node.started.as_microsecond() as f64 / 1e6;
    let help = "When the node started, in seconds since 1970.";
    page.gauge("tahini_start_time_seconds", help, &[], started);
    let damaged = node.store.damaged();
    documented::node(node, damaged.is_empty(), &mut page);
    let heads = node.store.list()?;
    let whole = documented::Whole::of(node, &heads);
    for live in node.assembly.hub.pipes() {
        pipe(node, &live, &whole, &mut page)?;
    }
    for head in &heads {
        let is_damaged = damaged.iter().any(|(name, _)| *name == head.name);
        dataset(head, is_damaged, &mut page);
    }
    let help = "How often the disk was asked to make something of the store durable.";
    let syncs = tahini_store::syncs() as f64;
    page.counter("tahini_store_syncs_total", help, &[], syncs);
    for id in node.assembly.host.ids() {
        if let Some(now) = node.assembly.host.snapshot(&id) {
            microservice(&id, &now, &mut page);
        }
    }
    Ok(page.text())
}

fn dataset(head: &Head, is_damaged: bool, page: &mut Page) {
    let name = head.name.as_str();
    let own = [("dataset", name)];
    page.gauge(
        "tahini_dataset_bytes",
        "Bytes on disk.",
        &own,
        head.bytes as f64,
    );
    let help = "Whether bytes on disk are known not to be what was written.";
    let is_damaged = f64::from(u8::from(is_damaged));
    page.gauge("tahini_dataset_damaged", help, &own, is_damaged);
    for (state, count) in [("live", head.live), ("deleted", head.deleted)] {
        let labels = [("dataset", name), ("state", state)];
        let help = "Entities by the state of their latest version.";
        page.gauge("tahini_dataset_entities", help, &labels, count as f64);
    }
    let help = "Versions that were ever written.";
    page.counter(
        "tahini_dataset_versions_total",
        help,
        &own,
        head.next as f64,
    );
}

fn microservice(id: &str, now: &Snapshot, page: &mut Page) {
    let labels = [("system", id)];
    let up = f64::from(u8::from(now.state == State::Running));
    page.gauge("tahini_microservice_up", "Whether it listens.", &labels, up);
    let help = "Starts after the first one.";
    page.counter(
        "tahini_microservice_restarts_total",
        help,
        &labels,
        now.restarts as f64,
    );
}

fn pipe(
    node: &Node,
    live: &LivePipe,
    whole: &documented::Whole<'_>,
    page: &mut Page,
) -> Result<(), StoreError> {
    let state = live.state();
    let waiting = crate::api::queue(node, live)?;
    documented::pipe(node, live, (&state, waiting), whole, page)?;
    let labels = [("pipe", live.id())];
    let flags = [
        (
            "tahini_pipe_running",
            "Whether a run is under way.",
            state.running,
        ),
        (
            "tahini_pipe_rescanning",
            "Whether a rescan goes on beside its runs.",
            state.rescanning,
        ),
        (
            "tahini_pipe_disabled",
            "Whether it was disabled.",
            state.disabled.is_some(),
        ),
        (
            "tahini_pipe_valid",
            "Whether its configuration has no errors.",
            live.component.is_valid(),
        ),
        (
            "sesam_pipe_circuit_breaker_tripped",
            "Whether its circuit breaker is tripped.",
            // A dataset that cannot be read is told by its own metrics.
            matches!(node.assembly.hub.tripped(live), Ok(Some(_))),
        ),
    ];
    for (name, help, on) in flags {
        page.gauge(name, help, &labels, f64::from(u8::from(on)));
    }
    if let Some(waiting) = waiting {
        let help = "Versions that wait in its source.";
        page.gauge("tahini_pipe_lag_versions", help, &labels, waiting as f64);
    }
    let help = "Runs since the node started.";
    page.counter("tahini_pipe_runs_total", help, &labels, state.runs as f64);
    totals(live.id(), &state.totals, page);
    last_run(live.id(), &state, page);
    if let Some(fresh) = fresh(node, &state) {
        let help = "Seconds since a run last reached its end.";
        page.gauge("tahini_pipe_freshness_seconds", help, &labels, fresh);
    }
    Ok(())
}

/// Seconds since the last run's end, where that was a good one.
fn fresh(node: &Node, state: &LiveState) -> Option<f64> {
    let last = state.last.as_ref().filter(|last| last.success())?;
    let now = node.assembly.hub.world.clock.micros();
    Some((now - last.ended.as_microsecond()).max(0) as f64 / 1e6)
}

fn totals(pipe: &str, totals: &Totals, page: &mut Page) {
    let stages = [
        ("read", totals.read),
        ("changed", totals.changed),
        ("deleted", totals.deleted),
        ("unchanged", totals.unchanged),
        ("failed", totals.failed),
    ];
    for (stage, count) in stages {
        let labels = [("pipe", pipe), ("stage", stage)];
        let help = "Entities since the node started.";
        page.counter("tahini_pipe_entities_total", help, &labels, count as f64);
    }
    let errors = [
        ("run", totals.failed_runs),
        ("read", totals.read_errors),
        ("write", totals.failed),
    ];
    for (kind, count) in errors {
        let labels = [("pipe", pipe), ("kind", kind)];
        let help = "Failed runs, failed reads and entities that could not be written.";
        page.counter("tahini_pipe_errors_total", help, &labels, count as f64);
    }
    let name = "tahini_pipe_compacted_versions_total";
    let help = "Old versions that were removed since the node started.";
    page.counter(name, help, &[("pipe", pipe)], totals.compacted as f64);
    let name = "tahini_pipe_entity_type_changes_total";
    let help = "Properties that appeared, vanished or changed their type since the node started.";
    page.counter(name, help, &[("pipe", pipe)], totals.drift as f64);
    let name = "tahini_pipe_run_duration_seconds";
    page.histogram(
        name,
        "How long runs took.",
        &[("pipe", pipe)],
        &totals.durations,
    );
}

fn last_run(pipe: &str, state: &LiveState, page: &mut Page) {
    let Some(last) = &state.last else { return };
    let labels = [("pipe", pipe)];
    let success = f64::from(u8::from(last.success()));
    let help = "Whether the last run reached its end.";
    page.gauge("tahini_pipe_last_run_success", help, &labels, success);
    let help = "How long the last run took.";
    page.gauge(
        "tahini_pipe_last_run_duration_seconds",
        help,
        &labels,
        last.total_seconds(),
    );
    let help = "When the last run ended, in seconds since 1970.";
    let ended = last.ended.as_microsecond() as f64 / 1e6;
    page.gauge(
        "tahini_pipe_last_run_timestamp_seconds",
        help,
        &labels,
        ended,
    );
    let counts = [
        ("read", last.read),
        ("changed", last.changed),
        ("deleted", last.deleted),
        ("unchanged", last.unchanged),
        ("failed", last.failed),
    ];
    for (outcome, count) in counts {
        let labels = [("pipe", pipe), ("outcome", outcome)];
        let help = "Entities of the last run.";
        page.gauge("tahini_pipe_last_run_entities", help, &labels, count as f64);
    }
    for (stage, seconds) in ["source", "transform", "sink"].iter().zip(last.seconds) {
        let labels = [("pipe", pipe), ("stage", *stage)];
        let help = "Seconds of the last run by stage.";
        page.gauge("tahini_pipe_last_run_stage_seconds", help, &labels, seconds);
    }
}

/// The page under way: a family of samples has its name, its help and its kind once.
#[derive(Default)]
struct Page {
    families: BTreeMap<&'static str, String>,
}

impl Page {
    fn gauge(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.put("gauge", name, help, labels, value);
    }

    fn counter(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.put("counter", name, help, labels, value);
    }

    fn histogram(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[(&str, &str)],
        durations: &Histogram,
    ) {
        let count = durations.count();
        let bounds = durations.cumulative().into_iter();
        let bounds = bounds.map(|(bound, count)| (bound.to_string(), count));
        for (bound, count) in bounds.chain([("+Inf".to_owned(), count)]) {
            let labels = [labels, &[("le", bound.as_str())]].concat();
            self.sample("histogram", name, "_bucket", help, &labels, count as f64);
        }
        self.sample("histogram", name, "_sum", help, labels, durations.sum);
        self.sample("histogram", name, "_count", help, labels, count as f64);
    }

    fn put(
        &mut self,
        kind: &str,
        name: &'static str,
        help: &str,
        labels: &[(&str, &str)],
        value: f64,
    ) {
        self.sample(kind, name, "", help, labels, value);
    }

    /// A sample of the family `name`; the parts of a histogram have names of their own.
    fn sample(
        &mut self,
        kind: &str,
        name: &'static str,
        suffix: &str,
        help: &str,
        labels: &[(&str, &str)],
        value: f64,
    ) {
        let begin = || format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        let family = self.families.entry(name).or_insert_with(begin);
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let labels = match labels.as_slice() {
            [] => String::new(),
            some => format!("{{{}}}", some.join(",")),
        };
        writeln!(family, "{name}{suffix}{labels} {value}").expect("writing to memory cannot fail");
    }

    fn text(self) -> String {
        self.families.into_values().collect()
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_its_help_once_and_labels_are_escaped() {
        let mut page = Page::default();
        page.gauge("b", "Bees.", &[("x", "a\"b\\c\nd")], 1.5);
        page.counter("a", "As.", &[], 2.0);
        page.gauge("b", "Bees.", &[("x", "e"), ("y", "f")], 0.0);
        let expected = "# HELP a As.\n# TYPE a counter\na 2\n\
             # HELP b Bees.\n# TYPE b gauge\nb{x=\"a\\\"b\\\\c\\nd\"} 1.5\nb{x=\"e\",y=\"f\"} 0\n";
        assert_eq!(page.text(), expected);
    }
}
