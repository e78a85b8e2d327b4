//! What the execution log tells of single posts, where the source has `trace`.

use jiff::Timestamp;
use tahini_entity::{Dict, Value};

use super::{PostError, Posted, Push};
use crate::execution_log::{ExecutionLog, RunLog, Summary, User};
use crate::hub::{Hub, LivePipe};
use crate::sink::RunKind;
use crate::{Class, Failure};

/// A post of which the pipe's execution log will tell as of a run.
pub struct Telling<'a> {
    hub: &'a Hub,
    log: ExecutionLog,
    kind: RunKind,
    at: Timestamp,
}

impl<'a> Telling<'a> {
    /// A post begins; nothing is written yet.
    ///
    /// # Errors
    /// When the log cannot be opened.
    pub fn begin(hub: &'a Hub, live: &LivePipe, push: &Push) -> Result<Telling<'a>, Failure> {
        let log = hub.log(live.id())?.hiding(hub.world.secrets.clone());
        let kind = match push.is_full {
            true => RunKind::Full,
            false => RunKind::Incremental,
        };
        Ok(Telling {
            hub,
            log,
            kind,
            at: hub.world.clock.now(),
        })
    }

    /// Writes `pump-started`, dated back to the beginning, and `pump-completed` or `pump-failed`,
    /// which has `trace`.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn end(
        self,
        outcome: &Result<Posted, PostError>,
        trace: Dict,
        user: &User,
    ) -> Result<(), Failure> {
        let mut run = RunLog::begin_at(&self.log, self.kind, Some(user.clone()), self.at);
        let mut summary = Summary {
            sync_type: self.kind.sync_type().to_owned(),
            started: self.at,
            ended: self.hub.world.clock.now(),
            trace: Some(Value::List([Value::Dict(trace)].into_iter().collect())),
            ..Summary::default()
        };
        match outcome {
            Ok(posted) => {
                summary.read = posted.read;
                summary.changed = posted.changed;
                summary.unchanged = posted.read.saturating_sub(posted.changed);
            }
            Err(error) => summary.failure = Some(failure_of(error)),
        }
        run.end(&summary, None)
    }
}

fn failure_of(error: &PostError) -> Failure {
    match error {
        PostError::Failed(failure) => failure.clone(),
        other => Failure::new(Class::Entity, other.to_string()),
    }
}
