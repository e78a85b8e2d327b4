//! Inferring types from what is posted to a pipe.
//!
//! Posts have no run and no end: what was seen is kept in memory, and saved when something new came
//! or when there are many more entities than before.

use serde_json::Value as Json;
use tahini_entity::Batch;

use super::forward::Receiving;
use crate::Failure;
use crate::entity_type::Watch;
use crate::hub::{Hub, LivePipe, commit_state};
use crate::pipe::Pipe;

/// A look at all that is posted to one configuration of a pipe.
pub(crate) struct Look {
    effective: Json,
    watch: Watch,
}

/// Looks at a post; `None` where types are not inferred. The look is taken out of `receiving`: a
/// post that fails leaves none, and the next one begins anew.
pub(super) fn begin(
    receiving: &mut Receiving,
    hub: &Hub,
    pipe: &Pipe,
    posted: &Batch,
) -> Result<Option<Look>, Failure> {
    if !pipe.infers {
        return Ok(None);
    }
    let known = receiving.look.take();
    let mut look = match known.filter(|known| known.effective == pipe.effective) {
        Some(look) => look,
        None => Look {
            effective: pipe.effective.clone(),
            watch: Watch::new(&pipe.id, hub.home(pipe)?, pipe.changes_entities()),
        },
    };
    look.watch.begin();
    look.watch.source(posted);
    Ok(Some(look))
}

impl Look {
    /// Looks at what became of the post, which is safe now. What cannot be saved is tried again
    /// with the next post: it is no reason to let this one fail.
    pub(super) fn posted(&mut self, hub: &Hub, live: &LivePipe, entities: &Batch) {
        self.watch.sink(entities);
        if !self.watch.is_worth_saving() || self.is_held() {
            return;
        }
        if let Err(failure) = self.save(hub, live) {
            tracing::warn!(pipe = live.id(), %failure, "inferred entity types were not saved");
        }
    }

    /// Nothing can be saved beside what a circuit breaker holds back.
    fn is_held(&self) -> bool {
        let home = self.watch.home().snapshot();
        home.is_ok_and(|home| home.head().holds)
    }

    fn save(&mut self, hub: &Hub, live: &LivePipe) -> Result<(), Failure> {
        let clock = hub.world.clock.as_ref();
        let (writes, changes) = self.watch.finish(false, clock.now())?;
        if writes.is_empty() {
            return Ok(());
        }
        live.lock().totals.drift += changes.len() as u64;
        Ok(commit_state(
            self.watch.home().as_ref(),
            &writes,
            false,
            clock,
        )?)
    }
}
