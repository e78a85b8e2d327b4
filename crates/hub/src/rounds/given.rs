//! What a pipe gave to a system outside: a system takes what it has already, so that only the content
//! tells whether something was news.

use std::collections::{BTreeSet, HashMap};

use tahini_entity::Batch;

use super::WATCHED;

/// Entities whose content is remembered; of further ones nothing is known, and they are no news.
const KNOWN: usize = 100_000;

/// What a pipe gave last, entity by entity: a hash of the id leads to one of the content.
#[derive(Debug, Default)]
pub(crate) struct Given {
    contents: HashMap<u64, u64>,
    news: u64,
}

/// The entities of a run that were others than when they were given before.
#[derive(Clone, Debug, Default)]
pub struct News {
    /// How many there were.
    pub count: u64,
    /// The first of them, at most a thousand.
    pub ids: BTreeSet<String>,
}

impl Given {
    /// How many entities were others than when they were given before, until now.
    pub(super) fn news(&self) -> u64 {
        self.news
    }

    /// Adds what is new in a batch to `news`, and remembers all of it.
    pub(crate) fn take_in(&mut self, batch: &Batch, news: &mut News) {
        for record in batch.iter().filter(|record| !record.meta.filtered) {
            let Some(id) = record.id else { continue };
            let key = tahini_entity::hash::name_seed(id);
            let content = record.hash() as u64;
            if self.contents.len() >= KNOWN && !self.contents.contains_key(&key) {
                continue;
            }
            if self.contents.insert(key, content) == Some(content) {
                continue;
            }
            self.news += 1;
            news.count += 1;
            if news.ids.len() < WATCHED {
                news.ids.insert(id.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tahini_entity::{Batch, Meta, Shape};

    use super::{Given, News};

    fn news(given: &mut Given, ids: &[(&str, bool)]) -> Vec<String> {
        let (mut batch, mut news) = (Batch::new(), News::default());
        for (id, deleted) in ids {
            let meta = Meta {
                deleted: *deleted,
                ..Meta::default()
            };
            batch.push_encoded(Some(id), &std::sync::Arc::new(Shape::new([])), &[], meta);
        }
        given.take_in(&batch, &mut news);
        assert_eq!(news.count, news.ids.len() as u64);
        news.ids.into_iter().collect()
    }

    #[test]
    fn only_what_is_another_than_before_is_news() {
        let mut given = Given::default();
        assert_eq!(news(&mut given, &[("a", false), ("b", false)]), ["a", "b"]);
        assert_eq!(news(&mut given, &[("a", false), ("b", true)]), ["b"]);
        assert_eq!(news(&mut given, &[("b", true)]), [""; 0]);
    }
}
