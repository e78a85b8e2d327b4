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
    /// What each pipe on the way had written, and how far each dataset was, when the last round
    /// ended.
    written: BTreeMap<usize, u64>,
    heads: BTreeMap<String, Seq>,
    /// How far its own sink's dataset was.
    sink: Option<Seq>,
    /// The entities of all rounds until now.
    entities: BTreeSet<String>,
    /// The pipes of the last round, and those of them whose idle runs tell that it has come to rest.
    circle: BTreeSet<usize>,
    readers: BTreeSet<String>,
    rounds: u64,
    since: Timestamp,
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
        let mut written = BTreeMap::new();
        let mut heads = BTreeMap::new();
        for at in around {
            let node = &ways.pipes[*at];
            for name in node.inputs.iter().chain(&node.sink) {
                if let Entry::Vacant(head) = heads.entry(name.clone()) {
                    head.insert(self.next(name)?);
                }
            }
            // Not what a run said at its end: the next pipe may have read it long before.
            let count = match (&node.sink, self.pipe(&node.id)) {
                (Some(sink), _) => heads.get(sink).copied(),
                (None, Ok(live)) => lock(live.given()).as_ref().map(Given::news),
                (None, Err(_)) => None,
            };
            written.extend(count.map(|count| (*at, count)));
        }
        let mut rounds = self.rounds();
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
        let before = (
            std::mem::replace(&mut round.written, written),
            std::mem::replace(&mut round.heads, heads),
        );
        let found = round.turn(&ways, from, before, entities, summary.ended);
        if round.rounds == 0 {
            live.lock().feeds_itself = None;
        }
        Ok(found)
    }

    /// Takes note of a run that found nothing new: the flows that it shows to be at rest are none
    /// that feed themselves.
    fn note_rest(&self, pipe: &str, ways: &Ways) -> Result<(), StoreError> {
        let mut rounds = self.rounds();
        *rounds.idle.entry(pipe.to_owned()).or_default() += 1;
        let found: Vec<_> = rounds
            .at_rest(pipe)
            .map(|(id, round)| (id.clone(), round.circle.clone()))
            .collect();
        drop(rounds);
        for (id, circle) in found {
            if self.is_under_way(&circle, pipe, ways)? {
                continue;
            }
            // It may have gone on meanwhile.
            let mut rounds = self.rounds();
            let Some((_, round)) = rounds.at_rest(pipe).find(|(at, _)| **at == id) else {
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
            let state = live.state();
            let fails = state.last.is_some_and(|last| !last.success());
            if node.inputs.is_empty() || fails || state.disabled.is_some() {
                continue;
            }
            let runs = node.id != pipe && state.running;
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
    fn at_rest(&mut self, pipe: &str) -> impl Iterator<Item = (&String, &mut Round)> {
        let Rounds { pipes, idle } = self;
        let rests = |reader: &String| idle.get(reader).is_some_and(|runs| *runs >= RESTS);
        pipes.iter_mut().filter(move |(_, round)| {
            let reads = round.rounds > 0 && round.readers.contains(pipe);
            reads && round.readers.iter().all(rests)
        })
    }
}

impl Round {
    /// One more run that wrote `entities` anew; the loop, when it is time to tell of it.
    fn turn(
        &mut self,
        ways: &Ways,
        from: usize,
        (written, heads): (BTreeMap<usize, u64>, BTreeMap<String, Seq>),
        entities: BTreeSet<String>,
        now: Timestamp,
    ) -> Option<Loop> {
        let grew = |(at, now): (&usize, &u64)| {
            let more = written.get(at).is_some_and(|before| now > before);
            more.then_some(*at)
        };
        let active: BTreeSet<usize> = self.written.iter().filter_map(grew).collect();
        let circle = ways.circle(from, |at| active.contains(&at));
        let has_news = |name: &str| heads.get(name) != self.heads.get(name);
        let comes_round = circle.contains(&from) && !ways.is_fed(&circle, has_news);
        let same: BTreeSet<String> = self.entities.intersection(&entities).cloned().collect();
        if !comes_round || (self.rounds > 0 && same.is_empty()) {
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
        self.readers = ways.readers(&circle);
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
