//! What a person may change of a pipe between its runs: its offset, and whether it runs at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use tahini_entity::Offset;
use tahini_store::{Backend, Dataset, Seq, Snapshot, StateWrite, StoreError};

use super::{Hub, LivePipe, Refusal, commit_state};
use crate::config::known::keeps_places;
use crate::dependency::Mark;
use crate::entity_type::{self, Kept};
use crate::execution_log::{ExecutionLog, User};
use crate::pipe::Pipe;
use crate::places::Places;
use crate::progress::{self, Place, TRACKED};
use crate::reprocessing::SYNC;
use crate::retry::Ledger;
use crate::source::Continuation;
use crate::{Class, Failure, breaker, rescan};

/// The key under which a disabled pipe keeps the comment.
pub(super) const DISABLED: &[u8] = b"disabled";

/// Nobody may change the place of a pipe under a run or a rescan.
fn rest(live: &LivePipe) -> Result<(), Refusal> {
    let state = live.state();
    match (state.running, state.rescanning) {
        (true, _) => Err(Refusal::Running(live.id().to_owned())),
        (_, true) => Err(Refusal::Rescanning(live.id().to_owned())),
        (false, false) => Ok(()),
    }
}

/// Nothing is changed beside what a circuit breaker holds back, the place that was saved with it
/// among that: first somebody decides what becomes of it.
fn make_ready(live: &LivePipe, home: &dyn Dataset) -> Result<(), Refusal> {
    breaker::make_ready(home).map_err(|failure| match failure.class {
        Class::Waiting => Refusal::Tripped(live.id().to_owned(), failure.message),
        _ => Refusal::Failed(failure),
    })
}

/// A dataset that a source reads: the sequence that was read last, and the last one that there is.
pub(crate) struct Input<'p> {
    pub(crate) dataset: &'p str,
    pub(crate) read: Option<Seq>,
    pub(crate) last: Option<Seq>,
}

impl Input<'_> {
    /// How many versions wait.
    pub(crate) fn unread(&self) -> u64 {
        let behind = |seq: Option<Seq>| seq.map_or(0, |seq| seq + 1);
        behind(self.last).saturating_sub(behind(self.read))
    }
}

impl Hub {
    /// The dataset that keeps a pipe's place.
    pub fn home(&self, pipe: &Pipe) -> Result<Arc<dyn Dataset>, Failure> {
        Ok(self.world.store.open(&pipe.home(), true)?)
    }

    /// A pipe's place.
    pub fn place(&self, pipe: &Pipe) -> Result<Place, Failure> {
        Ok(Place::load(
            self.home(pipe)?.snapshot()?.as_ref(),
            &pipe.id,
        )?)
    }

    /// Sets a pipe's offset by hand; `None` resets it, and the next run is a full one.
    pub fn set_offset(&self, id: &str, offset: Option<Offset>, user: &User) -> Result<(), Refusal> {
        let live = self.pipe(id)?;
        let pipe = live.usable()?;
        if live
            .component
            .props()
            .bool("disable_set_last_seen", false)?
        {
            return Err(Refusal::Protected(id.to_owned()));
        }
        if let Some(offset) = &offset {
            fits(pipe, offset)?;
        }
        // A run that begins later reads the place when this is done; one that began before
        // would save its own over it.
        let _held = live.hold_place();
        rest(&live)?;
        let home = self.home(pipe)?;
        make_ready(&live, home.as_ref())?;
        let snapshot = home.snapshot()?;
        let old = Place::load(snapshot.as_ref(), id)?.offset;
        let mut state = Vec::new();
        if pipe.sink_dataset().is_some() {
            state = progress::reset(snapshot.as_ref(), id)?;
        } else {
            state.push(progress::save_unfinished(id, None));
        }
        state.push(progress::write(id, progress::BOUNDARY, None));
        // Only a run that reads everything is in sync with its input again.
        let goes_on = |key: &[u8]| key == SYNC || key.starts_with(TRACKED);
        let kept = |key: &[u8]| key == b"offset" || (goes_on(key) && offset.is_some());
        state.retain(|write| !kept(&write.key));
        state.retain(|write| !write.key.starts_with(entity_type::PREFIX));
        // As documented: without a continuation every run begins anew, and says nothing by that.
        if offset.is_none() && pipe.continuation != Continuation::None {
            let types = entity_type::forget(snapshot.as_ref(), id);
            state.extend(types?);
        }
        state.push(progress::save_offset(id, offset.as_ref()));
        // What runs came to since a rescan began is known as far as they go on from one place.
        let rescan = match offset {
            Some(_) => rescan::begin_anew(snapshot.as_ref(), id),
            None => rescan::forget(snapshot.as_ref(), id),
        };
        state.extend(rescan?);
        commit_state(home.as_ref(), &state, false, self.world.clock.as_ref())?;
        let log = self.log(id)?;
        log.append(
            vec![log.offset_set(
                old.as_ref(),
                offset.as_ref(),
                live.state().last.as_ref(),
                user,
            )],
            &[],
        )?;
        Ok(())
    }

