//! What the `http` transform does: entities to a service, and what they become back.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::answer::{Answer, End};
use super::entities::Seen;
use super::peer::{self, Peer, Read, Unreachable};
use super::push;
use super::report::{Report, Verdict};
use super::rows::{self, Protocol};

/// Posts entities and looks at what comes back.
pub fn check(peer: &Peer, own: Option<&[Json]>, report: &mut Report) -> Result<(), Unreachable> {
    let mut entities: Vec<Json> = match own {
        Some(own) => own.iter().map(push::reserved).collect(),
        None => push::made_up(),
    };
    let gone = entities.last_mut().expect("there is at least one");
    gone["_deleted"] = true.into();
    let mut seen = Seen::default();
    let mut back: HashMap<String, Json> = HashMap::new();
    let answer = peer.post(&[], peer::body(&entities), |element| {
        seen.look(element);
        if let Ok(entity) = serde_json::from_slice::<Json>(element)
            && let Some(id) = entity["_id"].as_str()
        {
            back.insert(id.to_owned(), entity);
        }
        Read::On
    })?;
    if !answer.judge(Protocol::Transform, report) {
        report.note(
            Protocol::Transform,
            &rows::IDS_BACK,
            Verdict::Skipped,
            "the service does not answer with a whole array",
        );
        return Ok(());
    }
    seen.judge(Protocol::Transform, report);
    ids(&entities, &back, report);
    deleted(&entities, &back, report);
    nothing(&peer.post(&[], "[]".to_owned(), |_| Read::On)?, report);
    if own.is_none() {
        large(
            &peer.post(&[], peer::body(&push::many()), |_| Read::On)?,
            report,
        );
    }
    push::broken(peer, Protocol::Transform, report, &entities, &Vec::new)
}

fn ids(sent: &[Json], back: &HashMap<String, Json>, report: &mut Report) {
    let lost: Vec<&str> = sent
        .iter()
        .filter_map(|entity| entity["_id"].as_str())
        .filter(|id| !back.contains_key(*id))
        .collect();
    match lost.first() {
        None => report.note(
            Protocol::Transform,
            &rows::IDS_BACK,
            Verdict::Right,
            "every _id comes back",
        ),
        Some(one) => {
            let words = format!("{} of {} missing, such as {one:?}", lost.len(), sent.len());
            report.note(
                Protocol::Transform,
                &rows::IDS_BACK,
                Verdict::Warning,
                words,
            );
        }
    }
}

fn deleted(sent: &[Json], back: &HashMap<String, Json>, report: &mut Report) {
    for entity in sent.iter().filter(|entity| entity["_deleted"] == true) {
        let id = entity["_id"].as_str().unwrap_or_default();
        match back.get(id) {
            Some(same) if same["_deleted"] == true => {
                report.note(
                    Protocol::Transform,
                    &rows::DELETED_BACK,
                    Verdict::Right,
                    "_deleted comes back",
                );
            }
            Some(other) => {
                let words = format!("_deleted {} for {id:?}", other["_deleted"]);
                report.note(
                    Protocol::Transform,
                    &rows::DELETED_BACK,
                    Verdict::Wrong,
                    words,
                );
            }
            None => report.note(
                Protocol::Transform,
                &rows::DELETED_BACK,
                Verdict::Skipped,
                "it did not come back",
            ),
        }
    }
}

fn nothing(answer: &Answer, report: &mut Report) {
    let verdict = match (&answer.end, answer.succeeded(), answer.entities) {
        (End::Whole, true, 0) => Verdict::Right,
        _ => Verdict::Wrong,
    };
    let words = match (verdict, answer.succeeded()) {
        (Verdict::Right, _) => "[]".to_owned(),
        (_, true) => format!("status {} and {:?}", answer.status, answer.excerpt()),
        (_, false) => answer.refusal(),
    };
    report.note(Protocol::Transform, &rows::EMPTY_BACK, verdict, words);
}

fn large(answer: &Answer, report: &mut Report) {
    if !answer.succeeded() {
        report.note(
            Protocol::Transform,
            &rows::LARGE_BATCH,
            Verdict::Wrong,
            answer.refusal(),
        );
    } else if answer.judge(Protocol::Transform, report) {
        let words = format!("{} entities back for 100", answer.entities);
        report.note(
            Protocol::Transform,
            &rows::LARGE_BATCH,
            Verdict::Right,
            words,
        );
    }
}
