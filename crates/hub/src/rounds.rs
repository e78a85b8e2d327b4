//! Flows that feed themselves: what a pipe writes comes back to it, through datasets or through a
//! system outside, and makes it write again, without end.
//!
//! Nobody can see inside a system, so this goes by counted evidence. A *round* of a pipe is a run
//! that wrote something after every pipe on a way from it back to itself wrote something, and while
//! nothing came in from anywhere else: no dataset that only others write got a version. When the
//! same entities go round again and again, the flow is told by name. An echo ends after one round,
//! and what people change in a system does not come round there: neither is told.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value as Json, json};
use tahini_store::{Seq, StoreError};

use crate::Pipe;
use crate::execution_log::Summary;
use crate::hub::{Hub, LivePipe, shown};

/// Rounds of the same entities after which a flow is told, and told again whenever they double.
pub const ROUNDS: u64 = 10;

/// A flow that feeds itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// The pipes, in the order of their ids.
    pub pipes: Vec<String>,
    /// The systems outside that it goes through.
    pub systems: Vec<String>,
    /// Entities that went round each time, by the ids that this pipe gives them.
    pub entities: Vec<String>,
    /// How many times they did.
    pub rounds: u64,
    /// When the first of these rounds ended.
    pub since: Timestamp,
}

/// Which pipe's writes reach which pipes.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    pipes: Vec<Node>,
    at: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Node {
    id: String,
    inputs: BTreeSet<String>,
    sink: Option<String>,
    /// The system that its source reads, and the one that its sink writes.
    reads: Option<String>,
    writes: Option<String>,
    next: Vec<usize>,
    /// What it writes may come back to it.
    turns: bool,
}

/// What is remembered of a pipe that lies on a circle.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// What each pipe had written, and how far each dataset was, when the last round ended.
    written: BTreeMap<usize, u64>,
    heads: BTreeMap<String, Seq>,
    /// The entities of all rounds until now.
    entities: BTreeSet<String>,
    rounds: u64,
    since: Timestamp,
}

impl Ways {
    pub(crate) fn of<'p>(pipes: impl Iterator<Item = &'p LivePipe>) -> Ways {
        let nodes = pipes.filter_map(|live| Some(Node::of(live.pipe.as_ref().ok()?)));
        let mut ways = Ways {
            pipes: nodes.collect(),
            at: BTreeMap::new(),
        };
        let mut readers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut listeners: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, node) in ways.pipes.iter().enumerate() {
            for input in &node.inputs {
                readers.entry(input).or_default().push(at);
            }
            if let Some(system) = &node.reads {
                listeners.entry(system).or_default().push(at);
            }
        }
        let next = ways.pipes.iter().map(|node| {
            let sink = node.sink.as_deref().and_then(|name| readers.get(name));
            let outside = node.writes.as_deref();
            let outside = outside.and_then(|system| listeners.get(system));
            let both = sink.into_iter().chain(outside).flatten();
            both.copied().collect::<Vec<usize>>()
        });
        let next: Vec<Vec<usize>> = next.collect();
        for (node, next) in ways.pipes.iter_mut().zip(next) {
            node.next = next;
        }
        for at in 0..ways.pipes.len() {
            ways.pipes[at].turns = ways.reached(at, |_| true).contains(&at);
        }
        let named = ways.pipes.iter().enumerate();
        ways.at = named.map(|(at, node)| (node.id.clone(), at)).collect();
        ways
    }

    /// The pipes that the writes of one reach, by way of those that `passes` lets through.
    fn reached(&self, from: usize, passes: impl Fn(usize) -> bool) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut todo = vec![from];
        while let Some(at) = todo.pop() {
            for next in &self.pipes[at].next {
                if passes(*next) && found.insert(*next) {
                    todo.push(*next);
                }
            }
        }
        found
    }

    /// The pipes on the ways from one back to itself, by way of those that are active.
    fn circle(&self, from: usize, active: &BTreeSet<usize>) -> BTreeSet<usize> {
        let passes = |at: usize| active.contains(&at);
        let mut circle = self.reached(from, passes);
        circle.retain(|at| *at == from || self.reached(*at, passes).contains(&from));
        circle
    }

    /// Systems outside that the writes of these pipes go through, back to one of them.
    fn systems(&self, circle: &BTreeSet<usize>) -> BTreeSet<String> {
        let of = |system: fn(&Node) -> &Option<String>| -> BTreeSet<String> {
            let all = circle
                .iter()
                .filter_map(|at| system(&self.pipes[*at]).clone());
            all.collect()
        };
        let (read, written) = (of(|node| &node.reads), of(|node| &node.writes));
        read.intersection(&written).cloned().collect()
    }

    /// Whether something outside may have brought what these pipes wrote: a dataset that none of
    /// them writes and that has news, or a system that they only read.
    fn is_fed(&self, circle: &BTreeSet<usize>, has_news: impl Fn(&str) -> bool) -> bool {
        let own: BTreeSet<&str> = circle
            .iter()
            .filter_map(|at| self.pipes[*at].sink.as_deref())
            .collect();
        let systems = self.systems(circle);
        circle.iter().any(|at| {
            let node = &self.pipes[*at];
            let inputs = node.inputs.iter().map(String::as_str);
            let mut others = inputs.filter(|name| !own.contains(name));
            others.any(&has_news) || node.reads.as_ref().is_some_and(|it| !systems.contains(it))
        })
    }
}

