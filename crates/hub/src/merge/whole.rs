//! Everything at once: which entities are the same is found over numbers, and what becomes of them
//! is read a part at a time, so that memory holds 24 bytes a key, 12 an entity, one window, and a
//! piece of what it becomes.

use std::collections::HashSet;
use std::ops::Range;

use tahini_entity::{Batch, Meta, json};
use tahini_store::{Seq, StoreError, View};

use super::blend::Blend;
use super::clash::{self, Clashes, Shared};
use super::leads::Leads;
use super::part::{Part, SCAN, each};
use super::reach::{identity, too_many};
use super::rules::{Identity, Key, Merging};
use crate::places::seq_of;
use crate::{Cancel, Failure};

const LATEST: View = View {
    history: false,
    deleted: true,
};
/// Bytes of entities that are read together.
const WINDOW_BYTES: usize = 96 << 20;
/// What a row takes beside its content.
const ROW_BYTES: usize = 176;
/// Entities may be a little longer in some places than they are on average.
const SPARE_BYTES: usize = 16;
/// Groups that are put together at a time.
const PIECE: usize = 8_192;
/// From every so many entities on, a dataset can be read.
const MARK: usize = 1_024;
/// The group of an entity that is the same as nobody.
const ALONE: u32 = u32::MAX;

/// A key of an entity, by its number over all datasets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    high: u64,
    low: u64,
    set: u32,
    entity: u32,
}

/// What is known of a dataset after it was read once.
#[derive(Default)]
struct Survey {
    count: usize,
    bytes: usize,
    /// The sequences of every `MARK`th entity.
    marks: Vec<Seq>,
    held: Vec<Held>,
    /// Hashes of the ids, in order, where ids can clash.
    ids: Vec<u64>,
}

/// A full run.
pub(super) struct Whole {
    /// For each dataset, the number of its first entity; and the end.
    starts: Vec<usize>,
    marks: Vec<Vec<Seq>>,
    /// The group of each entity.
    groups: Vec<u32>,
    /// How many entities each group has.
    sizes: Vec<u32>,
    entity_bytes: usize,
    /// Groups of which the entities were read.
    read: usize,
    window: Window,
    /// What was put together and is not given out yet, and the place in it.
    piece: Vec<Batch>,
    place: (usize, usize),
    /// Then those that are alone: the dataset, and where to go on.
    alone: (usize, Option<Seq>, usize),
    /// Ids that several datasets have, where these can clash.
    shared: Shared,
}

impl Whole {
    /// Reads all datasets once and finds out what is the same.
    ///
    /// # Errors
    /// Fatal where too many entities are the same.
    pub(super) fn survey(
        merging: &Merging,
        parts: &mut [Part],
        cancel: &Cancel,
    ) -> Result<Whole, Failure> {
        let mut surveys = each(&mut *parts, |at, part| survey(merging, part, at, cancel))?;
        cancel.check()?;
        let ids = surveys.iter_mut().map(|one| std::mem::take(&mut one.ids));
        let shared = Shared::of(ids);
        let (mut starts, mut marks, mut held) = (vec![0], Vec::new(), Vec::new());
        let (mut count, mut bytes) = (0, 0);
        for one in surveys {
            let first = number(count)?;
            held.reserve_exact(one.held.len());
            held.extend(one.held.into_iter().map(|held| Held {
                entity: held.entity + first,
                ..held
            }));
            count += one.count;
            bytes += one.bytes;
            starts.push(count);
            marks.push(one.marks);
        }
        number(count)?;
        held.sort_unstable();
        let mut leads = Leads::of(count);
        for same in held.chunk_by(|one, two| one.key() == two.key()) {
            if same.len() > merging.max_merged {
                let whole = Whole::empty(starts, marks);
                return Err(whole.told(merging, parts, same[0]));
            }
            for pair in same.windows(2) {
                leads.join(pair[0].entity as usize, pair[1].entity as usize);
            }
        }
        let mut whole = Whole::empty(starts, marks);
        whole.shared = shared;
        whole.entity_bytes = bytes / count.max(1) + ROW_BYTES;
        whole.number_groups(leads);
        let biggest = whole.sizes.iter().max().copied().unwrap_or_default();
        if biggest as usize > merging.max_merged {
            let largest = whole.sizes.iter().position(|size| *size == biggest);
            let of_it = |held: &&Held| Some(whole.groups[held.entity as usize] as usize) == largest;
            let sample = held.iter().find(of_it).copied();
            return Err(match sample {
                Some(sample) => whole.told(merging, parts, sample),
                None => too_many(merging, "of one group"),
            });
        }
        Ok(whole)
    }

