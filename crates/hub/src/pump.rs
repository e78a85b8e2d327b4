//! The pump: the one place where source, transforms, sink, progress and log meet.
//!
//! Delivery: a batch and the place after it are saved in one atomic step where the sink is a
//! dataset. Where the sink is outside, the place is saved only after the sink has the batch, so
//! that a crash repeats and never skips. A source that is not chronological is read again after
//! a crash, and what did not change writes nothing. Nothing is deleted unless the source was
//! read to its natural end.

mod again;
mod beside;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tahini_store::StateWrite;

use crate::boundary::Boundary;
use crate::completeness::{self, Leaving};
use crate::dependency::Tracking;
use crate::execution_log::{ExecutionLog, RunLog, Summary, User};
use crate::flow::Flow;
use crate::hub::LivePipe;
use crate::intake::Intake;
use crate::pipe::{Pipe, World};
use crate::plan::Plan;
use crate::policy::{Doing, Standing, Verdict, verdict};
use crate::populated;
use crate::progress::{self, Tracker};
use crate::reprocessing::Sync;
use crate::rescan::ends_at;
use crate::retry::Letters;
use crate::sink::{End, Progress, RunKind};
use crate::source::{Continuation, Step};
use crate::writer::Writer;
use crate::{Cancel, Class, Failure, Source};

/// What is asked of a run.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Read everything again, whatever the offset.
    pub rescan: bool,
    /// Do that beside incremental runs; whoever begins the run decides.
    pub beside: bool,
    /// Who asked.
    pub user: Option<User>,
    /// Seconds until the next scheduled run, for the log.
    pub next_interval: Option<f64>,
}

/// Runs a pipe once and tells what came of it; failures stand in the summary.
/// A panic is caught here and fails the run, never the node.
/// `after` is called when the run succeeded, before the log tells of it.
pub(crate) fn run(
    live: &LivePipe,
    pipe: &Pipe,
    world: &World,
    request: &Request,
    cancel: &Cancel,
    after: &dyn Fn(&mut Summary),
) -> Summary {
    // Every run tells of its own requests.
    let world = &World {
        traced: Arc::default(),
        ..world.clone()
    };
    let log = match ExecutionLog::open(world.store.as_ref(), &pipe.id, world.clock.clone()) {
        Ok(log) => log.hiding(world.secrets.clone()),
        Err(failure) => return unlogged(world, failure),
    };
    let mut run_log = RunLog::begin(&log, expected_kind(pipe, request), request.user.clone());
    if request.beside {
        run_log.set_beside();
    }
    let mut summary = Summary {
        started: run_log.started(),
        ..Summary::default()
    };
    let mut plan = None;
    let guarded = AssertUnwindSafe(|| {
        let plan = plan.insert(Plan::make(live, pipe, world, request, &log)?);
        run_planned(pipe, world, plan, &log, &mut run_log, &mut summary, cancel)
    });
    let outcome = catch_unwind(guarded).unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
    summary.sync_type = run_log.kind().sync_type().to_owned();
    summary.failure = outcome.err().map(|failure| log.told(&failure));
    if summary.failure.is_none() {
        let guarded = catch_unwind(AssertUnwindSafe(|| after(&mut summary)));
        summary.failure = guarded.err().map(|panic| panicked(panic.as_ref()));
    }
    summary.ended = world.clock.now();
    summary.trace = world.traced.take();
    summary.offset = plan.and_then(|plan| plan.current_offset(pipe));
    if run_log.is_told(|| is_worth_telling(pipe, &log, &summary))
        && let Err(failure) = run_log.end(&summary, request.next_interval)
    {
        summary.failure.get_or_insert(failure);
    }
    tell_waiting(live, pipe, world, &log, &summary);
    summary
}

/// Writes once into the log that a pipe waits, and for what: not again before it is for another
/// reason.
fn tell_waiting(
    live: &LivePipe,
    pipe: &Pipe,
    world: &World,
    log: &ExecutionLog,
    summary: &Summary,
) {
    let Some(failure) = &summary.failure else {
        return;
    };
    let before = live.state().last.and_then(|last| last.failure);
    let told = before.is_some_and(|before| before.message == failure.message);
    if failure.class != Class::Waiting || told {
        return;
    }
    // What cannot be read or written here is told by the next run that begins.
    let missing = populated::missing(pipe, world).unwrap_or_default();
    if missing.is_empty() {
        return;
    }
    if let Err(failure) = log.append(vec![log.waiting(failure, &missing)], &[]) {
        tracing::warn!(pipe = %pipe.id, %failure, "the log does not tell what the pipe waits for");
    }
}

