//! Compaction: remove ids that have expired, find what can go, write the segments that are worth
//! it anew, one manifest a group.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::dataset::OpenDataset;
use super::durable::View;
use super::fetch::{Fetch, look_up};
use super::remove::{self, Wanted};
use super::rewrite;
use super::segment::Segment;
use super::survey::{Found, Survey};
use crate::compaction::Line;
use crate::keys::{index_key, key_order};
use crate::rule::held_back;
use crate::{Compacted, Compaction, Seq, StoreError};

/// How many ids are collected before they are removed.
const ASKED_AT_ONCE: usize = 10_000;
/// The newest segment is worth sealing for compaction at this share of a segment's length.
const WORTH_SEALING: u64 = 16;
/// Neighbours up to this share of a segment's length are put together.
const SMALL: u64 = 4;

/// What earlier compactions found, so that the next one need not look again. Lost with the
/// process, which costs one walk.
#[derive(Default)]
pub(crate) struct Memo {
    /// What kinds of ids expired, and before which version all of them have been removed.
    expired: (bool, bool, Seq),
    fruitless: Option<Fruitless>,
}

/// A walk after which nothing was worth writing anew.
struct Fruitless {
    keep: Option<u32>,
    next: Seq,
    until: Seq,
    /// How many more dead versions would make it worth it.
    missing: u64,
    /// The newest segment, and whether it was large enough to be sealed.
    newest: (u32, bool),
}

/// Runs a compaction.
pub(crate) fn run(
    dataset: &Arc<OpenDataset>,
    rules: &Compaction<'_>,
) -> Result<Compacted, StoreError> {
    let memo = dataset.compacting.lock();
    let mut memo = memo.unwrap_or_else(PoisonError::into_inner);
    // Whoever wants to hold commits back waits for this, but not for long.
    let stop = || (rules.stop)() || dataset.holding_up.load(Ordering::Acquire) > 0;
    let rules = &Compaction {
        stop: &stop,
        ..*rules
    };
    let done = pass(dataset, rules, &mut memo)?;
    let erases = !rules.erase.is_empty();
    dataset.keyed.tidy(erases)?;
    if erases && dataset.index.exists() {
        // Ids that were erased are in the index until it is written.
        dataset.write_index(&mut dataset.writer())?;
    }
    if erases || done.finished && !rules.index_later {
        dataset.condense(erases)?;
    }
    Ok(done)
}

fn pass(
    dataset: &Arc<OpenDataset>,
    rules: &Compaction<'_>,
    memo: &mut Memo,
) -> Result<Compacted, StoreError> {
    {
        let mut writer = dataset.writer();
        dataset.check_writable(&mut writer)?;
        if writer.head.holds {
            return Err(held_back(&dataset.name));
        }
    }
    dataset.durable.reach_all()?;
    let (_, oldest) = dataset.durable.standing();
    let line = Line::new(rules, oldest)?;
    let mut done = Compacted::default();
    for ids in rules.erase.chunks(ASKED_AT_ONCE) {
        let ids: Vec<Wanted> = ids.iter().map(|id| ((*id).to_owned(), None)).collect();
        done.ids += remove::run(dataset, &ids)?;
    }
    if !expire(dataset, &line, rules, memo, &mut done)? {
        return Ok(done);
    }
    let (view, _) = dataset.durable.standing();
    let named = !(rules.erase.is_empty() && rules.retract.is_empty());
    if !named && !worth_a_walk(dataset, &view, &line, rules, memo) {
        done.finished = true;
        return Ok(done);
    }
    let latest = latest(dataset, rules.retract, &view)?;
    let Some(survey) = Survey::take(dataset, &view, &line, rules, &latest)? else {
        return Ok(done);
    };
    drop(view);
    if rewrite_all(dataset, &survey, rules, &mut done)? {
        memo.fruitless = Some(Fruitless {
            keep: line.keep(),
            next: dataset.durable.published().head.next,
            until: line.until,
            missing: missing(dataset, &survey, rules),
            newest: newest(dataset, &survey.segments, rules),
        })
        .filter(|_| done.versions == 0 && rules.older_than.is_none());
        done.finished = !survey.held;
    }
    Ok(done)
}