    /// Makes the next rescan begin from the start, where one was interrupted.
    ///
    /// # Errors
    /// When the pipe is running or rescanning, or its place cannot be read or written.
    pub fn reset_rescan(&self, id: &str) -> Result<(), Refusal> {
        let live = self.pipe(id)?;
        let pipe = live.usable()?;
        let _held = live.hold_place();
        rest(&live)?;
        let home = self.home(pipe)?;
        make_ready(&live, home.as_ref())?;
        let snapshot = home.snapshot()?;
        let state = rescan::forget(snapshot.as_ref(), id)?;
        if !state.is_empty() {
            commit_state(home.as_ref(), &state, false, self.world.clock.as_ref())?;
        }
        live.lock().rescan_is_held = false;
        Ok(())
    }

    /// Sets a pipe's offset to the end of its source dataset.
    pub fn set_offset_to_end(&self, id: &str, user: &User) -> Result<Option<Offset>, Refusal> {
        let live = self.pipe(id)?;
        let pipe = live.usable()?;
        if !keeps_places(pipe.kind("source")) {
            let words = format!(
                "the pump of pipe {id:?} doesn't support the operation \
                 \"set-last-seen-to-end\": only a source of datasets knows its end"
            );
            return Err(Refusal::Failed(Failure::config(words)));
        }
        let mut ends = Places::default();
        for name in pipe.source_datasets() {
            if let Some(last) = self.next(name)?.checked_sub(1) {
                ends.0.insert(name.to_owned(), last);
            }
        }
        let offset = match pipe.kind("source") {
            "dataset" => ends
                .0
                .into_values()
                .next()
                .and_then(|seq| i64::try_from(seq).ok())
                .map(Offset::Int),
            _ => ends.offset(),
        };
        self.set_offset(id, offset.clone(), user)?;
        Ok(offset)
    }

    /// Gives up what waits for a retry: the next run does not try it again.
    ///
    /// # Errors
    /// When the pipe is running, or the log cannot be read or written.
    pub fn discard_retries(&self, id: &str, user: &User) -> Result<(), Refusal> {
        let live = self.pipe(id)?;
        let _held = live.hold_place();
        rest(&live)?;
        let log = self.log(id)?;
        Ledger::load(&log, id)?.discard(&log)?;
        log.append(vec![log.retries_discarded(user)], &[])?;
        if let Some(last) = &mut live.lock().last {
            last.retryable = 0;
        }
        Ok(())
    }

    /// Lets the next run of a pipe try again what was given up: these entities, or all of them
    /// where none is named. How many there are.
    ///
    /// # Errors
    /// When the pipe is running, or the log cannot be read or written.
    pub fn retry_dead_letters(&self, id: &str, ids: &[&str], user: &User) -> Result<u64, Refusal> {
        let live = self.pipe(id)?;
        let _held = live.hold_place();
        rest(&live)?;
        let log = self.log(id)?;
        let count = Ledger::load(&log, id)?.revive(&log, ids)?;
        log.append(vec![log.dead_letters_retried(count, user)], &[])?;
        if let Some(last) = &mut live.lock().last {
            last.retryable += count;
        }
        Ok(count)
    }