/// The kind of a run that was not planned yet; only a run without a plan is told with it.
fn expected_kind(pipe: &Pipe, request: &Request) -> RunKind {
    if request.rescan || request.beside || pipe.continuation == Continuation::None {
        RunKind::Full
    } else {
        RunKind::Incremental
    }
}

/// Whether the log should tell of a run of which nothing stands there yet.
fn is_worth_telling(pipe: &Pipe, log: &ExecutionLog, summary: &Summary) -> bool {
    let noop = if pipe.noop_by_changes {
        summary.changed == 0
    } else {
        summary.read == 0
    };
    match &summary.failure {
        // It did not begin, and tries again soon.
        Some(failure) => failure.class != Class::Waiting,
        None if summary.compacted + summary.expired > 0 => true,
        None => !noop || pipe.log_noop || is_silent_for_long(pipe, log, summary.ended),
    }
}

/// Whether the last completed run that the log tells of is older than the pipe lets it be.
fn is_silent_for_long(pipe: &Pipe, log: &ExecutionLog, now: Timestamp) -> bool {
    let Some(longest) = pipe.notification_granularity else {
        return false;
    };
    // A log that cannot be read is told where it cannot be written.
    let last = log.last_completed().ok().flatten();
    last.is_none_or(|last| now.duration_since(last).unsigned_abs() >= longest)
}

fn run_planned(
    pipe: &Pipe,
    world: &World,
    plan: &mut Plan<'_>,
    log: &ExecutionLog,
    run_log: &mut RunLog<'_>,
    summary: &mut Summary,
    cancel: &Cancel,
) -> Result<(), Failure> {
    let started = run_log.started().as_microsecond();
    let input = Input::open(pipe, world, plan, started, cancel)?;
    summary.warnings.extend(input.sync.told());
    let source = input.source;
    run_log.set_kind(plan.kind);
    if plan.kind.reads_everything() && plan.rescan.is_none() {
        plan.live.end_rescan(cancel)?;
    }
    plan.mark_rescan(pipe, world)?;
    let mut sink = pipe.open_sink(world, cancel)?;
    let transforms = pipe.open_way(world, cancel)?;
    sink.begin(&plan.run(pipe, started))?;
    let letters = Letters {
        store: world.store.as_ref(),
        log,
        policy: &pipe.policy,
        clock: world.clock.as_ref(),
    };
    let writer = Writer {
        sink,
        policy: &pipe.policy,
        ledger: plan.ledger(log, pipe, started)?,
        letters,
        cancel,
        written: Default::default(),
        failed: 0,
        consecutive: 0,
        seconds: 0.0,
        resolved: Vec::new(),
    };
    let watch = plan.watch(pipe, !transforms.is_empty());
    let mut flow = Flow::new(&pipe.id, transforms, writer, plan.resumed);
    (flow.watch, flow.given) = (watch, Some(plan.live.given()));
    let mut work = Work {
        pipe,
        world,
        flow,
        tracker: plan.tracker(pipe, source.as_ref()),
        boundary: Boundary::new(plan.from.since.clone(), &plan.place.boundary),
        plan,
        run_log,
        intake: Intake::default(),
        read_attempts: 0,
        leaving: input.leaving,
        sync: input.sync,
        tracking: input.tracking,
        begins_anew: false,
        cancel,
        summary,
    };
    let guarded = catch_unwind(AssertUnwindSafe(|| match source {
        Some(source) => work.go(source),
        None => work.rescan(),
    }));
    work.ended(guarded.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))))
}

/// What a run reads, and what has to be known of it before it is read.
struct Input<'a> {
    leaving: Option<Leaving>,
    /// `None` for a rescan beside runs: those follow what is joined.
    tracking: Option<Tracking<'a>>,
    sync: Sync,
    /// `None` for a rescan beside runs, which opens its source when they know of it.
    source: Option<Opened>,
}

/// A source that was opened, or why it was not.
type Opened = Result<Box<dyn Source>, Failure>;

