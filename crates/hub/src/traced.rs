//! What a run's parts tell of their requests, for the property `trace` of the run's end in the log.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tahini_entity::{Dict, Value};

/// Of a run's requests the first and the last are told, half of this each.
const MOST: usize = 100;

/// The requests of a run, as they may be told: secrets are taken out before they come here.
#[derive(Debug, Default)]
pub struct Traced(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    first: Vec<Value>,
    last: VecDeque<Value>,
    left_out: i64,
}

impl Traced {
    /// Takes note of a request and its answer.
    pub fn tell(&self, entry: Dict) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.first.len() < MOST / 2 {
            entries.first.push(Value::Dict(entry));
            return;
        }
        if entries.last.len() == MOST / 2 {
            entries.last.pop_front();
            entries.left_out += 1;
        }
        entries.last.push_back(Value::Dict(entry));
    }

    /// Everything that was told, in order; where requests were left out, their number stands in
    /// their place. `None` when nothing was.
    pub fn take(&self) -> Option<Value> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Entries {
            first,
            last,
            left_out,
        } = std::mem::take(&mut *entries);
        if first.is_empty() {
            return None;
        }
        let gap = (left_out > 0).then(|| {
            let mut gap = Dict::new();
            gap.push_new("left_out", Value::Int(left_out));
            Value::Dict(gap)
        });
        Some(Value::List(
            first.into_iter().chain(gap).chain(last).collect(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_requests_the_first_and_the_last_are_told() {
        let traced = Traced::default();
        for number in 0..120 {
            let mut entry = Dict::new();
            entry.push_new("n", Value::Int(number));
            traced.tell(entry);
        }
        let Some(Value::List(told)) = traced.take() else {
            panic!("something was told");
        };
        let number = |at: usize, name: &str| match &told[at] {
            Value::Dict(entry) => match entry.get(name) {
                Some(Value::Int(number)) => *number,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        assert_eq!(told.len(), MOST + 1);
        assert_eq!((number(0, "n"), number(49, "n")), (0, 49));
        assert_eq!(number(50, "left_out"), 20);
        assert_eq!((number(51, "n"), number(100, "n")), (70, 119));
        assert!(traced.take().is_none());
    }
}
