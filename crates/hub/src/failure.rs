//! What went wrong, in a class that decides and words that explain.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tahini_dtl::{EvalError, JsonPath};
use tahini_entity::Entity;
use tahini_store::StoreError;

use crate::policy::Retries;
use crate::secrets::{Redactor, SecretSource};

/// What a failure means for the run; the class decides, the words explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The peer may answer better next time: unreachable, overloaded, truncated.
    Transient,
    /// One entity is at fault; others may get through.
    Entity,
    /// The configuration is at fault; repeating changes nothing.
    Config,
    /// The run cannot go on: the store refused, a limit was hit, a panic.
    Fatal,
    /// The run cannot begin yet: it waits for something that another pipe brings.
    Waiting,
    /// The run was stopped on request.
    Cancelled,
    /// The run trips the circuit breaker of the sink's dataset.
    Tripped,
}

/// Why a step of a run did not succeed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What it means for the run.
    pub class: Class,
    /// What was expected, what was found, then help. Never holds a secret.
    pub message: String,
    /// The HTTP status that a peer answered, if one did.
    pub status: Option<u16>,
    /// How long the peer asked us to wait.
    pub retry_after: Option<Duration>,
    /// What the system that answered says about retries after this status.
    pub retries: Option<Arc<Retries>>,
    /// The root cause in the peer's own words, for example an answer's body (cut).
    pub original: Option<String>,
    /// The entity at fault.
    pub entity: Option<Box<Entity>>,
    /// Where rules failed, if they did; the message says it, too.
    pub fault: Option<Box<Fault>>,
    /// The peer was reached and answered (error code 1 in the execution log), or never was (0).
    pub reached: bool,
}

/// An entity that rules failed for, and where they did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The entity's position in the batch that the transform was given, from 0.
    pub position: usize,
    /// The entity's `_id`, when it has one.
    pub id: Option<String>,
    /// What the rules say.
    pub words: String,
    /// The statement, or else the transform, in the pipe's configuration.
    pub path: JsonPath,
}

impl Fault {
    /// The fault of an evaluation by the transform at `place`.
    pub(crate) fn of(error: &EvalError, place: &JsonPath) -> Fault {
        let path = error.path.as_ref();
        Fault {
            position: error.position,
            id: error.id.as_ref().map(ToString::to_string),
            words: error.message.clone(),
            path: path.map_or_else(|| place.clone(), |path| place.join(path)),
        }
    }

    /// The entity, in the words of a message.
    pub fn entity(&self) -> String {
        match &self.id {
            Some(id) => format!("entity {id:?}"),
            None => "an entity without _id".to_owned(),
        }
    }

    /// Everything in one line, for somebody who has to find the pipe, too.
    pub fn told(&self, pipe: &str) -> String {
        let (entity, words, path) = (self.entity(), &self.words, &self.path);
        format!("{entity}: {words} (pipe {pipe:?}, {path})")
    }
}

impl Failure {
    /// A failure of `class` with these words.
    pub fn new(class: Class, message: impl Into<String>) -> Failure {
        Failure {
            class,
            message: message.into(),
            status: None,
            retry_after: None,
            retries: None,
            original: None,
            entity: None,
            fault: None,
            reached: false,
        }
    }

    /// The peer may answer better next time.
    pub fn transient(message: impl Into<String>) -> Failure {
        Failure::new(Class::Transient, message)
    }

    /// One entity is at fault.
    pub fn entity(message: impl Into<String>) -> Failure {
        Failure {
            reached: true,
            ..Failure::new(Class::Entity, message)
        }
    }

    /// The configuration is at fault.
    pub fn config(message: impl Into<String>) -> Failure {
        Failure::new(Class::Config, message)
    }

    /// The run cannot go on.
    pub fn fatal(message: impl Into<String>) -> Failure {
        Failure::new(Class::Fatal, message)
    }

    /// The run cannot begin yet.
    pub fn waiting(message: impl Into<String>) -> Failure {
        Failure::new(Class::Waiting, message)
    }

    /// The run was stopped on request.
    pub fn cancelled() -> Failure {
        Failure::new(Class::Cancelled, "the run was stopped on request")
    }

    /// The run trips the circuit breaker of the sink's dataset.
    pub fn tripped(message: impl Into<String>) -> Failure {
        Failure::new(Class::Tripped, message)
    }

    /// The same failure with the entity at fault.
    pub fn with_entity(mut self, entity: Entity) -> Failure {
        self.entity = Some(Box::new(entity));
        self
    }

    /// The same failure with the place where rules failed.
    pub(crate) fn with_fault(mut self, fault: Fault) -> Failure {
        self.fault = Some(Box::new(fault));
        self
    }

    /// The same failure of a batch of which `before` tells the positions that its entities came
    /// from.
    pub fn from_before(mut self, before: &[u32]) -> Failure {
        if let Some(fault) = &mut self.fault {
            fault.position = before.get(fault.position).map_or(0, |at| *at as usize);
        }
        self
    }

    /// The same failure with the peer's status.
    pub fn with_status(mut self, status: u16) -> Failure {
        self.status = Some(status);
        self.reached = true;
        self
    }

    /// The same failure with the peer's own words.
    pub fn with_original(mut self, original: impl Into<String>) -> Failure {
        self.original = Some(original.into());
        self
    }

    /// The same failure without the secrets that its words or the peer's hold.
    pub fn hiding(mut self, secrets: &dyn SecretSource) -> Failure {
        let redactor = Redactor::new(secrets.values());
        if !redactor.is_empty() {
            self.message = redactor.redact(&self.message).into_owned();
            if let Some(fault) = &mut self.fault {
                fault.words = redactor.redact(&fault.words).into_owned();
            }
            self.original = self
                .original
                .map(|text| redactor.redact(&text).into_owned());
        }
        self
    }

    /// The same failure with words put before its own.
    pub fn context(mut self, before: impl fmt::Display) -> Failure {
        self.message = format!("{before}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.original {
            Some(original) => write!(f, "\n{original}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        match error {
            // It holds for as long as the dataset is as it is, and somebody has to act.
            StoreError::Refused(words) => Failure::config(words),
            error => Failure::fatal(error.to_string()),
        }
    }
}
