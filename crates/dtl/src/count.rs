//! What an evaluation has taken so far, and where it ends.

use tahini_entity::Value;

use crate::error::EvalClass;
use crate::eval::{Machine, Stop};
use crate::limits::{Limit, MAX_DEPTH, MAX_STEPS, MAX_WORK};
use crate::path::Walked;
use crate::weight::{self, PARTS_A_STEP};

/// How many steps there are between two looks at whether the run is still wanted.
pub(crate) const STEPS_BETWEEN_LOOKS: u64 = 1024;
/// How many bytes are taken for each byte of a dict whose names are to be found in texts.
const NAMES: usize = 16;
/// As how many parts a part counts whose hash is taken.
const HASHED: usize = 4;

impl Machine<'_> {
    /// Counts `count` steps.
    #[inline]
    pub(crate) fn step(&mut self, count: usize) -> Result<(), Stop> {
        self.steps = self.steps.saturating_add(count as u64);
        if self.steps >= self.pause {
            return self.look();
        }
        Ok(())
    }

    /// Looks at the limit of steps, and whether the run is still wanted.
    #[cold]
    fn look(&mut self) -> Result<(), Stop> {
        if self.steps > MAX_STEPS {
            return Err(Limit("steps for one entity", MAX_STEPS).into());
        }
        if self.context.stopped.is_some_and(|stopped| stopped()) {
            let words = "the evaluation was stopped before its end".to_owned();
            return Err(Stop::error(EvalClass::Cancelled, words));
        }
        self.pause = (self.steps + STEPS_BETWEEN_LOOKS).min(MAX_STEPS + 1);
        Ok(())
    }

    /// Counts what looking through a whole value takes; to be called before that is done.
    #[inline]
    pub(crate) fn weigh(&mut self, value: &Value) -> Result<(), Stop> {
        self.step(weight::parts(value, self.parts_left())? / PARTS_A_STEP)
    }

    /// Counts what preparing a function for a known argument takes: names that are to be replaced
    /// are put in order first.
    pub(crate) fn weigh_known(&mut self, known: &Value) -> Result<(), Stop> {
        self.weigh(known)?;
        match known {
            Value::Dict(_) => {
                let bytes = weight::whole(known, MAX_WORK);
                self.spend(bytes.saturating_mul(NAMES))?;
                self.step(bytes / PARTS_A_STEP)
            }
            _ => Ok(()),
        }
    }

    /// Counts what taking the hash of a whole value takes, as sets and groups do.
    #[inline]
    pub(crate) fn weigh_key(&mut self, value: &Value) -> Result<(), Stop> {
        let parts = weight::parts(value, self.parts_left())?;
        self.step(parts.saturating_mul(HASHED) / PARTS_A_STEP)
    }

    /// How many parts may be looked at before the limit of steps is reached, and one more.
    pub(crate) fn parts_left(&self) -> usize {
        (MAX_STEPS.saturating_sub(self.steps) as usize + 1) * PARTS_A_STEP
    }

    /// Counts a list or dict that outlives the expression which made it: what rules keep may nest
    /// no deeper than what can be written, or the next statement could put a level around it.
    #[inline]
    pub(crate) fn keep(&mut self, value: &Value) -> Result<(), Stop> {
        if weight::has_items(value) {
            self.weigh(value)?;
        }
        Ok(())
    }

    /// A place to count what following a path takes.
    #[inline]
    pub(crate) fn walk(&self) -> Walked {
        Walked {
            parts: 0,
            bytes: 0,
            most: self.parts_left(),
        }
    }

    /// Counts what following a path took.
    #[inline]
    pub(crate) fn walked(&mut self, walked: &Walked) -> Result<(), Stop> {
        self.step(walked.parts / PARTS_A_STEP)?;
        self.spend(walked.bytes)
    }

    /// Counts a value that is about to be written anew, all of it.
    pub(crate) fn rebuild(&mut self, value: &Value) -> Result<(), Stop> {
        self.weigh(value)?;
        self.spend(weight::whole(value, MAX_WORK - self.work))
    }

    /// Counts the memory of a result, without what its items take.
    #[inline]
    pub(crate) fn charge(&mut self, value: Value) -> Result<Value, Stop> {
        self.spend(weight::own(&value))?;
        Ok(value)
    }

    /// Counts memory that is about to be used.
    #[inline]
    pub(crate) fn spend(&mut self, bytes: usize) -> Result<(), Stop> {
        self.work = self.work.saturating_add(bytes);
        if self.work > MAX_WORK {
            self.work = MAX_WORK;
            let most = MAX_WORK as u64;
            return Err(Limit("bytes of texts and lists for one entity", most).into());
        }
        Ok(())
    }

    /// Goes one level deeper; every `descend` that succeeds has its `ascend`.
    #[inline]
    pub(crate) fn descend(&mut self, levels: u32) -> Result<(), Stop> {
        self.depth += levels;
        if self.depth > MAX_DEPTH {
            self.depth -= levels;
            return Err(Limit("levels of expressions and applied rules", MAX_DEPTH.into()).into());
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn ascend(&mut self, levels: u32) {
        self.depth -= levels;
    }
}