impl<'a> Input<'a> {
    /// Opens the source; where the place means nothing any more, the plan starts over.
    fn open(
        pipe: &Pipe,
        world: &World,
        plan: &mut Plan<'a>,
        started: i64,
        cancel: &Cancel,
    ) -> Result<Input<'a>, Failure> {
        populated::wait(pipe, world)?;
        let mut sync = Sync::of(pipe, world, &plan.place)?;
        if plan.rescan.is_some() {
            return Ok(Input {
                // Runs beside it promise later moments.
                leaving: None,
                tracking: None,
                sync,
                source: None,
            });
        }
        if plan.goes_on() && sync.resets(pipe) {
            plan.start_over();
        }
        // Everything is joined behind these ends; what comes later is looked at by the next run.
        let tracking = Tracking::begin(&plan.live.ways, world, plan.place.tracked.clone())?;
        // What the inputs promise is read before what they hold.
        let leaving = completeness::leaving(pipe, world, started)?;
        let mut source = pipe.open_source(world, cancel, plan.from.clone());
        if source.as_ref().is_ok_and(|source| !source.continues()) {
            plan.start_over();
            source = pipe.open_source(world, cancel, plan.from.clone());
        }
        Ok(Input {
            leaving,
            tracking: Some(tracking),
            sync,
            source: Some(source),
        })
    }
}

/// What a full run tells when entities failed in its transforms.
const HELD: &str = "entities did not get through the transforms, so that nobody knows what they \
                    would have become: the run counts as incomplete and deletes nothing";

/// What a run tells whose source is not the one that the place belongs to.
const OTHER: &str = "expected the source that the offset belongs to, found one that was created or \
                     restored since; the next run reads it from its start";

/// A run in full flow.
struct Work<'a, 'b, 'c> {
    pipe: &'a Pipe,
    world: &'a World,
    plan: &'a mut Plan<'c>,
    run_log: &'a mut RunLog<'b>,
    flow: Flow<'a>,
    intake: Intake,
    tracker: Tracker,
    boundary: Boundary,
    /// Reads that were begun again; they count over the whole run, so that a source that always
    /// breaks at the same place ends it.
    read_attempts: u64,
    leaving: Option<Leaving>,
    sync: Sync,
    tracking: Option<Tracking<'c>>,
    /// The next run has to read everything.
    begins_anew: bool,
    cancel: &'a Cancel,
    summary: &'a mut Summary,
}