    fn empty(starts: Vec<usize>, marks: Vec<Vec<Seq>>) -> Whole {
        Whole {
            starts,
            marks,
            groups: Vec::new(),
            sizes: Vec::new(),
            entity_bytes: 0,
            read: 0,
            window: Window::default(),
            piece: Vec::new(),
            place: (0, 0),
            alone: (0, None, 0),
            shared: Shared::default(),
        }
    }

    /// Numbers the groups of more than one in the order of their first entities.
    fn number_groups(&mut self, mut leads: Leads) {
        let mut counts = vec![0u32; leads.len()];
        for entity in 0..leads.len() {
            counts[leads.lead(entity)] += 1;
        }
        // A lead is the smallest number of its group, so that it is met first.
        self.groups = vec![ALONE; leads.len()];
        for entity in 0..leads.len() {
            let lead = leads.lead(entity);
            if counts[lead] < 2 {
                continue;
            }
            if lead == entity {
                self.groups[lead] = self.sizes.len() as u32;
                self.sizes.push(counts[lead]);
            }
            self.groups[entity] = self.groups[lead];
        }
    }

    /// Appends at most `limit` entities; whether there may be more.
    ///
    /// # Errors
    /// Where a dataset cannot be read.
    pub(super) fn give(
        &mut self,
        merging: &Merging,
        parts: &mut [Part],
        (blend, clashes): (&mut Blend, &mut Clashes),
        limit: usize,
        out: &mut Batch,
    ) -> Result<bool, Failure> {
        clashes.shared = !self.shared.is_empty();
        loop {
            while let Some(batch) = self.piece.get(self.place.0) {
                let end = (self.place.1 + limit - out.len()).min(batch.len());
                for record in (self.place.1..end).map(|at| batch.get(at)) {
                    let id = record.id.unwrap_or_default();
                    match clashes.shared && self.shared.was_given(id) {
                        true => clash::note(clashes, merging, parts, id)?,
                        false => out.push(record),
                    }
                }
                self.place.1 = end;
                if end == batch.len() {
                    self.place = (self.place.0 + 1, 0);
                }
                if out.len() >= limit {
                    return Ok(true);
                }
            }
            self.place = (0, 0);
            if self.window.is_over() {
                if self.read == self.sizes.len() {
                    break;
                }
                self.next_window(parts)?;
            }
            // What was given out goes before there is more.
            self.piece.clear();
            self.piece = self.window.next_piece(merging)?;
        }
        self.piece = Vec::new();
        self.window = Window::default();
        self.give_alone(merging, parts, (blend, clashes), limit, out)
    }

    /// Reads the entities of the next groups.
    fn next_window(&mut self, parts: &mut [Part]) -> Result<(), Failure> {
        let first = self.read;
        let (mut last, mut members) = (first, 0);
        while last < self.sizes.len() && members * self.entity_bytes < WINDOW_BYTES {
            members += self.sizes[last] as usize;
            last += 1;
        }
        self.read = last;
        // The one before goes first.
        self.window = Window::default();
        let groups = first as u32..last as u32;
        let own = &*self;
        let read = each(parts, |at, part| own.read(part, at, groups.clone()))?;
        self.window = Window::of(read, members);
        Ok(())
    }

