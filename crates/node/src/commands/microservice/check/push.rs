//! The JSON push protocol: entities to a service.

use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::answer::{Answer, End, tells_of_failure};
use super::peer::{self, Peer, Read, Unreachable};
use super::report::{Report, Verdict};
use super::rows::{self, Protocol, Row};

/// The status of a conflict.
const CONFLICT: u16 = 409;
/// The entities of a large batch, as many as a sink sends at once by default.
const MANY: usize = 100;
/// The text in each of them, in bytes.
const LONG: usize = 20_000;

/// Posts in all the ways in which a sink may post, and ends by deleting what it posted.
pub fn check(
    peer: &Peer,
    own: Option<&[Json]>,
    full: bool,
    report: &mut Report,
) -> Result<(), Unreachable> {
    let entities = match own {
        Some(own) => own.iter().map(reserved).collect(),
        None => made_up(),
    };
    let mut push = Push { peer, report };
    if push.incremental(&entities)? {
        if full {
            push.full(&entities)?;
        }
        push.large(own.is_some())?;
        push.broken(&entities)?;
        push.deletion(&entities)?;
    } else {
        for row in [&rows::FULL, &rows::DELETION] {
            push.note(
                row,
                Verdict::Skipped,
                "the service takes no batch of changes",
            );
        }
    }
    Ok(())
}

/// Entities as a sink sends them, in ids and texts that trip what is not careful.
pub fn made_up() -> Vec<Json> {
    let ids = [
        "tahini-check-1",
        "tahini-check-2",
        "tahini check/3 æ?&#%\"\\",
    ];
    let texts = [
        "plain",
        "æøå ☃ 𝄞 \u{7f}",
        "a \"quote\", a \\ and\na line ] } ,",
    ];
    let pairs = ids.iter().zip(texts).enumerate();
    pairs
        .map(|(at, (id, text))| {
            reserved(&json!({"_id": id, "name": format!("Check {at}"), "text": text, "number": at}))
        })
        .collect()
}

/// The entity with the properties that the node adds.
pub fn reserved(entity: &Json) -> Json {
    let mut whole = json!({
        "_id": null, "_deleted": false, "_updated": 0, "_previous": null, "_ts": 1_700_000_000_000_000_u64,
        "_hash": "0123456789abcdef0123456789abcdef",
    });
    if let (Some(whole), Some(entity)) = (whole.as_object_mut(), entity.as_object()) {
        whole.extend(entity.clone());
    }
    whole
}

/// The requests of one run.
struct Sequence {
    id: String,
    full: bool,
    count: u32,
}

impl Sequence {
    fn new(full: bool) -> Sequence {
        Sequence {
            id: Uuid::new_v4().to_string(),
            full,
            count: 0,
        }
    }

    /// The parameters of the next request.
    fn next(&mut self, last: bool) -> Vec<(&'static str, String)> {
        self.count += 1;
        let mut parameters = vec![
            ("sequence_id", self.id.clone()),
            ("is_full", self.full.to_string()),
            ("request_id", self.count.to_string()),
        ];
        if self.count > 1 {
            parameters.push(("previous_request_id", (self.count - 1).to_string()));
        } else if self.full {
            parameters.push(("is_first", "true".to_owned()));
        }
        if last && self.full {
            parameters.push(("is_last", "true".to_owned()));
        }
        parameters
    }
}

struct Push<'a> {
    peer: &'a Peer,
    report: &'a mut Report,
}