impl Work<'_, '_, '_> {
    fn go(&mut self, source: Opened) -> Result<(), Failure> {
        // A rescan that is under way comes to what waits by itself.
        if !self.plan.live.state().rescanning {
            self.flow.retry_waiting(self.run_log, self.summary)?;
        }
        let mut source = self.read_all(source)?;
        self.finish(source.as_mut())
    }

    /// Reads to the end, and puts everything through transforms and sink.
    fn read_all(&mut self, source: Opened) -> Opened {
        self.intake.opened(self.plan.from.since.clone());
        let mut source = self.opened(source)?;
        let until = self.until(source.as_ref());
        let mut since_checkpoint = 0;
        loop {
            self.cancel.check()?;
            let mut step = self.read(&mut source)?;
            if let Some(at) = until
                .as_ref()
                .and_then(|it| ends_at(&self.intake.batch, it))
            {
                self.intake.batch.truncate(at);
                step = Step::End;
            }
            self.tracker.observe(&self.intake.batch)?;
            self.leave_out_processed();
            since_checkpoint += 1;
            let due = since_checkpoint >= self.pipe.checkpoint_interval || source.whole();
            // What belongs together with its place is saved before other entities come again.
            let last = source.whole() && self.follows();
            let due = due && (step == Step::More || last);
            let progress = due.then(|| self.progress(source.as_mut())).flatten();
            if due {
                since_checkpoint = 0;
            }
            self.note()?;
            self.flow.pass(
                self.run_log,
                self.summary,
                &mut self.intake,
                progress.as_ref(),
            )?;
            if step == Step::End {
                self.reprocess(source.as_mut())?;
                self.flow.end()?;
                self.summary.warnings.extend(source.warnings());
                return Ok(source);
            }
            self.note()?;
        }
    }

    /// Tells the log what the run did until now.
    fn note(&mut self) -> Result<(), Failure> {
        self.count();
        self.run_log.note(self.summary)
    }

    /// Reads one batch; a failing read is begun again from the last safe place.
    fn read(&mut self, source: &mut Box<dyn Source>) -> Result<Step, Failure> {
        loop {
            self.intake.next_step();
            let started = Instant::now();
            let step = source.next_batch(self.pipe.batch_size, &mut self.intake.batch);
            self.summary.seconds[0] += started.elapsed().as_secs_f64();
            match step {
                Ok(step) => {
                    self.intake.filled();
                    return Ok(step);
                }
                Err(failure) => *source = self.reopen(failure)?,
            }
        }
    }

    /// Counts what is processed; what was processed at the start offset before is left out.
    fn leave_out_processed(&mut self) {
        if self.pipe.continuation == Continuation::Max {
            self.boundary.observe(&self.intake.batch);
            let boundary = &self.boundary;
            self.intake.retain(|record| !boundary.is_processed(record));
        }
        self.summary.read += self.intake.batch.len() as u64;
    }

    fn opened(&mut self, source: Opened) -> Opened {
        source.or_else(|failure| self.reopen(failure))
    }

    fn reopen(&mut self, first: Failure) -> Opened {
        let mut failure = first;
        loop {
            if matches!(failure.class, Class::Cancelled | Class::Waiting) {
                return Err(failure);
            }
            self.summary.read_errors += 1;
            self.note()?;
            self.run_log.read_error(&failure)?;
            let standing = Standing {
                attempt: self.read_attempts,
                ..Standing::default()
            };
            match verdict(&failure, Doing::Read, standing, &self.pipe.policy) {
                Verdict::Retry(pause) => self.cancel.sleep(pause)?,
                _ => return Err(failure),
            }
            self.read_attempts += 1;
            let mut from = self.plan.from.clone();
            if let Some(safe) = self.tracker.checkpoint() {
                from.since = Some(safe.clone());
            }
            self.intake.opened(from.since.clone());
            match self.pipe.open_source(self.world, self.cancel, from) {
                Ok(source) if source.continues() => return Ok(source),
                Ok(_) => failure = Failure::transient(OTHER),
                Err(again) => failure = again,
            }
        }
    }

    /// What may be saved in the middle of the run, if anything.
    fn progress(&mut self, source: &mut dyn Source) -> Option<Progress> {
        let takes = self.flow.writer.sink.takes_checkpoints(self.plan.kind);
        let offset = self.tracker.checkpoint().filter(|_| takes)?;
        if let Some(record) = &self.plan.rescan {
            let offset = offset.clone();
            return Some(self.progress_beside(record.clone(), &offset, source));
        }
        if matches!(self.plan.kind, RunKind::Rescan | RunKind::Partial) {
            return None;
        }
        let mut state = vec![progress::save_offset(&self.pipe.id, Some(offset))];
        if self.plan.kind == RunKind::Full {
            state.push(progress::save_unfinished(
                &self.pipe.id,
                Some(RunKind::Full),
            ));
        }
        state.extend(self.following());
        state.extend(self.source_state(source));
        if let Some(watch) = &mut self.flow.watch {
            // What cannot be read is told at the end of the run.
            state.extend(watch.so_far().unwrap_or_default());
        }
        Some(Progress { state })
    }

    fn source_state(&self, source: &mut dyn Source) -> Vec<StateWrite> {
        let prefix = |write: StateWrite| {
            let key = [progress::SOURCE, &write.key].concat();
            progress::write(&self.pipe.id, &key, write.value)
        };
        source.state().into_iter().map(prefix).collect()
    }

    fn finish(&mut self, source: &mut dyn Source) -> Result<(), Failure> {
        if self.is_empty() && source.held_back().is_none() {
            return Err(Self::empty());
        }
        let id = &self.pipe.id;
        let mut state = Vec::new();
        let offset = source.offset();
        if let Some(offset) = offset.as_ref().or(self.tracker.end()) {
            state.push(progress::save_offset(id, Some(offset)));
        }
        let place = &self.plan.place;
        // Where a partial rescan did not come to the offset, its edge is as it was.
        let edge_is_known =
            self.plan.kind != RunKind::Partial || self.boundary.reaches(place.offset.as_ref());
        if self.pipe.continuation == Continuation::Max && edge_is_known {
            let edge = Some(self.boundary.save()).filter(|edge| !edge.is_empty());
            state.push(progress::write(id, progress::BOUNDARY, edge));
        }
        if self.plan.place.unfinished.is_some() || self.plan.kind.reads_everything() {
            state.push(progress::save_unfinished(id, None));
        }
        state.extend(self.counted_runs());
        state.extend(self.followed());
        state.extend(self.source_state(source));
        // A rescan beside this run may have read everything meanwhile.
        let everything =
            self.plan.kind.reads_everything() || self.plan.live.state().rescans > self.plan.rescans;
        state.push(self.sync.write(&self.pipe.id, everything));
        self.summary.held_back = source.held_back();
        let whole = self.plan.kind.reads_everything()
            && self.plan.from.full
            && self.summary.held_back.is_none();
        if whole && self.flow.held {
            self.summary.warnings.push(HELD.to_owned());
        }
        let along = self.promise(source.completeness(), &mut state)?;
        if let Some(watch) = &mut self.flow.watch {
            let saw_all = whole && !self.flow.held && !self.plan.resumed;
            let (writes, changes) = watch.finish(saw_all, self.world.clock.now())?;
            state.extend(writes);
            self.summary.tell_drift(&changes);
        }
        let end = End {
            complete: whole && !self.flow.held,
            populated: source.populated(),
            progress: Progress { state },
            along,
        };
        self.flow.writer.finish(self.run_log, &end)?;
        if !self.flow.writer.sink.keeps_progress() && !self.is_settled(&end.progress) {
            let Writer {
                ledger, letters, ..
            } = &self.flow.writer;
            ledger.flush(letters, &end.progress.state)?;
        }
        if let Some(leaving) = &self.leaving {
            leaving.tell(self.world, self.plan.home.snapshot()?.as_ref())?;
        }
        Ok(())
    }

    /// Makes durable what happened to failed entities, and tells sink and summary how the run ended.
    fn ended(&mut self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        let kept = self.flow.writer.flush();
        if let (Err(_), Err(failure)) = (&outcome, &kept) {
            // No place was saved behind them, so that the source gives them again.
            tracing::warn!(pipe = %self.pipe.id, %failure, "failed entities are not in the log");
        }
        let outcome = outcome.and(kept);
        if let Err(failure) = &outcome {
            self.abort(failure)?;
        }
        self.report(outcome.is_ok());
        outcome
    }

    /// The writes that count this run between rescans.
    fn counted_runs(&self) -> Vec<StateWrite> {
        let (id, kind, place) = (&self.pipe.id, self.plan.kind, &self.plan.place);
        let before = self.plan.runs_before();
        let whole = kind.reads_everything();
        let runs = if whole { 0 } else { before.0 + 1 };
        let mut state = Vec::new();
        if self.pipe.rescan_run_count.is_some() && runs != place.runs {
            state.push(progress::save_runs(id, runs));
        }
        let again = whole || kind == RunKind::Partial;
        let partials = if again { 0 } else { before.1 + 1 };
        if self.pipe.partial_rescan.is_some() && partials != place.partials {
            state.push(progress::save_partials(id, partials));
        }
        state
    }

    /// The completeness that the sink's dataset gets: among `state` where it is worth a commit of
    /// its own, otherwise what goes along with one.
    fn promise(
        &mut self,
        of_peer: Option<i64>,
        state: &mut Vec<StateWrite>,
    ) -> Result<Vec<StateWrite>, Failure> {
        let Some(leaving) = &mut self.leaving else {
            return Ok(Vec::new());
        };
        if let Some(of_peer) = of_peer {
            leaving.cap(of_peer);
        }
        let (write, due) = leaving.write(self.plan.home.snapshot()?.as_ref())?;
        if due {
            state.push(write);
            return Ok(Vec::new());
        }
        Ok(vec![write])
    }

    fn empty() -> Failure {
        Failure::transient(
            "expected the source to give at least one entity (`if_source_empty` is \"fail\"), \
             found none",
        )
    }

    /// Whether the run read everything, found nothing, and that is a failure.
    fn is_empty(&self) -> bool {
        self.pipe.fail_if_empty && self.plan.kind.reads_everything() && self.summary.read == 0
    }

    /// Whether saving `progress` would change nothing, so that an idle run costs no write.
    fn is_settled(&self, progress: &Progress) -> bool {
        let Ok(snapshot) = self.plan.home.snapshot() else {
            return false;
        };
        let saved = |write| progress::is_saved(snapshot.as_ref(), write);
        progress.state.iter().all(saved)
    }

    fn report(&mut self, succeeded: bool) {
        self.count();
        self.summary.retryable = self.flow.writer.ledger.waiting();
        self.tell_joined();
        if succeeded {
            self.tell_crowds();
        }
        self.summary.warnings.extend(self.tracker.warning());
    }

    fn count(&mut self) {
        let writer = &self.flow.writer;
        let written = &writer.written;
        self.summary.changed = written.changed;
        self.summary.deleted = written.deleted;
        self.summary.tracked = written.tracked;
        self.summary.unchanged = written.unchanged;
        self.summary.failed = writer.failed;
        self.summary.seconds[2] = writer.seconds;
    }
}

fn unlogged(world: &World, failure: Failure) -> Summary {
    let now = world.clock.now();
    Summary {
        started: now,
        ended: now,
        failure: Some(failure),
        ..Summary::default()
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let words = panic
        .downcast_ref::<&str>()
        .map(|words| (*words).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    Failure::fatal(format!(
        "the run met a defect in the program (panic): {words}"
    ))
}
