//! From a joined dataset back to the source: which entities have to be processed again when one
//! that was joined with them changes.
//!
//! Every alias of a `hops` is a place. What joined it says how to get from one of its entities to
//! those that led to it: the same join, from the other side. Followed place by place, that ends at
//! the source.

use crate::error::JsonPath;
use crate::program::Index;

/// How to get from joined entities back to the entities of the source.
#[derive(Clone, Debug, Default)]
pub struct Dependencies {
    /// The aliases of all `hops`. Those from which no way leads to the source have no steps.
    pub places: Vec<Place>,
    /// Where changes should be followed and cannot be.
    pub untracked: Vec<Untracked>,
}

/// A dataset as one alias joins it.
#[derive(Clone, Debug)]
pub struct Place {
    /// The dataset's id.
    pub dataset: String,
    /// Its changes are followed; otherwise it only lies on the way of others.
    pub tracked: bool,
    /// The steps back, each to be taken.
    pub back: Vec<Back>,
}

/// One step back: entities on the other side that have a key in common with one on this side.
#[derive(Clone, Debug)]
pub struct Back {
    /// The keys of an entity of this place.
    pub own: Side,
    /// Where the step leads.
    pub to: To,
    /// How entities are found there; an index on the source has no dataset's name.
    pub there: Side,
}

/// Where a step leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// To the entities that the transform is given.
    Source,
    /// To another place.
    Place(usize),
}

/// What an entity is joined by.
#[derive(Clone, Debug)]
pub enum Side {
    /// Its `_id`.
    Id,
    /// The keys of an index.
    Index(Index),
}

/// A join that cannot be followed back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untracked {
    /// The dataset whose changes are not noticed, as far as they go through this join.
    pub dataset: String,
    /// The condition that joins it.
    pub path: JsonPath,
    /// Why, as the end of a sentence.
    pub why: &'static str,
}

