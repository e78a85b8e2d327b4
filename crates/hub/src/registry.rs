//! The tables of component types: a row says everything there is to say about one type.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use tahini_dtl::{JsonPath, Read};
use tahini_store::Backend;

use crate::config::{Property, Props};
use crate::secrets::SecretSource;
use crate::source::From;
use crate::{
    Cancel, Clock, Failure, Known, Services, Sink, Source, System, Systems, Traced, Transform,
};

/// What a component gets when it is opened.
pub struct Ctx<'a> {
    /// The pipe's id; for a system, its own id.
    pub owner: &'a str,
    /// The component's effective configuration with secrets filled in.
    pub props: Props<'a>,
    /// Where the component stands in the pipe's configuration, as that was written.
    pub place: &'a JsonPath,
    /// The whole pipe's effective configuration (for a system, the system's).
    pub whole: Props<'a>,
    /// The store.
    pub store: &'a Arc<dyn Backend>,
    /// What is known of datasets beside what the store holds.
    pub known: &'a Arc<Known>,
    /// The datasets that the pipe's rules read.
    pub joined: &'a [Read],
    /// The other systems.
    pub systems: &'a Arc<dyn Systems>,
    /// The services that the node hosts.
    pub services: &'a Arc<dyn Services>,
    /// The wall clock.
    pub clock: &'a Arc<dyn Clock>,
    /// The secrets, for those that are asked for or change while the component is open.
    pub secrets: &'a Arc<dyn SecretSource>,
    /// Where requests are told that the run's log shall show.
    pub traced: &'a Arc<Traced>,
    /// The run's stop request.
    pub cancel: &'a Cancel,
    /// The folder of the project that the component came from, if it came from one.
    pub folder: Option<&'a PathBuf>,
    /// The tables, for components that hold others (conditional, chained).
    pub registry: &'a Registry,
}

/// Opens a source for a run.
pub type OpenSource = fn(&Ctx<'_>, From) -> Result<Box<dyn Source>, Failure>;
/// Opens a sink for a run.
pub type OpenSink = fn(&Ctx<'_>) -> Result<Box<dyn Sink>, Failure>;
/// Opens a transform for a run.
pub type OpenTransform = fn(&Ctx<'_>) -> Result<Box<dyn Transform>, Failure>;
/// Opens a system.
pub type OpenSystem = fn(&Ctx<'_>) -> Result<Arc<dyn System>, Failure>;

/// A source type.
pub struct SourceDef {
    /// The `type`.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Its properties, sorted as the manual prints them.
    pub properties: &'static [Property],
    /// Documented continuation defaults.
    pub continuation: ContinuationDef,
    /// Opens it for a run.
    pub open: OpenSource,
}

/// What a source type says about `supports_since`, `is_since_comparable`, `is_chronological`.
#[derive(Clone, Copy, Debug)]
pub struct ContinuationDef {
    /// Default or fixed `supports_since`.
    pub supports_since: bool,
    /// Default or fixed `is_since_comparable`.
    pub is_since_comparable: bool,
    /// Default or fixed `is_chronological`.
    pub is_chronological: bool,
    /// Whether a configuration may change them.
    pub configurable: bool,
}

/// A sink type.
pub struct SinkDef {
    /// The `type`.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Its properties.
    pub properties: &'static [Property],
    /// Opens it for a run.
    pub open: OpenSink,
}

/// The transforms that a transform stands for; or the path in it at which something is wrong, and
/// what.
pub type Unfolded = Result<Vec<Json>, (JsonPath, String)>;
/// Unfolds a transform that stands for others, from its configuration with variables inserted.
pub type StandsFor = fn(&Map<String, Json>) -> Unfolded;

/// A transform type.
pub struct TransformDef {
    /// The `type`.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Its properties.
    pub properties: &'static [Property],
    /// For a type that only stands for other transforms: those.
    pub stands_for: Option<StandsFor>,
    /// Opens it for a run.
    pub open: OpenTransform,
}

/// A system type.
pub struct SystemDef {
    /// The `type`, for example `system:url`.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Its properties.
    pub properties: &'static [Property],
    /// Opens it when the first pipe asks.
    pub open: OpenSystem,
}

/// All component types of a node: the built-in ones and the connectors'.
#[derive(Clone, Copy)]
pub struct Registry {
    /// Tables of sources.
    pub sources: &'static [&'static [SourceDef]],
    /// Tables of sinks.
    pub sinks: &'static [&'static [SinkDef]],
    /// Tables of transforms.
    pub transforms: &'static [&'static [TransformDef]],
    /// Tables of systems.
    pub systems: &'static [&'static [SystemDef]],
    /// What is wrong with a Jinja template.
    pub template: fn(&str) -> Result<(), String>,
}

impl Registry {
    /// The source type of that name.
    pub fn source(&self, name: &str) -> Option<&'static SourceDef> {
        self.sources
            .iter()
            .flat_map(|table| table.iter())
            .find(|row| row.name == name)
    }

    /// The sink type of that name.
    pub fn sink(&self, name: &str) -> Option<&'static SinkDef> {
        self.sinks
            .iter()
            .flat_map(|table| table.iter())
            .find(|row| row.name == name)
    }

    /// The transform type of that name.
    pub fn transform(&self, name: &str) -> Option<&'static TransformDef> {
        self.transforms
            .iter()
            .flat_map(|table| table.iter())
            .find(|row| row.name == name)
    }

    /// The system type of that name.
    pub fn system(&self, name: &str) -> Option<&'static SystemDef> {
        self.systems
            .iter()
            .flat_map(|table| table.iter())
            .find(|row| row.name == name)
    }
}
