//! Which pipe's writes reach which pipes, through datasets and through systems outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use super::Given;
use crate::Pipe;
use crate::hub::LivePipe;

/// Which pipe's writes reach which pipes.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    pub(super) pipes: Vec<Node>,
    pub(super) at: BTreeMap<String, usize>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) inputs: BTreeSet<String>,
    pub(super) sink: Option<String>,
    /// The system that its source reads.
    pub(super) reads: Option<String>,
    /// Those that its sink and its transforms send to.
    writes: BTreeSet<String>,
    /// The pipes that its writes reach at once, and those whose writes reach it.
    next: BTreeSet<usize>,
    before: BTreeSet<usize>,
    /// The pipes on the ways from it back to itself, once somebody asked.
    around: OnceLock<BTreeSet<usize>>,
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
            let outside = node.writes.iter();
            let outside = outside.filter_map(|system| listeners.get(system.as_str()));
            let both = sink.into_iter().chain(outside).flatten();
            both.copied().collect::<BTreeSet<usize>>()
        });
        let next: Vec<BTreeSet<usize>> = next.collect();
        for (at, next) in next.into_iter().enumerate() {
            for reached in &next {
                ways.pipes[*reached].before.insert(at);
            }
            ways.pipes[at].next = next;
        }
        let named = ways.pipes.iter().enumerate();
        ways.at = named.map(|(at, node)| (node.id.clone(), at)).collect();
        ways
    }

    /// Where what a pipe gave is remembered: for one that writes to a system which another one reads,
    /// so that it may come back.
    pub(crate) fn watched(&self, pipe: &str) -> Option<Given> {
        let node = &self.pipes[*self.at.get(pipe)?];
        (node.sink.is_none() && !node.next.is_empty()).then(Given::default)
    }

    /// The pipes that one comes to step by step, by way of those that `passes` lets through.
    fn reached(
        &self,
        from: usize,
        step: fn(&Node) -> &BTreeSet<usize>,
        passes: impl Fn(usize) -> bool,
    ) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut todo = vec![from];
        while let Some(at) = todo.pop() {
            for next in step(&self.pipes[at]) {
                if passes(*next) && found.insert(*next) {
                    todo.push(*next);
                }
            }
        }
        found
    }

    /// The pipes on the ways from one back to itself, by way of those that `passes` lets through.
    pub(super) fn circle(&self, from: usize, passes: impl Fn(usize) -> bool) -> BTreeSet<usize> {
        let mut circle = self.reached(from, |node| &node.next, &passes);
        if !circle.contains(&from) {
            return BTreeSet::new();
        }
        let behind = self.reached(from, |node| &node.before, passes);
        circle.retain(|at| behind.contains(at));
        circle
    }

    /// The pipes on all ways from one back to itself; none when nothing comes back.
    pub(super) fn around(&self, from: usize) -> &BTreeSet<usize> {
        let around = &self.pipes[from].around;
        around.get_or_init(|| self.circle(from, |_| true))
    }

    /// Systems outside that the writes of these pipes go through, back to one of them.
    pub(super) fn systems(&self, circle: &BTreeSet<usize>) -> BTreeSet<String> {
        let nodes = || circle.iter().map(|at| &self.pipes[*at]);
        let read: BTreeSet<String> = nodes().filter_map(|node| node.reads.clone()).collect();
        let written: BTreeSet<String> = nodes().flat_map(|node| node.writes.clone()).collect();
        read.intersection(&written).cloned().collect()
    }

    /// The pipes of a circle whose idle runs tell that it has come to rest: those that read its
    /// systems, or all of them where it stays within datasets.
    pub(super) fn readers<'w>(
        &'w self,
        circle: &'w BTreeSet<usize>,
    ) -> impl Iterator<Item = &'w str> {
        let systems = self.systems(circle);
        let reads = move |node: &&Node| {
            let own = node.reads.as_ref();
            systems.is_empty() || own.is_some_and(|system| systems.contains(system))
        };
        let nodes = circle.iter().map(|at| &self.pipes[*at]);
        nodes.filter(reads).map(|node| node.id.as_str())
    }

    /// Whether something outside may have brought what these pipes wrote: a dataset that none of
    /// them writes and that has news, or a system that they only read.
    pub(super) fn is_fed(&self, circle: &BTreeSet<usize>, has_news: impl Fn(&str) -> bool) -> bool {
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
        let sinks = std::iter::once(&pipe.effective["sink"]);
        let writing = sinks.chain(pipe.transforms());
        let writes = writing.filter_map(|part| part["system"].as_str());
        Node {
            id: pipe.id.clone(),
            inputs: pipe.inputs(),
            sink: pipe.sink_dataset().map(str::to_owned),
            reads: pipe.effective["source"]["system"]
                .as_str()
                .map(str::to_owned),
            writes: writes.map(str::to_owned).collect(),
            next: BTreeSet::new(),
            before: BTreeSet::new(),
            around: OnceLock::new(),
        }
    }
}