    /// The entities of one dataset that are in these groups, and the group of each.
    fn read(
        &self,
        from: &mut Part,
        part: usize,
        wanted: Range<u32>,
    ) -> Result<(Batch, Vec<u32>), StoreError> {
        let (mut rows, mut of) = (Batch::new(), Vec::new());
        let groups = &self.groups[self.starts[part]..self.starts[part + 1]];
        let is_wanted = |group: &u32| wanted.contains(group);
        let Some(first) = groups.iter().position(is_wanted) else {
            return Ok((rows, of));
        };
        let last = groups.iter().rposition(is_wanted).unwrap_or(first);
        let count = groups[first..=last].iter().filter(|group| is_wanted(group));
        let count = count.count();
        // Memory that grows by doubling would be twice what is needed.
        rows.reserve_exact(count, count * (self.entity_bytes - ROW_BYTES + SPARE_BYTES));
        of.reserve_exact(count);
        let mut at = first / MARK * MARK;
        let mut after = self.marks[part][first / MARK].checked_sub(1);
        let mut found = Batch::new();
        while let Some(snapshot) = from.snapshot.as_deref().filter(|_| at <= last) {
            found.clear();
            let next = snapshot.changes(after, LATEST, SCAN, &mut found)?;
            for record in found.iter() {
                if groups.get(at).is_some_and(is_wanted) {
                    rows.push(record);
                    of.push(groups[at]);
                }
                at += 1;
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        Ok((rows, of))
    }

    /// Those that are the same as nobody, and deleted ones, one dataset after the other.
    fn give_alone(
        &mut self,
        merging: &Merging,
        parts: &[Part],
        (blend, clashes): (&mut Blend, &mut Clashes),
        limit: usize,
        out: &mut Batch,
    ) -> Result<bool, Failure> {
        let (mut found, mut deleted) = (Batch::new(), Vec::new());
        let (part, after, at) = self.alone;
        let Some(snapshot) = parts.get(part).and_then(|part| part.snapshot.as_deref()) else {
            self.alone = (part + 1, None, 0);
            return Ok(part + 1 < parts.len());
        };
        let want = tahini_store::Limit {
            rows: limit,
            ..SCAN
        };
        let next = snapshot.changes(after, LATEST, want, &mut found)?;
        if merging.identity == Identity::First {
            let gone = found.iter().filter(|record| record.meta.deleted);
            deleted.extend(gone.filter_map(|record| record.id));
        }
        // Somebody of that `_id` may live in another dataset.
        let lives = living(parts, part, &deleted)?;
        for (nth, record) in (at..).zip(found.iter()) {
            let group = self.groups.get(self.starts[part] + nth).copied();
            let own = record.id.unwrap_or_default();
            if group != Some(ALONE) || (record.meta.deleted && lives.contains(own)) {
                continue;
            }
            if clashes.shared && !record.meta.deleted && self.shared.was_given(own) {
                clash::note(clashes, merging, parts, own)?;
                continue;
            }
            let id = identity(merging.identity, [(part, own)].into_iter());
            let meta = Meta {
                deleted: record.meta.deleted,
                ..Meta::default()
            };
            blend
                .put(&id, &[record], meta, out)
                .map_err(|error| Failure::fatal(error.to_string()))?;
        }
        self.alone = match next {
            Some(_) => (part, next, at + found.len()),
            None => (part + 1, None, 0),
        };
        Ok(self.alone.0 < parts.len())
    }

    /// The words for a value that too many entities have.
    fn told(&self, merging: &Merging, parts: &[Part], held: Held) -> Failure {
        let entity = held.entity as usize;
        let part = self.starts.partition_point(|start| *start <= entity) - 1;
        let nth = entity - self.starts[part];
        let mut after = self.marks[part][nth / MARK].checked_sub(1);
        let mut at = nth / MARK * MARK;
        let mut found = Batch::new();
        while let Some(snapshot) = parts[part].snapshot.as_deref() {
            found.clear();
            let Ok(next) = snapshot.changes(after, LATEST, SCAN, &mut found) else {
                break;
            };
            if nth < at + found.len() {
                let record = found.get(nth - at);
                if let Some((side, value)) = merging.reason(part, record, held.key()) {
                    let words = format!("{} = {}", side.expression, json::to_config(&value));
                    return too_many(merging, &words);
                }
                break;
            }
            at += found.len();
            after = next;
            if after.is_none() {
                break;
            }
        }
        too_many(merging, "one value that they have in common")
    }
}

impl Held {
    fn key(&self) -> Key {
        let key = u128::from(self.high) << 64 | u128::from(self.low);
        (self.set, key)
    }
}

/// Reads a dataset once.
fn survey(
    merging: &Merging,
    part: &mut Part,
    at: usize,
    cancel: &Cancel,
) -> Result<Survey, StoreError> {
    let mut seen = Survey::default();
    let ids_count = Clashes::can_be(merging);
    let (mut after, mut found, mut keys) = (None, Batch::new(), Vec::new());
    while let Some(snapshot) = part.snapshot.as_deref().filter(|_| !cancel.is_cancelled()) {
        found.clear();
        let next = snapshot.changes(after, LATEST, SCAN, &mut found)?;
        seen.bytes += found.bytes();
        for record in found.iter() {
            if seen.count % MARK == 0 {
                seen.marks.push(seq_of(&record).unwrap_or_default());
            }
            if !record.meta.deleted {
                keys.clear();
                if ids_count {
                    seen.ids.push(clash::key(record.id.unwrap_or_default()));
                }
                merging.keys_of(at, record, &mut keys);
                seen.held.extend(keys.iter().map(|(set, key)| Held {
                    high: (key >> 64) as u64,
                    low: *key as u64,
                    entity: seen.count as u32,
                    set: *set,
                }));
            }
            seen.count += 1;
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    seen.ids.sort_unstable();
    Ok(seen)
}

/// An entity of a group that was read: the group, its dataset, its row there.
type Member = (u32, u32, u32);

/// Groups whose entities are in memory.
#[derive(Default)]
struct Window {
    /// For each dataset the entities.
    read: Vec<Batch>,
    /// All of them, group by group, in the order in which they are put together.
    members: Vec<Member>,
    /// How many of them were put together.
    done: usize,
}

impl Window {
    fn of(read: Vec<(Batch, Vec<u32>)>, count: usize) -> Window {
        let mut window = Window::default();
        window.members.reserve_exact(count);
        for ((rows, groups), part) in read.into_iter().zip(0u32..) {
            let members = groups.iter().zip(0u32..);
            let members = members.map(|(group, row)| (*group, part, row));
            window.members.extend(members);
            window.read.push(rows);
        }
        let read = &window.read;
        let id = |part: u32, row: u32| read[part as usize].get(row as usize).id;
        window.members.sort_unstable_by(|one, two| {
            let place = (one.0, one.1).cmp(&(two.0, two.1));
            place.then_with(|| id(one.1, one.2).cmp(&id(two.1, two.2)))
        });
        window
    }

    fn is_over(&self) -> bool {
        self.done == self.members.len()
    }

    /// Puts the next groups together, on two threads.
    fn next_piece(&mut self, merging: &Merging) -> Result<Vec<Batch>, Failure> {
        let left = &self.members[self.done..];
        let groups: Vec<&[Member]> = left
            .chunk_by(|one, two| one.0 == two.0)
            .take(PIECE)
            .collect();
        let halves = groups.chunks(groups.len().div_ceil(2).max(1));
        let read = &self.read;
        let piece = each(halves, |_, groups| put_together(merging, read, groups))?;
        self.done += groups.iter().map(|group| group.len()).sum::<usize>();
        Ok(piece)
    }
}

/// Puts groups together whose members were read.
fn put_together(merging: &Merging, read: &[Batch], groups: &[&[Member]]) -> Result<Batch, Failure> {
    let (mut blend, mut out) = (Blend::new(merging), Batch::new());
    let mut members = Vec::new();
    for group in groups {
        members.clear();
        members.extend(
            group
                .iter()
                .map(|(_, part, row)| read[*part as usize].get(*row as usize)),
        );
        let ids = group.iter().zip(&members);
        let ids = ids.map(|((_, part, _), record)| (*part as usize, record.id.unwrap_or_default()));
        let id = identity(merging.identity, ids);
        blend
            .put(&id, &members, Meta::default(), &mut out)
            .map_err(|error| Failure::fatal(error.to_string()))?;
    }
    Ok(out)
}

/// Those of `ids` under which somebody lives in a dataset other than `part`.
fn living(parts: &[Part], part: usize, ids: &[&str]) -> Result<HashSet<String>, StoreError> {
    let mut all = HashSet::new();
    for (_, other) in parts.iter().enumerate().filter(|(at, _)| *at != part) {
        all.extend(other.living(ids)?);
    }
    Ok(all)
}

fn number(count: usize) -> Result<u32, Failure> {
    u32::try_from(count)
        .ok()
        .filter(|count| *count < ALONE)
        .ok_or_else(|| {
            Failure::fatal(format!(
                "expected at most {ALONE} entities in all datasets of a merge source, found {count}"
            ))
        })
}