    /// Forgets what was inferred of the entities of a pipe.
    ///
    /// # Errors
    /// When the pipe is running, or its place cannot be read or written.
    pub fn discard_entity_types(&self, id: &str, user: &User) -> Result<(), Refusal> {
        let live = self.pipe(id)?;
        let pipe = live.usable()?;
        let _held = live.hold_place();
        if live.state().running {
            return Err(Refusal::Running(id.to_owned()));
        }
        let mut receiving = live
            .receiving
            .lock()
            .unwrap_or_else(|lock| lock.into_inner());
        receiving.look = None;
        let home = self.home(pipe)?;
        if let Some(tripped) = breaker::tripped(home.as_ref())? {
            let words = breaker::stands_still(home.name(), &tripped);
            return Err(Refusal::Tripped(id.to_owned(), words));
        }
        let snapshot = home.snapshot()?;
        let state = entity_type::forget(snapshot.as_ref(), id)?;
        commit_state(home.as_ref(), &state, false, self.world.clock.as_ref())?;
        let log = self.log(id)?;
        log.append(vec![log.entity_types_discarded(user)], &[])?;
        Ok(())
    }

    /// What was inferred of the entities of a pipe; nothing is made that is not there.
    ///
    /// # Errors
    /// When the pipe cannot run at all, or its place cannot be read.
    pub fn entity_types(&self, id: &str) -> Result<Kept, Refusal> {
        let live = self.pipe(id)?;
        let pipe = live.usable()?;
        let Some(home) = self.world.store.find(&pipe.home())? else {
            return Ok(Kept::default());
        };
        let snapshot = home.snapshot()?;
        Ok(Kept::load(snapshot.as_ref(), id)?)
    }

    /// Enables or disables a pipe, for good.
    pub fn switch(
        &self,
        id: &str,
        enabled: bool,
        comment: &str,
        user: &User,
    ) -> Result<(), Refusal> {
        let live = self.pipe(id)?;
        let log = self.log(id)?;
        let value = (!enabled).then(|| comment.as_bytes().to_vec());
        let state = [progress::write(id, DISABLED, value)];
        let words = Some(comment).filter(|text| !text.is_empty());
        log.append(vec![log.switched(enabled, words, user)], &state)?;
        live.lock().disabled = (!enabled).then(|| comment.to_owned());
        Ok(())
    }

    /// The execution log of a pipe.
    pub fn log(&self, id: &str) -> Result<ExecutionLog, Failure> {
        ExecutionLog::open(self.world.store.as_ref(), id, self.world.clock.clone())
    }

    /// How many versions wait in the dataset that a pipe reads; `None` where nobody can know.
    pub fn unread(&self, live: &LivePipe) -> Result<Option<u64>, StoreError> {
        let Ok(pipe) = live.usable() else {
            return Ok(None);
        };
        let inputs = self.read_and_last(pipe)?;
        Ok(inputs.map(|inputs| inputs.iter().map(Input::unread).sum()))
    }