/// Removes the ids that have expired; `false` when it was stopped.
fn expire(
    dataset: &Arc<OpenDataset>,
    line: &Line,
    rules: &Compaction<'_>,
    memo: &mut Memo,
    done: &mut Compacted,
) -> Result<bool, StoreError> {
    let Some((before, settled)) = line.expires_before() else {
        return Ok(true);
    };
    let kinds = (line.keep() == Some(0), rules.deleted_before.is_some());
    let (trimmed, deleted, mut from) = memo.expired;
    if (trimmed, deleted) != kinds {
        from = 0;
    }
    let (view, _) = dataset.durable.standing();
    if !kinds.0 && view.head.deleted == 0 {
        return Ok(true);
    }
    let mut fetch = Fetch::new(dataset);
    let Some((first, mut block)) = fetch.place(from) else {
        return Ok(true);
    };
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut reached = from;
    let mut over = false;
    for segment in first..fetch.segments.len() {
        while !over && fetch.load(segment, block)? {
            if (rules.stop)() {
                return Ok(false);
            }
            let mut rows = fetch.block().rows();
            while let Some(row) = rows.next().map_err(|found| fetch.malformed(&found))? {
                over |= row.seq >= line.until.min(view.head.next) || row.ts >= before;
                if over {
                    break;
                }
                if row.ts < settled {
                    reached = row.seq + 1;
                }
                let latest = row.seq >= from && !view.superseded.contains(row.seq);
                if latest && line.expires(row.seq, row.ts, row.deleted) {
                    wanted.push((row.id.to_owned(), Some(row.seq)));
                }
            }
            if wanted.len() >= ASKED_AT_ONCE {
                done.ids += remove::run(dataset, &wanted)?;
                wanted.clear();
            }
            block += 1;
        }
        block = 0;
    }
    done.ids += remove::run(dataset, &wanted)?;
    memo.expired = (kinds.0, kinds.1, reached);
    Ok(true)
}

/// The latest versions of ids that exist in the view.
fn latest(dataset: &OpenDataset, ids: &[&str], view: &View) -> Result<Vec<Seq>, StoreError> {
    let keys: Vec<_> = ids.iter().map(|id| index_key(id.as_bytes())).collect();
    let priors = look_up(
        dataset,
        &keys,
        &key_order(keys.len(), |at| keys[at].as_ref()),
        &view.superseded,
    )?;
    let mut fetch = Fetch::new(dataset);
    let mut seqs = Vec::new();
    for (prior, id) in priors.into_iter().zip(ids) {
        let Some(mut seq) = prior.map(|prior| prior.seq) else {
            continue;
        };
        while seq >= view.head.next {
            match fetch.find(seq, |row, _| row.previous)?.flatten() {
                Some((before, _)) => seq = before,
                None => break,
            }
        }
        if fetch.find(seq, |row, _| row.id == *id)? == Some(true) {
            seqs.push(seq);
        }
    }
    Ok(seqs)
}

/// Whether some segment may have enough that can go: no more than what is superseded.
fn worth_a_walk(
    dataset: &OpenDataset,
    view: &View,
    line: &Line,
    rules: &Compaction<'_>,
    memo: &Memo,
) -> bool {
    if let Some(last) = &memo.fruitless
        && last.keep == line.keep()
        && line.until >= last.until
        && rules.older_than.is_none()
        && last.newest == newest(dataset, &dataset.all_segments(), rules)
        && (view.head.next - last.next) + (line.until - last.until) < last.missing
    {
        return false;
    }
    let segments = dataset.all_segments();
    let (newest, large) = newest(dataset, &segments, rules);
    let nexts = segments.iter().skip(1);
    let nexts = nexts.map(|segment| segment.opening.first_seq);
    let mut ranges = segments.iter().zip(nexts.chain([view.head.next]));
    ranges.any(|(segment, next)| {
        let dead = view.superseded.count(segment.opening.first_seq, next);
        let enough = dead > 0 && dead as f64 >= rules.least_dead * segment.rows() as f64;
        enough && (large || segment.opening.number != newest)
    })
}

