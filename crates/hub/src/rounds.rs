//! Flows that feed themselves: what a pipe writes comes back to it, through datasets or through a
//! system outside, and makes it write again, without end.
//!
//! Nobody can see inside a system, so this goes by counted evidence. A *round* of a pipe is a run
//! that wrote something new after every pipe on a way from it back to itself wrote something new,
//! and while nothing came in from anywhere else: no dataset that only others write got a version.
//! When the same entities go round again and again, and the pipes that read the systems on the way
//! never find nothing a few times in a row, the flow is told by name. An echo ends after one round,
//! and what people change in a system has rest before it: neither is told.

mod given;
mod ways;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard};

use jiff::Timestamp;
use serde_json::{Value as Json, json};
use tahini_entity::Batch;
use tahini_store::{Limit, Seq, StoreError, View};

use crate::execution_log::{NAMED, Summary};
use crate::hub::{Hub, LivePipe, lock, shown};

pub(crate) use given::Given;
pub use given::News;
pub(crate) use ways::Ways;

/// Rounds of the same entities after which a flow is told, and told again whenever they double.
pub const ROUNDS: u64 = 10;

/// Runs in a row that find nothing new, of each pipe that reads a system on the way, after which a
/// flow has come to rest where nothing waits on the way in a dataset.
pub const RESTS: u64 = 3;

/// Entities of a run that are watched on their way round, at most.
pub(crate) const WATCHED: usize = 1_000;

/// A flow that feeds itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// The pipes, in the order of their ids.
    pub pipes: Vec<String>,
    /// The systems outside that it goes through.
    pub systems: Vec<String>,
    /// The first entities that went round each time, by the ids that this pipe gives them.
    pub entities: Vec<String>,
    /// How many entities did.
    pub all_entities: u64,
    /// How many times they did.
    pub rounds: u64,
    /// When the first of these rounds ended.
    pub since: Timestamp,
}

/// What is remembered of the pipes that lie on circles.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    pipes: BTreeMap<String, Round>,
    /// How many runs of a pipe in a row found nothing new, none of the others that it is reached
    /// from having written anything new meanwhile.
    idle: BTreeMap<String, u64>,
}

/// What is remembered of one of them.
#[derive(Debug, Default)]
struct Round {
    /// Where things stood when the last round ended.
    stand: Stand,
    /// How far its own sink's dataset was.
    sink: Option<Seq>,
    /// The entities of all rounds until now.
    entities: BTreeSet<String>,
    /// The pipes of the last round.
    circle: BTreeSet<usize>,
    rounds: u64,
    since: Timestamp,
}

/// What each pipe on the ways from one back to itself has written, and how far each dataset is.
#[derive(Debug, Default)]
struct Stand {
    written: BTreeMap<usize, u64>,
    heads: BTreeMap<String, Seq>,
}

impl Hub {
    /// Takes note of a run; the loop, when it is time to tell of one.
    ///
    /// # Errors
    /// When a dataset cannot be read.
    pub(crate) fn note_round(
        &self,
        live: &LivePipe,
        summary: &Summary,
    ) -> Result<Option<Loop>, StoreError> {
        let ways = self.ways();
        let Some(from) = ways.at.get(live.id()).copied() else {
            return Ok(None);
        };
        let around = ways.around(from);
        if around.is_empty() {
            return Ok(None);
        }
        let news = match &summary.news {
            Some(news) => news.count,
            None => summary.changed,
        };
        if news == 0 {
            if summary.success() {
                self.note_rest(live.id(), &ways)?;
            }
            return Ok(None);
        }
        let stand = self.stand(around, &ways)?;
        let Some(mut rounds) = self.rounds_by(&ways) else {
            return Ok(None);
        };
        let Rounds { pipes, idle } = &mut *rounds;
        for at in around {
            idle.remove(&ways.pipes[*at].id);
        }
        let round = pipes.entry(live.id().to_owned()).or_default();
        let entities = match (&summary.news, &ways.pipes[from].sink) {
            (Some(news), _) => news.ids.clone(),
            (None, Some(sink)) => self.written_since(sink, &mut round.sink)?,
            (None, None) => BTreeSet::new(),
        };
        let found = round.turn(&ways, from, stand, entities, summary.ended);
        if round.rounds == 0 {
            live.lock().feeds_itself = None;
        }
        Ok(found)
    }