    /// How far a pipe has read each dataset of its source; `None` where nobody can know.
    pub(crate) fn read_and_last<'p>(
        &self,
        pipe: &'p Pipe,
    ) -> Result<Option<Vec<Input<'p>>>, StoreError> {
        if !keeps_places(pipe.kind("source")) {
            return Ok(None);
        }
        let offset = match shown(self.world.store.as_ref(), &pipe.home())? {
            Some(home) => progress::offset(home.as_ref(), &pipe.id)?,
            None => None,
        };
        let mut inputs = Vec::new();
        for dataset in pipe.source_datasets() {
            inputs.push(Input {
                dataset,
                read: offset.as_ref().and_then(|it| Places::read(it, dataset)),
                last: self.next(dataset)?.checked_sub(1),
            });
        }
        Ok(Some(inputs))
    }

    /// How many versions of each joined dataset a pipe has not looked at yet (see `dependency`).
    pub fn unfollowed(&self, live: &LivePipe) -> Result<BTreeMap<String, u64>, StoreError> {
        let mut all = BTreeMap::new();
        let (Ok(pipe), followed) = (live.usable(), live.ways.datasets()) else {
            return Ok(all);
        };
        // Most pipes join nothing, and a look at a dataset waits for what is being written.
        if followed.is_empty() {
            return Ok(all);
        }
        let Some(home) = shown(self.world.store.as_ref(), &pipe.home())? else {
            return Ok(all);
        };
        for name in followed {
            // Before the first run everything is new, and nothing waits to be followed.
            if let Some(mark) = progress::tracked(home.as_ref(), &pipe.id, name)? {
                let waiting = self.next(name)?.saturating_sub(mark.next);
                all.insert(name.to_owned(), waiting);
            }
        }
        Ok(all)
    }

    /// Has the next run follow joined datasets from their ends on: what changed in them until then
    /// is not looked at.
    ///
    /// # Errors
    /// When the pipe is running or rescanning, or its place cannot be read or written.
    pub fn reset_tracking(&self, id: &str) -> Result<(), Refusal> {
        self.set_tracking(id, |live, home| {
            let known = home
                .snapshot()?
                .state(&progress::space(live.id()), TRACKED)?;
            let known = known.into_iter();
            Ok(known
                .map(|(key, _)| progress::write(live.id(), &key, None))
                .collect())
        })
    }

    /// Has the next run look at all versions of joined datasets: whatever they lead back to goes
    /// through the pipe once more.
    ///
    /// # Errors
    /// When the pipe is running or rescanning, or its place cannot be read or written.
    pub fn set_tracking_to_start(&self, id: &str) -> Result<(), Refusal> {
        self.set_tracking(id, |live, _| {
            let mut state = Vec::new();
            for name in live.ways.datasets() {
                let key = [TRACKED, name.as_bytes()].concat();
                let there = shown(self.world.store.as_ref(), name)?;
                let start = Mark::start(there.as_deref()).bytes();
                state.push(progress::write(live.id(), &key, Some(start)));
            }
            Ok(state)
        })
    }

    fn set_tracking(
        &self,
        id: &str,
        state: impl FnOnce(&LivePipe, &dyn Dataset) -> Result<Vec<StateWrite>, StoreError>,
    ) -> Result<(), Refusal> {
        let live = self.pipe(id)?;
        let pipe = live.usable()?;
        let _held = live.hold_place();
        rest(&live)?;
        let home = self.home(pipe)?;
        make_ready(&live, home.as_ref())?;
        let state = state(&live, home.as_ref())?;
        commit_state(home.as_ref(), &state, false, self.world.clock.as_ref())?;
        Ok(())
    }

    /// How many versions a dataset ever had.
    pub(crate) fn next(&self, dataset: &str) -> Result<u64, StoreError> {
        let found = shown(self.world.store.as_ref(), dataset)?;
        Ok(found.map_or(0, |snapshot| snapshot.head().next))
    }
}

/// Whether the pipe's source can go on from an offset, as far as that is known here.
fn fits(pipe: &Pipe, offset: &Offset) -> Result<(), Failure> {
    let kind = pipe.kind("source");
    let found = match (kind, offset) {
        (kind, _) if !keeps_places(kind) => return Ok(()),
        ("dataset", Offset::Int(seq)) if *seq >= 0 => return Ok(()),
        ("dataset", Offset::Int(seq)) => format!("{seq}"),
        ("dataset", Offset::Text(text)) => format!("{text:?}"),
        (_, offset) => match Places::of(offset) {
            Ok(_) => return Ok(()),
            Err(words) => return Err(Failure::config(words)),
        },
    };
    Err(Failure::config(format!(
        "expected the sequence number of a version, from 0, as the offset of pipe {:?}, which reads \
         a dataset; found {found}",
        pipe.id
    )))
}

/// A dataset for people to look at: what is left of it, where it is damaged; nothing, where that
/// cannot be told. Who looks at many is not kept from it by one.
///
/// # Errors
/// When the store cannot be read.
pub fn shown(store: &dyn Backend, name: &str) -> Result<Option<Box<dyn Snapshot>>, StoreError> {
    match store.find(name) {
        Ok(Some(dataset)) => dataset.remains().map(Some),
        Ok(None) | Err(StoreError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
