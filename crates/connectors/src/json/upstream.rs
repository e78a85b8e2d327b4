//! What a server that speaks the JSON pull protocol says of the dataset behind its answer.

use std::str::FromStr;

use reqwest::header::HeaderMap;
use serde_json::{Value as Json, json};
use tahini_entity::Offset;
use tahini_store::StateWrite;

/// The `X-Dataset-…` headers of an answer; each is `None` when it is missing or makes no sense.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// Whether the dataset was filled at least once.
    pub populated: Option<bool>,
    /// Microseconds since 1970 UTC up to which the dataset holds everything.
    pub completeness: Option<i64>,
    /// A UUID that a dataset gets when it is created.
    pub generation: Option<String>,
    /// The highest offset in the dataset, as JSON text.
    pub max_updated: Option<String>,
    /// Whether entities were left out of the answer.
    pub filtered: Option<bool>,
    /// A UUID that a dataset gets when it is restored from a backup.
    pub restore_uuid: Option<String>,
    /// The highest offset when the dataset was restored, as JSON text.
    pub restore_offset: Option<String>,
}

/// Which dataset an offset belongs to, as a pipe remembers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    generation: Option<String>,
    restore: Option<String>,
}

/// The key under which a pipe keeps it.
const ORIGIN: &[u8] = b"origin";

impl Origin {
    /// What was saved in earlier steps; `None` when nothing was.
    pub fn load(state: &[(Vec<u8>, Vec<u8>)]) -> Option<Origin> {
        let (_, text) = state.iter().find(|(key, _)| key == ORIGIN)?;
        let json: Json = serde_json::from_slice(text).ok()?;
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        Some(Origin {
            generation: text("generation"),
            restore: text("restore"),
        })
    }

    /// The write that saves it.
    pub fn save(&self) -> StateWrite {
        let json = json!({"generation": self.generation, "restore": self.restore});
        StateWrite {
            space: String::new(),
            key: ORIGIN.to_vec(),
            value: Some(json.to_string().into_bytes()),
        }
    }
}

impl Upstream {
    /// Which dataset answered; `None` when the server does not say.
    pub fn origin(&self) -> Option<Origin> {
        let origin = Origin {
            generation: self.generation.clone(),
            restore: self.restore_uuid.clone(),
        };
        (origin != Origin::default()).then_some(origin)
    }

    /// Whether a reader that has read `since` of the dataset `known` may go on from there: not in
    /// another dataset, and not where the dataset was put back to an earlier place since.
    pub fn continues(&self, known: &Origin, since: &Offset) -> bool {
        let Some(origin) = self.origin() else {
            return true;
        };
        if origin.generation != known.generation {
            return false;
        }
        if origin.restore == known.restore || origin.restore.is_none() {
            return true;
        }
        let cut = self.restore_offset.as_deref().and_then(offset_of);
        let order = cut.and_then(|cut| since.compare(&cut));
        order.is_some_and(std::cmp::Ordering::is_le)
    }

    /// Reads the headers.
    pub fn of(headers: &HeaderMap) -> Upstream {
        Upstream {
            populated: read(headers, "x-dataset-populated"),
            completeness: read(headers, "x-dataset-completeness"),
            generation: read(headers, "x-dataset-generation"),
            max_updated: read(headers, "x-dataset-max-updated"),
            filtered: read(headers, "x-dataset-filtered"),
            restore_uuid: read(headers, "x-dataset-restore-uuid"),
            restore_offset: read(headers, "x-dataset-restore-offset"),
        }
    }
}

/// An offset as the headers write it, in JSON.
fn offset_of(text: &str) -> Option<Offset> {
    match serde_json::from_str(text).ok()? {
        Json::String(text) => Some(Offset::Text(text.as_str().into())),
        number => number.as_i64().map(Offset::Int),
    }
}

fn read<T: FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn headers_that_are_missing_or_senseless_say_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert("X-Dataset-Populated", HeaderValue::from_static("false"));
        headers.insert(
            "X-Dataset-Completeness",
            HeaderValue::from_static("1507790035417817"),
        );
        headers.insert(
            "X-Dataset-Max-Updated",
            HeaderValue::from_static("\"2015\""),
        );
        headers.insert("X-Dataset-Filtered", HeaderValue::from_static("perhaps"));
        let expected = Upstream {
            populated: Some(false),
            completeness: Some(1_507_790_035_417_817),
            max_updated: Some("\"2015\"".to_owned()),
            ..Upstream::default()
        };
        assert_eq!(Upstream::of(&headers), expected);
    }

    #[test]
    fn an_offset_belongs_to_a_dataset_and_to_what_is_left_of_it() {
        let said = |generation: &str, restore: Option<(&str, &str)>| Upstream {
            generation: Some(generation.to_owned()),
            restore_uuid: restore.map(|(uuid, _)| uuid.to_owned()),
            restore_offset: restore.map(|(_, offset)| offset.to_owned()),
            ..Upstream::default()
        };
        let known = said("g", Some(("r", "5"))).origin().unwrap();
        for (now, since, expected) in [
            (said("g", Some(("r", "5"))), 9, true),
            (said("h", Some(("r", "5"))), 1, false),
            // It was restored again, to the end at 7.
            (said("g", Some(("q", "7"))), 7, true),
            (said("g", Some(("q", "7"))), 8, false),
            (said("g", Some(("q", "what"))), 1, false),
            // A server that says nothing has no such notion.
            (Upstream::default(), 9, true),
        ] {
            assert_eq!(
                now.continues(&known, &Offset::Int(since)),
                expected,
                "{now:?}"
            );
        }
        let kept = known.save();
        let state = vec![(kept.key, kept.value.unwrap())];
        assert_eq!(Origin::load(&state), Some(known));
        let texts = said("g", Some(("q", "\"b\"")));
        let other = said("g", None).origin().unwrap();
        assert!(texts.continues(&other, &Offset::Text("a".into())));
        assert!(!texts.continues(&other, &Offset::Text("c".into())));
    }
}