    /// What is remembered, as long as the pipes stand to one another as they do in `ways`.
    fn rounds_by(&self, ways: &Arc<Ways>) -> Option<MutexGuard<'_, Rounds>> {
        let rounds = self.rounds();
        Arc::ptr_eq(ways, &self.ways()).then_some(rounds)
    }

    /// Where these pipes and their datasets stand.
    fn stand(&self, around: &BTreeSet<usize>, ways: &Ways) -> Result<Stand, StoreError> {
        let mut stand = Stand::default();
        for at in around {
            let node = &ways.pipes[*at];
            for name in node.inputs.iter().chain(&node.sink) {
                if let Entry::Vacant(head) = stand.heads.entry(name.clone()) {
                    head.insert(self.next(name)?);
                }
            }
            // Not what a run said at its end: the next pipe may have read it long before.
            let count = match (&node.sink, self.pipe(&node.id)) {
                (Some(sink), _) => stand.heads.get(sink).copied(),
                (None, Ok(live)) => lock(live.given()).as_ref().map(Given::news),
                (None, Err(_)) => None,
            };
            stand.written.extend(count.map(|count| (*at, count)));
        }
        Ok(stand)
    }

    /// Takes note of a run that found nothing new: the flows that it shows to be at rest are none
    /// that feed themselves.
    fn note_rest(&self, pipe: &str, ways: &Arc<Ways>) -> Result<(), StoreError> {
        let Some(mut rounds) = self.rounds_by(ways) else {
            return Ok(());
        };
        *rounds.idle.entry(pipe.to_owned()).or_default() += 1;
        let found: Vec<_> = rounds
            .at_rest(pipe, ways)
            .map(|(id, round)| (id.clone(), round.circle.clone()))
            .collect();
        drop(rounds);
        for (id, circle) in found {
            if self.is_under_way(&circle, pipe, ways)? {
                continue;
            }
            // It may have gone on meanwhile.
            let Some(mut rounds) = self.rounds_by(ways) else {
                return Ok(());
            };
            let Some((_, round)) = rounds.at_rest(pipe, ways).find(|(at, _)| **at == id) else {
                continue;
            };
            round.rounds = 0;
            drop(rounds);
            if let Ok(live) = self.pipe(&id) {
                live.lock().feeds_itself = None;
            }
        }
        Ok(())
    }

    /// Whether something that these pipes wrote waits in a dataset for one of them that will read it,
    /// or one other than `pipe` is about it.
    fn is_under_way(
        &self,
        circle: &BTreeSet<usize>,
        pipe: &str,
        ways: &Ways,
    ) -> Result<bool, StoreError> {
        for at in circle {
            let node = &ways.pipes[*at];
            let Ok(live) = self.pipe(&node.id) else {
                continue;
            };
            let state = live.lock();
            let fails = state.last.as_ref().is_some_and(|last| !last.success());
            let runs = node.id != pipe && state.running;
            if node.inputs.is_empty() || fails || state.disabled.is_some() {
                continue;
            }
            drop(state);
            if runs || self.unread(&live)?.unwrap_or(0) > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The entities that were written into a dataset since `place`, which moves to its end; none
    /// the first time.
    fn written_since(
        &self,
        dataset: &str,
        place: &mut Option<Seq>,
    ) -> Result<BTreeSet<String>, StoreError> {
        let Some(snapshot) = shown(self.world.store.as_ref(), dataset)? else {
            return Ok(BTreeSet::new());
        };
        let Some(before) = place.replace(snapshot.head().next) else {
            return Ok(BTreeSet::new());
        };
        let view = View {
            history: true,
            deleted: true,
        };
        let limit = Limit {
            rows: WATCHED,
            bytes: 1 << 20,
        };
        let mut batch = Batch::new();
        snapshot.changes(before.checked_sub(1), view, limit, &mut batch)?;
        let ids = batch.iter().filter_map(|record| record.id);
        Ok(ids.map(str::to_owned).collect())
    }
}

impl Rounds {
    /// The flows that go round and that the idle runs of this pipe and of the others tell to be at
    /// rest, as far as these can tell.
    fn at_rest(&mut self, pipe: &str, ways: &Ways) -> impl Iterator<Item = (&String, &mut Round)> {
        let Rounds { pipes, idle } = self;
        let rests = |reader: &&str| idle.get(*reader).is_some_and(|runs| *runs >= RESTS);
        pipes.iter_mut().filter(move |(_, round)| {
            let readers = || ways.readers(&round.circle);
            round.rounds > 0 && readers().any(|at| at == pipe) && readers().all(|at| rests(&at))
        })
    }
}

impl Round {
    /// One more run that wrote `entities` anew; the loop, when it is time to tell of it.
    fn turn(
        &mut self,
        ways: &Ways,
        from: usize,
        stand: Stand,
        entities: BTreeSet<String>,
        now: Timestamp,
    ) -> Option<Loop> {
        let grew = |(at, now): (&usize, &u64)| {
            let before = self.stand.written.get(at)?;
            (now > before).then_some(*at)
        };
        let active: BTreeSet<usize> = stand.written.iter().filter_map(grew).collect();
        let circle = ways.circle(from, |at| active.contains(&at));
        let has_news = |name: &str| stand.heads.get(name) != self.stand.heads.get(name);
        let is_fed = ways.is_fed(&circle, has_news);
        let same: BTreeSet<String> = self.entities.intersection(&entities).cloned().collect();
        let others = self.rounds > 0 && same.is_empty();
        if circle.is_empty() && !others && !self.entities.is_empty() {
            // Not every pipe on the way has written since. What came back was there before the last
            // run was at its end, and goes with that round.
            return None;
        }
        self.stand = stand;
        if circle.is_empty() || is_fed || others {
            // What was written now may come round.
            (self.rounds, self.entities) = (0, entities);
            return None;
        }
        if self.rounds == 0 {
            (self.entities, self.since) = (entities, now);
        } else {
            self.entities = same;
        }
        self.rounds += 1;
        self.circle = circle;
        let circle = &self.circle;
        let told = self.rounds >= ROUNDS && (self.rounds / ROUNDS).is_power_of_two();
        (told && self.rounds.is_multiple_of(ROUNDS)).then(|| Loop {
            pipes: circle.iter().map(|at| ways.pipes[*at].id.clone()).collect(),
            systems: ways.systems(circle).into_iter().collect(),
            entities: self.entities.iter().take(NAMED).cloned().collect(),
            all_entities: self.entities.len() as u64,
            rounds: self.rounds,
            since: self.since,
        })
    }
}

impl Loop {
    /// The loop in words.
    pub fn words(&self) -> String {
        let through = match self.systems.as_slice() {
            [] => String::new(),
            systems => format!(", through {}", systems.join(", ")),
        };
        let more = match self.all_entities - self.entities.len() as u64 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "the pipes {}{through} feed themselves: {}{more} went round {} times since {:.6}, and \
             nothing else came in meanwhile; what one of them writes has to be what comes back, or \
             must not count as a change",
            self.pipes.join(", "),
            self.entities.join(", "),
            self.rounds,
            self.since
        )
    }

    /// The loop as JSON.
    pub fn to_json(&self) -> Json {
        json!({
            "pipes": self.pipes,
            "systems": self.systems,
            "entities": self.entities,
            "all-entities": self.all_entities,
            "rounds": self.rounds,
            "since": format!("{:.6}", self.since),
        })
    }
}
