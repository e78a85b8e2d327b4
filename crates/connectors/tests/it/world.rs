//! What components are opened with: systems, a clock, services, all made for tests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tahini_connectors::http::HttpSystem;
use tahini_connectors::{SINKS, SOURCES, SYSTEMS, TRANSFORMS};
use tahini_entity::json::{Fields, Numbers, Parser, write_record};
use tahini_entity::{Batch, Offset};
use tahini_hub::config::Props;
use tahini_hub::registry::{Ctx, Registry};
use tahini_hub::secrets::{MemorySecrets, SecretSource};
use tahini_hub::sink::{End, Progress, Run, RunKind};
use tahini_hub::source::{From, Step};
use tahini_hub::{
    Cancel, Clock, Failure, Services, Sink, Source, System, Systems, Traced, Transform,
};
use tahini_store::{Backend, Memory};

pub struct World {
    store: Arc<dyn Backend>,
    systems: Arc<dyn Systems>,
    services: Arc<dyn Services>,
    clock: Arc<dyn Clock>,
    secrets: Arc<dyn SecretSource>,
    traced: Arc<Traced>,
    pub cancel: Cancel,
    registry: Registry,
}

/// A clock that stands still.
pub struct Noon;

impl Clock for Noon {
    fn now(&self) -> jiff::Timestamp {
        "2024-05-01T12:00:00Z".parse().unwrap()
    }
}

#[derive(Default)]
struct Known(HashMap<String, Arc<dyn System>>);

impl Systems for Known {
    fn get(&self, id: &str) -> Result<Arc<dyn System>, Failure> {
        self.0
            .get(id)
            .cloned()
            .ok_or_else(|| Failure::config(format!("no system {id:?}")))
    }
}

/// Services by id.
#[derive(Default)]
pub struct Running(HashMap<String, String>);

impl Services for Running {
    fn url(&self, system: &str, _: Duration, _: &Cancel) -> Result<String, Failure> {
        self.0
            .get(system)
            .cloned()
            .ok_or_else(|| Failure::transient("not running"))
    }
}

impl World {
    /// A world without systems.
    pub fn empty() -> World {
        World {
            store: Arc::new(Memory::new()),
            systems: Arc::new(Known::default()),
            services: Arc::new(Running::default()),
            clock: Arc::new(Noon),
            secrets: Arc::new(MemorySecrets::default()),
            traced: Arc::default(),
            cancel: Cancel::new(),
            registry: Registry {
                sources: &[SOURCES],
                sinks: &[SINKS],
                transforms: &[TRANSFORMS],
                systems: &[SYSTEMS],
                template: tahini_connectors::template,
            },
        }
    }

    /// A world with the system `s` of this configuration; services run at the given address.
    pub fn with(config: Json, service: Option<(&str, &str)>) -> Result<World, Failure> {
        let mut world = World::empty();
        let running = service.map(|(id, url)| (id.to_owned(), url.to_owned()));
        world.services = Arc::new(Running(running.into_iter().collect()));
        let def = world
            .registry
            .system(config["type"].as_str().unwrap())
            .unwrap();
        let id = config["_id"].as_str().unwrap();
        let system = world.ctx(id, "$", &config, &config, def.open)?;
        world.systems = Arc::new(Known(HashMap::from([(id.to_owned(), system)])));
        Ok(world)
    }

    /// A world with the url system `s` at `url` and short timeouts.
    pub fn at(url: &str) -> World {
        World::with(url_system(url), None).unwrap()
    }

    pub fn system(&self) -> HttpSystem {
        let system = self.systems.get("s").unwrap();
        system
            .as_any()
            .downcast_ref::<HttpSystem>()
            .unwrap()
            .clone()
    }

    fn ctx<T>(
        &self,
        owner: &str,
        path: &str,
        config: &Json,
        whole: &Json,
        open: impl FnOnce(&Ctx<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        open(&Ctx {
            owner,
            props: Props::new(path, config.as_object().unwrap()),
            place: &Default::default(),
            whole: Props::new("$", whole.as_object().unwrap()),
            store: &self.store,
            known: &Arc::default(),
            joined: &[],
            systems: &self.systems,
            services: &self.services,
            clock: &self.clock,
            secrets: &self.secrets,
            traced: &self.traced,
            cancel: &self.cancel,
            folder: None,
            registry: &self.registry,
        })
    }

    pub fn source(&self, config: Json, from: From) -> Result<Box<dyn Source>, Failure> {
        let kind = config["type"].as_str().unwrap_or("json");
        let def = self.registry.source(kind).unwrap();
        let whole = json!({ "_id": "p" });
        self.ctx("p", "$.source", &config, &whole, |ctx| {
            (def.open)(ctx, from)
        })
    }

    pub fn sink(&self, config: Json) -> Result<Box<dyn Sink>, Failure> {
        let kind = config["type"].as_str().unwrap_or("json");
        let def = self.registry.sink(kind).unwrap();
        self.ctx("p", "$.sink", &config, &json!({ "_id": "p" }), def.open)
    }

    pub fn transform(&self, config: Json) -> Result<Box<dyn Transform>, Failure> {
        let kind = config["type"].as_str().unwrap();
        let def = self.registry.transform(kind).unwrap();
        self.ctx(
            "p",
            "$.transform",
            &config,
            &json!({ "_id": "p" }),
            def.open,
        )
    }
}

/// The url system `s` at `url` with short timeouts.
pub fn url_system(url: &str) -> Json {
    json!({
        "_id": "s", "type": "system:url", "url_pattern": format!("{url}/%s"),
        "connect_timeout": 5, "read_timeout": 5,
    })
}

/// Everything that the source gives in steps of at most `limit`.
pub fn read_all(source: &mut dyn Source, limit: usize) -> Result<Batch, Failure> {
    let mut all = Batch::new();
    loop {
        let before = all.len();
        let step = source.next_batch(limit, &mut all)?;
        assert!(
            all.len() - before <= limit,
            "a step has at most {limit} entities"
        );
        if step == Step::End {
            return Ok(all);
        }
    }
}

/// A batch of these entities.
pub fn batch(entities: &[Json]) -> Batch {
    let mut batch = Batch::new();
    let mut parser = Parser::new(Numbers::FLOATS);
    for entity in entities {
        parser
            .push_json(&mut batch, entity.to_string().as_bytes())
            .unwrap();
    }
    batch
}

/// Entities that differ in their number alone.
pub fn numbered(range: std::ops::Range<u64>) -> Vec<Json> {
    range
        .map(|n| json!({ "_id": n.to_string(), "n": n }))
        .collect()
}

/// The content of a batch's entities as JSON.
pub fn content(batch: &Batch) -> Vec<Json> {
    let text = batch.iter().map(|record| {
        let mut text = Vec::new();
        write_record(record, Fields::CONTENT, &mut text);
        serde_json::from_slice(&text).unwrap()
    });
    text.collect()
}

pub fn since(offset: Offset) -> From {
    From {
        since: Some(offset),
        ..From::default()
    }
}

pub fn full() -> From {
    From {
        full: true,
        ..From::default()
    }
}

pub fn run(kind: RunKind) -> Run {
    Run {
        pipe: "p".to_owned(),
        kind,
        resumed: false,
        beside: None,
    }
}

/// The end of a run in which everything was read.
pub fn end() -> End {
    End {
        complete: true,
        populated: true,
        progress: Progress::default(),
        along: Vec::new(),
    }
}