impl Dependencies {
    /// The datasets whose changes lead to entities of the source, each once, in order.
    pub fn datasets(&self) -> Vec<&str> {
        let leads = self.places.iter().filter(|place| !place.back.is_empty());
        let tracked = leads.filter(|place| place.tracked);
        let mut names: Vec<&str> = tracked.map(|place| place.dataset.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// What the compiler notes of joins, before it knows which rules are applied to what.
#[derive(Debug, Default)]
pub(crate) struct Joins {
    places: Vec<Joined>,
    applied: Vec<Applied>,
}

/// An alias.
#[derive(Debug)]
struct Joined {
    dataset: String,
    tracked: bool,
    join: Option<Join>,
}

/// What joins it.
#[derive(Debug)]
struct Join {
    path: JsonPath,
    own: Side,
    /// What is on the other side and how it is found there; or why that cannot be told.
    other: Result<(Vec<Origin>, Side), &'static str>,
}

/// A rule that is applied to what a `hops` returns.
#[derive(Debug)]
struct Applied {
    rule: usize,
    to: Vec<Origin>,
    from: Around,
}

/// What `_S` stands for somewhere: in the rule at work, and in the specs of chains around.
#[derive(Clone, Debug, Default)]
pub(crate) struct Around {
    pub(crate) rule: usize,
    /// The innermost one stands last.
    pub(crate) frames: Vec<Vec<Origin>>,
}

/// Where an entity comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The source.
    Source,
    /// A place.
    Place(usize),
    /// What a rule is applied to, or what the rule so many levels around it is.
    Rule { rule: usize, up: usize },
    /// A value that was made of entities.
    Made,
}

/// Why a join of a made value cannot be followed.
const MADE: &str = "the rule is applied to values that an expression made of entities";

impl Around {
    /// What `_S` is, so many parents up.
    pub(crate) fn source(&self, up: usize) -> Vec<Origin> {
        match self.frames.len().checked_sub(up + 1) {
            Some(at) => self.frames[at].clone(),
            None => vec![Origin::Rule {
                rule: self.rule,
                up: up - self.frames.len(),
            }],
        }
    }
}

impl Joins {
    /// Makes a place for an alias.
    pub(crate) fn add(&mut self, dataset: &str, tracked: bool) -> usize {
        self.places.push(Joined {
            dataset: dataset.to_owned(),
            tracked,
            join: None,
        });
        self.places.len() - 1
    }

    /// Notes what joins a place.
    pub(crate) fn join(
        &mut self,
        place: usize,
        path: JsonPath,
        own: Side,
        other: Result<(Vec<Origin>, Side), &'static str>,
    ) {
        if let Some(known) = self.places.get_mut(place) {
            known.join = Some(Join { path, own, other });
        }
    }

    /// Notes that a rule is applied to what comes from `to`.
    pub(crate) fn apply(&mut self, rule: usize, to: Vec<Origin>, from: Around) {
        self.applied.push(Applied { rule, to, from });
    }

    /// The ways back, now that all rules are known; entities start with the rule `default`.
    pub(crate) fn resolve(&self, default: usize) -> Dependencies {
        let mut found = Dependencies::default();
        let mut failed: Vec<Option<&'static str>> = Vec::new();
        for joined in &self.places {
            let (back, why) = match &joined.join {
                Some(join) => self.back(join, default),
                None => (Vec::new(), None),
            };
            failed.push(why);
            found.places.push(Place {
                dataset: joined.dataset.clone(),
                tracked: joined.tracked,
                back,
            });
        }
        // A change that is followed as far as a join that cannot be is lost there.
        let needed = needed(&found.places);
        for (at, why) in failed.iter().enumerate() {
            let (Some(why), Some(join)) = (why, &self.places[at].join) else {
                continue;
            };
            if needed[at] {
                found.untracked.push(Untracked {
                    dataset: self.places[at].dataset.clone(),
                    path: join.path.clone(),
                    why,
                });
            }
        }
        leading(&mut found.places);
        let spare = found.places.iter_mut().zip(needed);
        spare
            .filter(|(_, needed)| !needed)
            .for_each(|(place, _)| place.back.clear());
        found
    }

    fn back(&self, join: &Join, default: usize) -> (Vec<Back>, Option<&'static str>) {
        let (origins, there) = match &join.other {
            Ok(other) => other,
            Err(why) => return (Vec::new(), Some(why)),
        };
        let mut all = Vec::new();
        let mut asked = Vec::new();
        for origin in origins {
            self.follow(origin, default, &mut asked, &mut all);
        }
        let (mut back, mut why) = (Vec::new(), None);
        for origin in all {
            let (to, there) = match origin {
                Origin::Source => (To::Source, there.clone()),
                Origin::Place(at) => (To::Place(at), there.of(&self.places[at].dataset)),
                Origin::Rule { .. } => continue,
                Origin::Made => {
                    why = Some(MADE);
                    continue;
                }
            };
            back.push(Back {
                own: join.own.clone(),
                to,
                there,
            });
        }
        (back, why)
    }

    /// Appends what an origin is in the end, each once.
    fn follow(
        &self,
        origin: &Origin,
        default: usize,
        asked: &mut Vec<Origin>,
        all: &mut Vec<Origin>,
    ) {
        let Origin::Rule { rule, up } = *origin else {
            if !all.contains(origin) {
                all.push(origin.clone());
            }
            return;
        };
        if asked.contains(origin) {
            return;
        }
        asked.push(origin.clone());
        if rule == default && up == 0 {
            self.follow(&Origin::Source, default, asked, all);
        }
        for applied in self.applied.iter().filter(|applied| applied.rule == rule) {
            let origins = match up {
                0 => applied.to.clone(),
                up => applied.from.source(up - 1),
            };
            for origin in &origins {
                self.follow(origin, default, asked, all);
            }
        }
    }
}

impl Side {
    /// The same, of a dataset of that name.
    fn of(&self, dataset: &str) -> Side {
        match self {
            Side::Id => Side::Id,
            Side::Index(index) => Side::Index(index.in_dataset(dataset)),
        }
    }
}

/// Which places a change that is followed may come to.
fn needed(places: &[Place]) -> Vec<bool> {
    let mut needed = vec![false; places.len()];
    let tracked = places.iter().enumerate().filter(|(_, place)| place.tracked);
    let mut todo: Vec<usize> = tracked.map(|(at, _)| at).collect();
    while let Some(at) = todo.pop() {
        if !std::mem::replace(&mut needed[at], true) {
            todo.extend(places[at].back.iter().filter_map(|back| back.place()));
        }
    }
    needed
}

/// Takes away the steps that never lead to the source.
fn leading(places: &mut [Place]) {
    let mut leads = vec![false; places.len()];
    loop {
        let before = leads.clone();
        for (at, place) in places.iter().enumerate() {
            let mut to = place.back.iter().map(Back::place);
            leads[at] |= to.any(|to| to.is_none_or(|to| before[to]));
        }
        if leads == before {
            break;
        }
    }
    for place in places {
        place
            .back
            .retain(|back| back.place().is_none_or(|to| leads[to]));
    }
}

impl Back {
    fn place(&self) -> Option<usize> {
        match self.to {
            To::Source => None,
            To::Place(at) => Some(at),
        }
    }
}