/// The number of the segment that is written to, and whether it may be sealed for compaction.
fn newest(dataset: &OpenDataset, segments: &[Arc<Segment>], rules: &Compaction<'_>) -> (u32, bool) {
    let newest = segments.last().expect("a dataset has a segment");
    let enough = dataset.options.segment_bytes / WORTH_SEALING;
    let large = newest.file.size().is_ok_and(|size| size >= enough);
    (newest.opening.number, large || rules.least_dead <= 0.0)
}

/// How many more dead versions would at least make one of the segments worth writing anew.
fn missing(dataset: &OpenDataset, survey: &Survey, rules: &Compaction<'_>) -> u64 {
    let (_, large) = newest(dataset, &survey.segments, rules);
    let may = survey.found.len() - usize::from(!large);
    let missing = survey.found[..may].iter().map(|found| {
        let worth = (rules.least_dead * found.rows as f64).ceil() as u64;
        worth.max(1).saturating_sub(found.dead.len())
    });
    missing.min().unwrap_or(u64::MAX)
}

/// Writes anew what is worth it; `false` when it was stopped.
fn rewrite_all(
    dataset: &Arc<OpenDataset>,
    survey: &Survey,
    rules: &Compaction<'_>,
    done: &mut Compacted,
) -> Result<bool, StoreError> {
    seal_the_newest(dataset, survey, rules)?;
    for group in groups(dataset, survey, rules.least_dead) {
        let segments = &survey.segments[group.clone()];
        let dead: Vec<_> = survey.found[group.clone()].iter().collect();
        let oldest = group.start == 0;
        let Some(fresh) = rewrite::group(dataset, segments, &dead, oldest, rules.stop)? else {
            return Ok(false);
        };
        let gone = || dead.iter().map(|found| &found.dead);
        dataset.keyed.note_going(dataset, gone())?;
        rewrite::swap(dataset, segments, &fresh, &dead)?;
        dataset.keyed.note_gone(gone());
        done.versions += dead.iter().map(|found| found.dead.len()).sum::<u64>();
    }
    Ok(true)
}

/// Seals the segment that is written to where it is worth compacting.
fn seal_the_newest(
    dataset: &OpenDataset,
    survey: &Survey,
    rules: &Compaction<'_>,
) -> Result<(), StoreError> {
    let last = survey.segments.last().zip(survey.found.last());
    let Some((segment, found)) = last.filter(|(_, found)| found.worth(rules.least_dead)) else {
        return Ok(());
    };
    let mut writer = dataset.writer();
    dataset.check_writable(&mut writer)?;
    let open = Arc::ptr_eq(&writer.segment, segment);
    let (_, large) = newest(dataset, &survey.segments, rules);
    if open && (found.must || large) {
        dataset.roll(&mut writer)?;
    }
    Ok(())
}

/// Neighbouring segments that become one: those with enough dead versions, and small ones.
fn groups(dataset: &OpenDataset, survey: &Survey, least_dead: f64) -> Vec<Range<usize>> {
    let newest = dataset.writer().segment.opening.number;
    let limit = dataset.options.segment_bytes;
    let mut groups = Vec::new();
    let mut group = Group::default();
    for (at, (segment, found)) in survey.segments.iter().zip(&survey.found).enumerate() {
        let live = live_bytes(segment, found);
        let worth = found.worth(least_dead);
        let fits = worth || live <= limit / SMALL;
        let sealed = segment.opening.number != newest;
        if !sealed || !fits || group.bytes + live > limit {
            groups.extend(group.close(at));
        }
        if sealed && fits {
            group.worth |= worth;
            group.bytes += live;
            group.len += 1;
        }
    }
    groups.extend(group.close(survey.segments.len()));
    groups
}

#[derive(Default)]
struct Group {
    len: usize,
    bytes: u64,
    worth: bool,
}

impl Group {
    /// Ends the group before segment `at`; a single one that loses nothing stays as it is.
    fn close(&mut self, at: usize) -> Option<Range<usize>> {
        let group = std::mem::take(self);
        (group.worth || group.len > 1).then(|| at - group.len..at)
    }
}

/// About how long a segment would be without what can go.
fn live_bytes(segment: &Segment, found: &Found) -> u64 {
    let size = segment.file.size().unwrap_or(u64::MAX);
    let share = (found.rows - found.dead.len()) as f64 / found.rows.max(1) as f64;
    (size as f64 * share) as u64
}
