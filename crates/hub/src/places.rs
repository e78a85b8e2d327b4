//! The offset of a source that reads several datasets: how far it has read each of them.

use std::collections::BTreeMap;

use tahini_entity::{Offset, Record};
use tahini_store::Seq;

/// The last sequence that was read, by dataset. As an offset it is text: a JSON object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(pub BTreeMap<String, Seq>);

impl Places {
    /// The places that an offset says.
    ///
    /// # Errors
    /// What was expected, when it is no object of whole numbers.
    pub fn of(offset: &Offset) -> Result<Places, String> {
        let wrong = |found: &dyn std::fmt::Display| {
            format!(
                "expected the offset of a source that reads several datasets to be an object of \
                 whole numbers, {{\"dataset\": 12}}, found {found}"
            )
        };
        let Offset::Text(text) = offset else {
            return Err(wrong(offset));
        };
        let places = serde_json::from_str(text).map_err(|_| wrong(text))?;
        Ok(Places(places))
    }

    /// The offset; `None` when nothing was read.
    pub fn offset(&self) -> Option<Offset> {
        if self.0.is_empty() {
            return None;
        }
        let text = serde_json::to_string(&self.0).ok()?;
        Some(Offset::Text(text.into()))
    }

    /// The offset `delta` versions before this one, in each dataset; one of which fewer were read is
    /// read from its start. `None` where all of them are.
    pub(crate) fn moved_back(offset: &Offset, delta: u64) -> Option<Offset> {
        if let Offset::Int(seq) = offset {
            let moved = Seq::try_from(*seq).ok()?.checked_sub(delta)?;
            return i64::try_from(moved).ok().map(Offset::Int);
        }
        let read = Places::of(offset).ok()?.0.into_iter();
        let moved = read.filter_map(|(name, seq)| Some((name, seq.checked_sub(delta)?)));
        Places(moved.collect()).offset()
    }

    /// The last sequence of `dataset` that an offset says was read, of a source that reads one
    /// dataset or several.
    pub fn read(offset: &Offset, dataset: &str) -> Option<Seq> {
        match offset {
            Offset::Int(seq) => Seq::try_from(*seq).ok(),
            Offset::Text(_) => Places::of(offset).ok()?.0.get(dataset).copied(),
        }
    }
}

/// The sequence of a version that was read from a dataset.
pub(crate) fn seq_of(record: &Record<'_>) -> Option<Seq> {
    match record.meta.updated {
        Some(Offset::Int(seq)) => Seq::try_from(seq).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_as_they_were_written() {
        let places = Places(BTreeMap::from([("a".to_owned(), 3), ("b:c".to_owned(), 0)]));
        let offset = places.offset().unwrap();
        assert_eq!(offset, Offset::Text(r#"{"a":3,"b:c":0}"#.into()));
        assert_eq!(Places::of(&offset), Ok(places));
        assert_eq!(Places::read(&offset, "a"), Some(3));
        assert_eq!(Places::read(&offset, "x"), None);
        assert_eq!(Places::read(&Offset::Int(7), "a"), Some(7));
        for wrong in [
            Offset::Int(3),
            Offset::Text("7".into()),
            Offset::Text(r#"{"a":-1}"#.into()),
        ] {
            assert!(
                Places::of(&wrong).unwrap_err().contains("expected"),
                "{wrong}"
            );
        }
        assert_eq!(Places::default().offset(), None);
    }

    #[test]
    fn each_dataset_is_moved_back_by_itself() {
        let places = Places(BTreeMap::from([("a".to_owned(), 9), ("b".to_owned(), 2)]));
        let back = |delta| Places::moved_back(&places.offset().unwrap(), delta);
        assert_eq!(back(2), Some(Offset::Text(r#"{"a":7,"b":0}"#.into())));
        assert_eq!(back(3), Some(Offset::Text(r#"{"a":6}"#.into())));
        assert_eq!(back(10), None);
        assert_eq!(Places::moved_back(&Offset::Int(4), 4), Some(Offset::Int(0)));
        // 0 is behind the first version, which would be left out.
        assert_eq!(Places::moved_back(&Offset::Int(4), 5), None);
    }
}