impl Push<'_> {
    fn note(&mut self, row: &'static Row, verdict: Verdict, found: impl Into<String>) {
        self.report.note(Protocol::Push, row, verdict, found);
    }

    fn post(
        &self,
        parameters: &[(&'static str, String)],
        body: String,
    ) -> Result<Answer, Unreachable> {
        let query: Vec<(&str, &str)> = parameters
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        self.peer.post(&query, body, |_| Read::On)
    }

    /// Posts a batch that must be taken, and notes under `row` whether it is.
    fn must_take(
        &mut self,
        row: &'static Row,
        parameters: &[(&'static str, String)],
        entities: &[Json],
        what: &str,
    ) -> Result<bool, Unreachable> {
        let answer = match self.post(parameters, peer::body(entities)) {
            Err(unreachable) if self.peer.answered() => {
                let words = format!("no answer for {what}: {unreachable}");
                self.note(row, Verdict::Wrong, words);
                return Ok(false);
            }
            other => other?,
        };
        if !answer.succeeded() {
            self.note(
                row,
                Verdict::Wrong,
                format!("{}, for {what}", answer.refusal()),
            );
            return Ok(false);
        }
        self.inside(&answer);
        self.note(row, Verdict::Right, format!("{} for {what}", answer.status));
        Ok(true)
    }

    /// A batch counts as written when the status says so; then the body should not say otherwise.
    fn inside(&mut self, answer: &Answer) {
        let html = answer
            .content_type
            .as_deref()
            .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"));
        let lower = answer.excerpt().to_lowercase();
        let page = html && (lower.contains("error") || lower.contains("exception"));
        let object = serde_json::from_slice::<serde_json::Map<String, Json>>(&answer.beginning);
        // A lone message may be a greeting here; in the place of an array it is none.
        let told =
            object.is_ok_and(|object| tells_of_failure(&object) && !object.keys().eq(["message"]));
        if page || told || lower.contains("traceback (most recent call last)") {
            let words = format!(
                "status {} for {}, and in it {}",
                answer.status,
                answer.asked,
                answer.excerpt()
            );
            self.note(&rows::ERRORS_INSIDE, Verdict::Wrong, words);
        } else {
            self.note(
                &rows::ERRORS_INSIDE,
                Verdict::Right,
                "no error in the answers",
            );
        }
        if let End::Broken(why) = &answer.end {
            self.note(
                &rows::WHOLE,
                Verdict::Wrong,
                format!("the end of {}: {why}", answer.asked),
            );
        }
    }

    fn incremental(&mut self, entities: &[Json]) -> Result<bool, Unreachable> {
        let mut changes = Sequence::new(false);
        let first = changes.next(false);
        let what = format!("a batch of {}", entities.len());
        if !self.must_take(&rows::INCREMENTAL, &first, entities, &what)? {
            return Ok(false);
        }
        self.must_take(&rows::AGAIN, &first, entities, "the same again")?;
        self.must_take(
            &rows::FINAL_BATCH,
            &changes.next(true),
            &[],
            "[] behind changes",
        )?;
        self.must_take(
            &rows::FINAL_BATCH,
            &Sequence::new(false).next(true),
            &[],
            "[] alone",
        )?;
        Ok(true)
    }

    fn full(&mut self, entities: &[Json]) -> Result<(), Unreachable> {
        let mut all = Sequence::new(true);
        let (first, rest) = entities.split_at(1);
        let begun = self.must_take(&rows::FULL, &all.next(false), first, "is_first=true")?;
        let went_on = begun
            && self.must_take(&rows::FULL, &all.next(false), rest, "previous_request_id=1")?;
        if went_on {
            self.must_take(
                &rows::FINAL_BATCH,
                &all.next(true),
                &[],
                "[] with is_last=true",
            )?;
            // A whole sequence may be one request: that of a pipe with nothing to send is not sent
            // here, for a sink that keeps sequences would delete everything.
            self.conflicts(first)?;
        }
        Ok(())
    }

    /// Sequences that never end, so that they delete nothing.
    fn conflicts(&mut self, entities: &[Json]) -> Result<(), Unreachable> {
        let cases: [(&str, &str, &str); 3] = [
            ("a wrong previous_request_id", "previous_request_id", "99"),
            ("another is_full", "is_full", "false"),
            ("a second is_first", "is_first", "true"),
        ];
        let mut taken = Vec::new();
        for (what, name, value) in cases {
            let mut broken = Sequence::new(true);
            let begun = self.post(&broken.next(false), peer::body(entities))?;
            if !begun.succeeded() {
                self.note(
                    &rows::FULL,
                    Verdict::Wrong,
                    format!(
                        "{}, for a new sequence in place of an unfinished one",
                        begun.refusal()
                    ),
                );
                return Ok(());
            }
            let mut parameters = broken.next(false);
            parameters.retain(|(known, _)| *known != name);
            parameters.push((name, value.to_owned()));
            let answer = self.post(&parameters, peer::body(entities))?;
            match answer.status {
                CONFLICT => {}
                _ if answer.succeeded() => taken.push(what),
                _ => self.note(
                    &rows::CONFLICT,
                    Verdict::Warning,
                    format!("{}, for {what}", answer.refusal()),
                ),
            }
        }
        match taken.len() {
            0 => self.note(
                &rows::CONFLICT,
                Verdict::Right,
                "409 for each request out of step",
            ),
            3 => self.note(
                &rows::CONFLICT,
                Verdict::Right,
                "every batch is taken as changes; sequences are not kept track of",
            ),
            _ => self.note(
                &rows::CONFLICT,
                Verdict::Warning,
                format!("{} taken", taken.join(" and ")),
            ),
        }
        Ok(())
    }

    fn large(&mut self, own: bool) -> Result<(), Unreachable> {
        if own {
            self.note(
                &rows::LARGE_BATCH,
                Verdict::Skipped,
                "only the entities that were given are sent",
            );
            return Ok(());
        }
        let many = many();
        self.must_take(
            &rows::LARGE_BATCH,
            &Sequence::new(false).next(false),
            &many,
            "100 entities and 2 MB",
        )?;
        let gone = gone(&many);
        self.must_take(
            &rows::DELETION,
            &Sequence::new(false).next(false),
            &gone,
            "those again, deleted",
        )?;
        Ok(())
    }

    fn broken(&mut self, entities: &[Json]) -> Result<(), Unreachable> {
        broken(self.peer, Protocol::Push, self.report, entities, &|| {
            Sequence::new(false).next(false)
        })
    }

    fn deletion(&mut self, entities: &[Json]) -> Result<(), Unreachable> {
        let gone = gone(entities);
        let mut changes = Sequence::new(false);
        let what = format!("{} deleted entities", gone.len());
        self.must_take(&rows::DELETION, &changes.next(false), &gone, &what)?;
        self.must_take(
            &rows::DELETION,
            &changes.next(false),
            &gone,
            "the same, deleted already",
        )?;
        self.must_take(
            &rows::FINAL_BATCH,
            &changes.next(true),
            &[],
            "[] behind deletions",
        )?;
        Ok(())
    }
}

/// As many entities, and as large ones, as make 2 MB.
pub fn many() -> Vec<Json> {
    let text = "0123456789".repeat(LONG / 10);
    (0..MANY)
        .map(|at| reserved(&json!({"_id": format!("tahini-check-large-{at}"), "text": text})))
        .collect()
}

/// The entities as the node sends them once they are deleted: with nothing but what tells so.
fn gone(entities: &[Json]) -> Vec<Json> {
    entities
        .iter()
        .map(|entity| reserved(&json!({"_id": entity["_id"], "_deleted": true})))
        .collect()
}

/// The parameters of a request of its own.
type Parameters<'a> = &'a dyn Fn() -> Vec<(&'static str, String)>;

/// Posts what must be refused.
pub fn broken(
    peer: &Peer,
    protocol: Protocol,
    report: &mut Report,
    entities: &[Json],
    parameters: Parameters<'_>,
) -> Result<(), Unreachable> {
    let whole = peer::body(&entities[..1]);
    let cut = whole[..whole.len() - 1].to_owned();
    for (what, body) in [
        ("a batch that breaks off", cut),
        ("a list of texts", "[\"tahini-check-1\"]".to_owned()),
        ("an empty body", String::new()),
    ] {
        let query = parameters();
        let query: Vec<(&str, &str)> = query
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = peer.post(&query, body, |_| Read::On)?;
        // A transform that has begun its answer can only break it off.
        let refused = !answer.succeeded()
            || (protocol == Protocol::Transform && !matches!(answer.end, End::Whole));
        match refused {
            true => report.note(
                protocol,
                &rows::BROKEN_BATCH,
                Verdict::Right,
                "each is refused",
            ),
            false => {
                let words = format!("status {} for {what}: {}", answer.status, answer.excerpt());
                report.note(protocol, &rows::BROKEN_BATCH, Verdict::Wrong, words);
            }
        }
    }
    Ok(())
}