impl Node {
    fn of(pipe: &Pipe) -> Node {
        let system = |part: &str| pipe.effective[part]["system"].as_str().map(str::to_owned);
        Node {
            id: pipe.id.clone(),
            inputs: pipe.inputs(),
            sink: pipe.sink_dataset().map(str::to_owned),
            reads: system("source"),
            writes: system("sink"),
            next: Vec::new(),
            turns: false,
        }
    }
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
        if !ways.pipes[from].turns || summary.changed == 0 {
            return Ok(None);
        }
        let reached = ways.reached(from, |_| true);
        let mut written = BTreeMap::new();
        let mut heads = BTreeMap::new();
        for at in &reached {
            let node = &ways.pipes[*at];
            if let Ok(live) = self.pipe(&node.id) {
                written.insert(*at, live.lock().totals.changed);
            }
            for name in &node.inputs {
                let found = shown(self.world.store.as_ref(), name)?;
                heads.insert(name.clone(), found.map_or(0, |found| found.head().next));
            }
        }
        let mut rounds = self.rounds();
        let round = rounds.entry(live.id().to_owned()).or_default();
        let before = (
            std::mem::replace(&mut round.written, written),
            std::mem::replace(&mut round.heads, heads),
        );
        let found = round.turn(&ways, from, before, summary);
        if round.rounds == 0 {
            live.lock().feeds_itself = None;
        }
        Ok(found)
    }
}

impl Round {
    /// One more run that wrote something; the loop, when it is time to tell of it.
    fn turn(
        &mut self,
        ways: &Ways,
        from: usize,
        (written, heads): (BTreeMap<usize, u64>, BTreeMap<String, Seq>),
        summary: &Summary,
    ) -> Option<Loop> {
        let grew = |(at, now): (&usize, &u64)| {
            let more = written.get(at).is_some_and(|before| now > before);
            more.then_some(*at)
        };
        let active: BTreeSet<usize> = self.written.iter().filter_map(grew).collect();
        let circle = ways.circle(from, &active);
        let has_news = |name: &str| heads.get(name) != self.heads.get(name);
        let first: BTreeSet<String> = summary.first_ids.iter().cloned().collect();
        let comes_round = circle.contains(&from) && !ways.is_fed(&circle, has_news);
        let same: BTreeSet<String> = self.entities.intersection(&first).cloned().collect();
        if !comes_round || (self.rounds > 0 && same.is_empty()) {
            // What was written now may come round.
            (self.rounds, self.entities) = (0, first);
            self.since = summary.ended;
            return None;
        }
        self.entities = if self.rounds == 0 { first } else { same };
        self.rounds += 1;
        let told = self.rounds >= ROUNDS && (self.rounds / ROUNDS).is_power_of_two();
        (told && self.rounds.is_multiple_of(ROUNDS)).then(|| Loop {
            pipes: circle.iter().map(|at| ways.pipes[*at].id.clone()).collect(),
            systems: ways.systems(&circle).into_iter().collect(),
            entities: self.entities.iter().cloned().collect(),
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
        format!(
            "the pipes {}{through} feed themselves: {} went round {} times since {:.6}, and nothing \
             else came in meanwhile; what one of them writes has to be what comes back, or must not \
             count as a change",
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
            "rounds": self.rounds,
            "since": format!("{:.6}", self.since),
        })
    }
}
