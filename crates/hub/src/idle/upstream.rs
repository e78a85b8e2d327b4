//! From a pipe to those that fill what it reads.

use super::{Idle, Kind, Reason, failed, obstacles, queue, waits};
use crate::hub::{Hub, LivePipe};
use crate::{Class, Failure, Pipe, populated};

/// Pipes that one answer tells of.
const PIPES: usize = 200;

/// A question under way.
pub(super) struct Search<'a> {
    hub: &'a Hub,
    automatic: bool,
    /// The pipes between the one that was asked about and this one.
    path: Vec<String>,
    told: usize,
}

impl<'a> Search<'a> {
    pub(super) fn new(hub: &'a Hub, automatic: bool) -> Search<'a> {
        Search {
            hub,
            automatic: automatic && !switched_off(hub),
            path: Vec::new(),
            told: 0,
        }
    }

    /// What is to be said of a pipe.
    pub(super) fn of(&mut self, live: &LivePipe) -> Result<Idle, Failure> {
        self.told += 1;
        self.path.push(live.id().to_owned());
        let reasons = self.reasons(live);
        self.path.pop();
        let state = live.state();
        Ok(Idle {
            pipe: live.id().to_owned(),
            reasons: reasons?,
            next: state
                .next
                .filter(|_| self.automatic && state.disabled.is_none()),
        })
    }

    fn reasons(&mut self, live: &LivePipe) -> Result<Vec<Reason>, Failure> {
        let state = live.state();
        let mut all = obstacles(self.hub, live, &state)?;
        let ends = [Kind::Running, Kind::Configuration, Kind::NoPump];
        let Ok(pipe) = live.usable() else {
            return Ok(all);
        };
        if all.iter().any(|one| ends.contains(&one.kind)) {
            return Ok(all);
        }
        for missing in populated::missing(pipe, &self.hub.world)? {
            let reason = waits(&missing);
            all.push(self.because_of(reason, &missing.dataset)?);
        }
        all.extend(failed(self.hub, live, &state)?);
        if !self.automatic {
            let words = "schedules start no runs on this node: it runs when somebody starts it";
            all.push(Reason::new(Kind::SchedulesOff, words));
        }
        // What keeps it from running says nothing of what it would find.
        let stands = |one: &Reason| one.kind.stops() && one.kind != Kind::Failed;
        if !all.iter().any(stands) {
            all.extend(self.work(live, pipe)?);
        }
        if let Some(reason) = self.not_populated(live, pipe)? {
            all.push(reason);
        }
        Ok(all)
    }

    /// What there is to do for a pipe that may run.
    fn work(&mut self, live: &LivePipe, pipe: &Pipe) -> Result<Option<Reason>, Failure> {
        let state = live.state();
        let (unread, datasets) = queue(self.hub, live, pipe)?;
        let held = state.last.as_ref().and_then(|last| last.held_back.clone());
        if let Some(words) = held.filter(|_| unread != Some(0)) {
            return Ok(Some(Reason::new(Kind::HeldBack, words)));
        }
        let failure = state.last.as_ref().and_then(|last| last.failure.as_ref());
        let failed = failure.is_some_and(|failure| failure.class != Class::Waiting);
        let reason = match unread {
            // The failure was told.
            _ if failed => return Ok(None),
            Some(0) => Reason::new(Kind::NothingNew, "it has read everything that there is"),
            Some(few) => {
                let words = format!("{few} changes wait for its next run");
                Reason::new(Kind::Scheduled, words).with("waiting", few)
            }
            None => Reason::new(
                Kind::Scheduled,
                "its source is outside: whether there is something new is known when it runs next",
            ),
        };
        let nothing = reason.kind == Kind::NothingNew;
        let mut reason = match datasets.is_empty() {
            true => reason,
            false => reason.with("datasets", datasets),
        };
        if nothing {
            for name in pipe.inputs() {
                for live in self.hub.writers(&name) {
                    if self.path.iter().any(|id| id == live.id()) || self.told >= PIPES {
                        continue;
                    }
                    let one = self.of(&live)?;
                    let known = |other: &Idle| other.pipe == one.pipe;
                    if one.is_stopped() && !reason.because.iter().any(known) {
                        reason.because.push(one);
                    }
                }
            }
        }
        Ok(Some(reason))
    }

    /// The source that keeps what a pipe writes from counting as populated.
    fn not_populated(&mut self, live: &LivePipe, pipe: &Pipe) -> Result<Option<Reason>, Failure> {
        let Some(sink) = pipe.sink_dataset() else {
            return Ok(None);
        };
        let succeeded = live.state().last.is_some_and(|last| last.success());
        if !succeeded || populated::is_populated(&self.hub.world, sink)? == Some(true) {
            return Ok(None);
        }
        let missing = populated::of_source(pipe, &self.hub.world)?;
        let Some(first) = missing.first() else {
            return Ok(None);
        };
        // What is not there and nobody writes keeps nothing from counting (see `dataset_source`).
        let world = &self.hub.world;
        if pipe.kind("source") == "dataset"
            && !world.known.is_written(first)
            && populated::is_populated(world, first)?.is_none()
        {
            return Ok(None);
        }
        let words = format!(
            "dataset {sink:?} does not count as populated, because dataset {first:?}, which the \
             source reads, does not"
        );
        let mut reason = Reason::new(Kind::SourceNotPopulated, words).with("dataset", sink);
        for dataset in &missing {
            reason = self.because_of(reason, dataset)?;
        }
        Ok(Some(reason))
    }

    /// Adds what is to be said of the pipes that fill a dataset.
    fn because_of(&mut self, mut reason: Reason, dataset: &str) -> Result<Reason, Failure> {
        let writers = self.hub.writers(dataset);
        if writers.is_empty() {
            let words = format!("{}; no pipe fills it", reason.message);
            reason.message = words;
            return Ok(reason.with("filled-by", serde_json::json!([])));
        }
        let ids: Vec<&str> = writers.iter().map(|live| live.id()).collect();
        let mut reason = reason.with("filled-by", ids);
        for live in writers {
            let one = if let Some(at) = self.path.iter().position(|id| id == live.id()) {
                let mut round = self.path[at..].to_vec();
                round.push(live.id().to_owned());
                let words = format!("pipes wait for each other: {}", round.join(" → "));
                Idle {
                    pipe: live.id().to_owned(),
                    reasons: vec![Reason::new(Kind::Cycle, words).with("pipes", round)],
                    next: None,
                }
            } else if self.told >= PIPES {
                let words = format!("more than {PIPES} pipes have to do with it");
                Idle {
                    pipe: live.id().to_owned(),
                    reasons: vec![Reason::new(Kind::More, words)],
                    next: None,
                }
            } else {
                self.of(&live)?
            };
            reason.because.push(one);
        }
        Ok(reason)
    }
}

/// Whether the configuration keeps schedules from starting runs.
fn switched_off(hub: &Hub) -> bool {
    let configuration = hub.configuration();
    let tasks = configuration.metadata().get("task_manager");
    tasks.is_some_and(|tasks| {
        tasks["disable_user_pipes"] == true || tasks["disable_pump_scheduler"] == true
    })
}
