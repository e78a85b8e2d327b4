//! The JSON pull protocol: entities from a service.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::time::Duration;

use super::answer::{Answer, End};
use super::entities::{Known, Seen, Updated};
use super::peer::{Peer, Read, Unreachable};
use super::report::{Report, Verdict};
use super::rows::{self, Protocol, Row};

/// A smaller answer says nothing about whether it is built as a whole.
const TELLING_BYTES: u64 = 1_000_000;
/// A shorter wait for the first entity is no sign of anything.
const TELLING_WAIT: Duration = Duration::from_millis(200);
/// So many times longer than the rest is the first wait when an answer is built as a whole.
const WHOLE_AT_ONCE: u32 = 4;

/// Asks in all the ways in which a pipe may ask.
pub fn check(peer: &Peer, report: &mut Report) -> Result<(), Unreachable> {
    let pull = Pull { peer };
    let (answer, all) = pull.ask(&[])?;
    if !answer.judge(Protocol::Pull, report) {
        for row in [&rows::SINCE, &rows::LIMIT] {
            skip(
                report,
                row,
                "the service does not answer with a whole array",
            );
        }
        return Ok(());
    }
    if answer.marked {
        right(
            report,
            &rows::MARKED_END,
            if answer.has_length {
                "Content-Length"
            } else {
                "chunks"
            },
        );
    }
    all.judge(Protocol::Pull, report);
    all.judge_updated(report);
    let limited = pull.limit(&all, report)?;
    order(&all, limited, report);
    pull.since(&all, report)?;
    if limited {
        pull.pages(&all, report)?;
    }
    streams(&answer, report);
    pull.hang_up(&all, report)
}

struct Pull<'a> {
    peer: &'a Peer,
}

impl Pull<'_> {
    fn ask(&self, query: &[(&str, &str)]) -> Result<(Answer, Seen), Unreachable> {
        let mut seen = Seen::default();
        let answer = self.peer.get(query, |element| {
            seen.look(element);
            Read::On
        })?;
        Ok((answer, seen))
    }

    fn ask_since(
        &self,
        since: &Updated,
        limit: Option<&str>,
    ) -> Result<(Answer, Seen), Unreachable> {
        let text = since.to_string();
        let mut query = vec![(self.peer.since(), text.as_str())];
        query.extend(limit.map(|limit| ("limit", limit)));
        self.ask(&query)
    }

    /// Whether the service minds `limit`.
    fn limit(&self, all: &Seen, report: &mut Report) -> Result<bool, Unreachable> {
        if all.count < 2 {
            skip(report, &rows::LIMIT, "fewer than two entities came");
            return Ok(false);
        }
        let (answer, seen) = self.ask(&[("limit", "1")])?;
        if !answer.judge(Protocol::Pull, report) {
            return Ok(false);
        }
        let first = all.known.first().map(|known| known.who);
        let got = seen.known.first().map(|known| known.who);
        match seen.count {
            1 if all.can_continue() && first != got => {
                wrong(
                    report,
                    &rows::LIMIT,
                    "another entity for limit=1 than the first of all",
                );
                Ok(false)
            }
            1 => {
                right(report, &rows::LIMIT, "one entity for limit=1");
                Ok(true)
            }
            0 => {
                wrong(report, &rows::LIMIT, "no entity for limit=1");
                Ok(false)
            }
            more => {
                let words =
                    format!("{more} entities for limit=1: the pipe must leave page_size out");
                report.note(Protocol::Pull, &rows::LIMIT, Verdict::Warning, words);
                Ok(false)
            }
        }
    }

    /// Whether the service minds `since`.
    fn since(&self, all: &Seen, report: &mut Report) -> Result<(), Unreachable> {
        let Some(highest) = all.highest.as_ref().filter(|_| all.can_continue()) else {
            skip(
                report,
                &rows::SINCE,
                "there is no _updated in every entity to continue from",
            );
            return Ok(());
        };
        let (answer, after) = self.ask_since(highest, None)?;
        if !self.nothing_new(&answer, report) {
            return Ok(());
        }
        let older = |seen: &Seen| {
            seen.known
                .iter()
                .filter(|known| known.updated != *highest)
                .count()
        };
        let words = format!(
            "since={highest}, the highest _updated of {} entities",
            all.count
        );
        match older(&after) {
            0 if older(all) == 0 => {
                skip(report, &rows::SINCE, "all entities have the same _updated");
                return Ok(());
            }
            again if after.count >= all.count => {
                wrong(
                    report,
                    &rows::SINCE,
                    format!("all {again} older ones again for {words}"),
                );
                return Ok(());
            }
            _ => {}
        }
        self.middle(all, &words, &after, report)
    }

    fn nothing_new(&self, answer: &Answer, report: &mut Report) -> bool {
        let words = match (&answer.end, answer.succeeded()) {
            (End::Whole, true) => {
                right(
                    report,
                    &rows::NOTHING_NEW,
                    format!("an array of {}", answer.entities),
                );
                return true;
            }
            (_, false) => answer.refusal(),
            (End::Unfit(_), true) if answer.bytes == 0 => {
                format!(
                    "status {} and an empty body for {}",
                    answer.status, answer.asked
                )
            }
            (End::Unfit(_), true) if answer.entities == 0 => {
                format!("{} for {}", answer.excerpt(), answer.asked)
            }
            _ => {
                // It broke off like any answer may.
                answer.judge(Protocol::Pull, report);
                return false;
            }
        };
        wrong(report, &rows::NOTHING_NEW, words);
        skip(report, &rows::SINCE, "the answer to since is no array");
        false
    }

    /// From the middle on, everything that is newer must come.
    fn middle(
        &self,
        all: &Seen,
        words: &str,
        after: &Seen,
        report: &mut Report,
    ) -> Result<(), Unreachable> {
        let mut values: Vec<&Updated> = all.known.iter().map(|known| &known.updated).collect();
        values.sort_by(|a, b| a.compare(b).unwrap_or(Ordering::Equal));
        values.dedup();
        let middle = values[(values.len() - 1) / 2];
        let (answer, seen) = self.ask_since(middle, None)?;
        if !answer.judge(Protocol::Pull, report) {
            return Ok(());
        }
        let newer = |known: &&Known| known.updated.compare(middle) == Some(Ordering::Greater);
        let wanted: HashSet<u64> = all
            .known
            .iter()
            .filter(newer)
            .map(|known| known.who)
            .collect();
        let missing = wanted.iter().filter(|who| !seen.who.contains(*who)).count();
        if missing > 0 {
            let words = format!(
                "{missing} of the {} newer entities missing for since={middle}",
                wanted.len()
            );
            wrong(report, &rows::SINCE, words);
            return Ok(());
        }
        let again = match after.count {
            0 => String::new(),
            some => format!(" ({some} entities came again, which does no harm)"),
        };
        right(
            report,
            &rows::SINCE,
            format!(
                "{} of {} entities since {middle}, {} for {words}{again}",
                seen.count, all.count, after.count
            ),
        );
        Ok(())
    }

    /// Whether the second page goes on where the first ends.
    fn pages(&self, all: &Seen, report: &mut Report) -> Result<(), Unreachable> {
        let [first, second, third, ..] = all.known.as_slice() else {
            skip(report, &rows::PAGES, "fewer than three entities came");
            return Ok(());
        };
        let rises = |a: &Known, b: &Known| a.updated.compare(&b.updated) == Some(Ordering::Less);
        if !all.can_continue() || !rises(first, second) || !rises(second, third) {
            skip(
                report,
                &rows::PAGES,
                "_updated does not rise over the first three entities",
            );
            return Ok(());
        }
        let (answer, seen) = self.ask_since(&first.updated, Some("2"))?;
        if !answer.judge(Protocol::Pull, report) {
            return Ok(());
        }
        let got: Vec<u64> = seen.known.iter().map(|known| known.who).collect();
        let asked = format!("since={} and limit=2", first.updated);
        if got == [second.who, third.who] || got == [first.who, second.who] {
            right(
                report,
                &rows::PAGES,
                format!("the next entities for {asked}"),
            );
        } else {
            wrong(
                report,
                &rows::PAGES,
                format!(
                    "{} entities for {asked}, and not the second and third of all",
                    seen.count
                ),
            );
        }
        Ok(())
    }

    /// Whether the service lives on when its reader does not.
    fn hang_up(&self, all: &Seen, report: &mut Report) -> Result<(), Unreachable> {
        if all.count == 0 {
            skip(report, &rows::HANG_UP, "no entities came");
            return Ok(());
        }
        self.peer.get(&[], |_| Read::Enough)?;
        let words = match self.peer.get(&[], |_| Read::Enough) {
            Ok(answer) if matches!(answer.end, End::HungUp | End::Whole) => {
                right(report, &rows::HANG_UP, "the next request is answered");
                return Ok(());
            }
            Ok(answer) if !answer.succeeded() => answer.refusal(),
            Ok(answer) => format!("{:?}", answer.end),
            Err(unreachable) => unreachable.to_string(),
        };
        wrong(report, &rows::HANG_UP, words);
        Ok(())
    }
}

