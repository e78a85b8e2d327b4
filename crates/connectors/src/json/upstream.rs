//! What a server that speaks the JSON pull protocol says of the dataset behind its answer.

use std::str::FromStr;

use reqwest::header::HeaderMap;

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

impl Upstream {
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
}
