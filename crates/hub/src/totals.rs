//! What the runs of a pipe did since the node started, added up for the metrics.

use crate::Class;
use crate::execution_log::Summary;

/// Counters that only go up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Runs that reached their end.
    pub completed: u64,
    /// Of those, runs that did something.
    pub told: u64,
    /// Runs that did not reach their end.
    pub failed_runs: u64,
    /// Of those, runs that were stopped.
    pub interrupted: u64,
    /// Entities that sources gave.
    pub read: u64,
    /// Entities that changed the sink.
    pub changed: u64,
    /// Of those, deletions.
    pub deleted: u64,
    /// Of those, deletions of what came no more.
    pub tracked: u64,
    /// Entities that the sink had already.
    pub unchanged: u64,
    /// Entities that could not be written.
    pub failed: u64,
    /// Old versions that were removed from datasets.
    pub compacted: u64,
    /// Changes of what entities look like.
    pub drift: u64,
    /// Failed reads.
    pub read_errors: u64,
    /// How long the runs took.
    pub durations: Histogram,
}

impl Totals {
    /// Adds a run.
    pub fn add(&mut self, summary: &Summary) {
        match &summary.failure {
            None => {
                self.completed += 1;
                let did = summary.changed + summary.compacted + summary.expired + summary.failed;
                self.told += u64::from(did > 0);
            }
            Some(failure) => {
                self.failed_runs += 1;
                self.interrupted += u64::from(failure.class == Class::Cancelled);
            }
        }
        self.tracked += summary.tracked;
        self.read += summary.read;
        self.changed += summary.changed;
        self.deleted += summary.deleted;
        self.unchanged += summary.unchanged;
        self.failed += summary.failed;
        self.compacted += summary.compacted;
        self.drift += summary.drift;
        self.read_errors += summary.read_errors;
        self.durations.add(summary.total_seconds());
    }
}

/// The upper ends of the buckets, in seconds: from an idle run to a night's work.
pub const BOUNDS: [f64; 12] = [
    0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0, 7200.0,
];

/// Durations by bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// How many lie in each bucket and in none below it; the last one is for what is longer.
    counts: [u64; BOUNDS.len() + 1],
    /// All durations together, in seconds.
    pub sum: f64,
}

impl Histogram {
    /// Adds a duration in seconds.
    pub fn add(&mut self, seconds: f64) {
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound);
        self.counts[bucket.unwrap_or(BOUNDS.len())] += 1;
        self.sum += seconds;
    }

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// For each of `BOUNDS`, how many durations are at most that long.
    pub fn cumulative(&self) -> Vec<(f64, u64)> {
        let mut below = 0;
        let up_to = BOUNDS.iter().zip(self.counts).map(|(bound, count)| {
            below += count;
            (*bound, below)
        });
        up_to.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_upper_end_and_everything_below() {
        let mut durations = Histogram::default();
        for seconds in [0.0, 0.005, 0.006, 60.0, 1e6] {
            durations.add(seconds);
        }
        let up_to: std::collections::BTreeMap<String, u64> = durations
            .cumulative()
            .into_iter()
            .map(|(bound, count)| (bound.to_string(), count))
            .collect();
        assert_eq!(
            [
                up_to["0.005"],
                up_to["0.01"],
                up_to["10"],
                up_to["60"],
                up_to["7200"]
            ],
            [2, 3, 3, 4, 4]
        );
        assert_eq!(durations.count(), 5);
        assert!((durations.sum - 1_000_060.011).abs() < 1e-6);
    }
}