fn order(all: &Seen, limited: bool, report: &mut Report) {
    match &all.disorder {
        _ if !all.can_continue() => {}
        None => right(report, &rows::ORDER, "it never goes down"),
        Some((before, after)) => {
            // A pipe that reads in pages goes on behind the last of a page: what is lower is lost.
            let verdict = if limited {
                Verdict::Wrong
            } else {
                Verdict::Warning
            };
            report.note(
                Protocol::Pull,
                &rows::ORDER,
                verdict,
                format!("{after} behind {before}"),
            );
        }
    }
}

fn streams(answer: &Answer, report: &mut Report) {
    let size = super::super::super::bytes_of(answer.bytes);
    let (first, rest) = (answer.waited_first, answer.waited_rest);
    if answer.bytes < TELLING_BYTES {
        skip(
            report,
            &rows::STREAMS,
            format!("{size} are too few to tell; it takes a megabyte"),
        );
    } else if first >= TELLING_WAIT && first >= rest * WHOLE_AT_ONCE {
        let words = format!(
            "{:.1} s until the first entity, and then all {size} within {:.1} s",
            first.as_secs_f64(),
            rest.as_secs_f64()
        );
        wrong(report, &rows::STREAMS, words);
    } else if answer.has_length {
        let words =
            format!("{size} with a Content-Length: as a rule such an answer was built as a whole");
        report.note(Protocol::Pull, &rows::STREAMS, Verdict::Warning, words);
    } else {
        right(
            report,
            &rows::STREAMS,
            format!("the first of {size} after {:.2} s", first.as_secs_f64()),
        );
    }
}

fn right(report: &mut Report, row: &'static Row, words: impl Into<String>) {
    report.note(Protocol::Pull, row, Verdict::Right, words);
}

fn wrong(report: &mut Report, row: &'static Row, words: impl Into<String>) {
    report.note(Protocol::Pull, row, Verdict::Wrong, words);
}

fn skip(report: &mut Report, row: &'static Row, words: impl Into<String>) {
    report.note(Protocol::Pull, row, Verdict::Skipped, words);
}
