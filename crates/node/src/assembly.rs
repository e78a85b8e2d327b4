//! Putting a hub together: store, secrets, systems, hosted services.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use serde_json::{Map, Value as Json, json};
use tahini_hub::config::{Component, Configuration, Input, Level, Problem, resolve_secrets};
use tahini_hub::hub::Prepared;
use tahini_hub::project::{Project, read_secrets};
use tahini_hub::secrets::{EnvironmentSecrets, MemorySecrets, SecretChain, SecretSource};
use tahini_hub::{Clock, Failure, Hub, Registry, Services};
use tahini_store::Backend;

use crate::cli::{INVALID, OK};
use crate::microservices::{Host, HostOptions, Redactor, ServiceSpec};
use crate::programs::Programs;

/// All component types that this binary knows.
pub const REGISTRY: Registry = Registry {
    sources: &[tahini_hub::builtin::SOURCES, tahini_connectors::SOURCES],
    sinks: &[tahini_hub::builtin::SINKS, tahini_connectors::SINKS],
    transforms: &[
        tahini_hub::builtin::TRANSFORMS,
        tahini_connectors::TRANSFORMS,
    ],
    systems: &[tahini_connectors::SYSTEMS],
    template: tahini_connectors::template,
};

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

/// A hub with the services it hosts.
pub struct Assembly {
    /// The hub.
    pub hub: Arc<Hub>,
    /// The hosted services.
    pub host: Host,
    /// Where secrets come from.
    pub secrets: Arc<dyn SecretSource>,
    /// Which programs of this machine may be started.
    pub programs: Programs,
}

/// Projects read from disk, together.
pub struct Loaded {
    /// The projects.
    pub projects: Vec<Project>,
    /// All their documents.
    pub inputs: Vec<Input>,
    /// Their variables, merged; later projects win.
    pub env: Map<String, Json>,
}

impl Loaded {
    /// Reads projects from their folders.
    pub fn read(folders: &[PathBuf], profile: &str) -> anyhow::Result<Loaded> {
        let mut loaded = Loaded {
            projects: Vec::new(),
            inputs: Vec::new(),
            env: Map::new(),
        };
        for folder in folders {
            let project = Project::load(folder, profile)?;
            loaded.inputs.extend(project.inputs.iter().cloned());
            loaded.env.extend(project.env.clone());
            loaded.projects.push(project);
        }
        Ok(loaded)
    }

    /// Their configuration.
    pub fn configure(&self) -> Configuration {
        Configuration::build(self.inputs.clone(), &self.env, &REGISTRY)
    }

    /// Everything that is wrong with files and configuration.
    pub fn problems<'a>(&'a self, configuration: &'a Configuration) -> Vec<&'a Problem> {
        let files = self.projects.iter().flat_map(|project| &project.problems);
        files.chain(configuration.problems()).collect()
    }
}

/// Secrets from files, then from the environment.
pub fn secrets_from(files: &[PathBuf]) -> anyhow::Result<Arc<dyn SecretSource>> {
    let mut chain: Vec<Arc<dyn SecretSource>> = Vec::new();
    for file in files {
        chain.push(Arc::new(read_secrets(file)?));
    }
    chain.push(Arc::new(EnvironmentSecrets::of(std::env::vars())));
    chain.push(Arc::new(MemorySecrets::default()));
    Ok(Arc::new(SecretChain(chain)))
}

impl Assembly {
    /// A hub over `store` whose services run on this machine.
    pub fn new(
        store: Arc<dyn Backend>,
        secrets: Arc<dyn SecretSource>,
        options: HostOptions,
        programs: Programs,
    ) -> Assembly {
        let host = Host::new(tahini_connectors::http::runtime().handle().clone(), options);
        let services: Arc<dyn Services> = Arc::new(host.clone());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let hub = Arc::new(Hub::new(store, services, clock, secrets.clone(), REGISTRY));
        Assembly {
            hub,
            host,
            secrets,
            programs,
        }
    }

    /// Takes over a configuration: pipes, systems, hosted services. Services that cannot be
    /// hosted are told; the rest runs.
    ///
    /// # Errors
    /// When the store cannot be read or written; everything is as before then.
    pub fn apply(&self, configuration: Configuration) -> Result<Vec<Problem>, Failure> {
        let prepared = self.hub.prepare(configuration)?;
        Ok(self.take_over(prepared))
    }

    /// The second half of `apply`, which cannot fail.
    pub fn take_over(&self, prepared: Prepared) -> Vec<Problem> {
        let (specs, problems, mut known) = self.services(prepared.configuration());
        // What a service is not given it may still get to know, from another one for instance.
        known.extend(self.secrets.values());
        let refused = refused(prepared.configuration(), &problems);
        self.host.set_redactor(Redactor::new(known));
        self.host.set_refused(refused);
        self.host.apply(specs);
        self.hub.take_over(prepared);
        problems
    }

    /// The services that a configuration wants, what is wrong with them, and the secrets they
    /// were given.
    fn services(
        &self,
        configuration: &Configuration,
    ) -> (Vec<ServiceSpec>, Vec<Problem>, Vec<String>) {
        let (mut specs, mut problems, mut known) = (Vec::new(), Vec::new(), Vec::new());
        let microservices = configuration
            .systems()
            .filter(|system| system.type_name() == "system:microservice" && system.is_runnable());
        for system in microservices {
            known.extend(self.secrets_of(system));
            match self.service(system) {
                Ok(spec) => specs.push(spec),
                Err(words) => {
                    let mut problem = Problem::error(Default::default(), words);
                    problem.component = Some(system.id.clone());
                    problems.push(problem);
                }
            }
        }
        (specs, problems, known)
    }

    fn service(&self, system: &Component) -> Result<ServiceSpec, String> {
        let filled = resolve_secrets(&system.effective, self.secrets.as_ref(), Some(&system.id))
            .map_err(|failure| failure.to_string())?;
        if let Some(words) = self.programs.refusal(system, self.secrets.as_ref()) {
            return Err(words);
        }
        let folder = system.folder.clone().unwrap_or_else(|| PathBuf::from("."));
        let folder = folder.canonicalize().unwrap_or(folder);
        ServiceSpec::from_config(&system.id, &filled, &folder)
    }

    fn secrets_of(&self, system: &Component) -> Vec<String> {
        let text = system.effective.to_string();
        let names = text
            .split("$SECRET(")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        let get = |name: &str| {
            let own = self.secrets.get(Some(&system.id), name);
            own.or_else(|| self.secrets.get(None, name))
        };
        names.filter_map(get).collect()
    }

    /// Stops all services.
    pub fn close(&self) {
        let host = self.host.clone();
        tahini_connectors::http::runtime().block_on(async move { host.shutdown().await });
    }
}

/// Why microservices are not hosted, by system: for pipes that ask for one all the same.
fn refused(configuration: &Configuration, problems: &[Problem]) -> BTreeMap<String, String> {
    let own = configuration.systems().flat_map(|system| &system.problems);
    let mut refused = BTreeMap::new();
    for problem in own.chain(problems).filter(|problem| problem.is_error()) {
        if let Some(system) = &problem.component {
            let first = refused.entry(system.clone());
            first.or_insert_with(|| problem.message.clone());
        }
    }
    refused
}

/// Prints problems, errors last, and tells whether there are errors.
pub fn print_problems(problems: &[&Problem]) -> bool {
    let mut sorted: Vec<&&Problem> = problems.iter().collect();
    sorted.sort_by_key(|problem| problem.is_error());
    for problem in &sorted {
        crate::say::error_line(&problem.to_string());
    }
    sorted.iter().any(|problem| problem.is_error())
}

/// Tells what was found in a configuration, as text or as one JSON object; the exit code.
pub fn report(configuration: &Configuration, problems: &[&Problem], json: bool) -> u8 {
    let (errors, warnings) = count(problems);
    if json {
        let all: Vec<_> = problems.iter().map(|problem| problem.to_report()).collect();
        let report = json!({"problems": all, "errors": errors, "warnings": warnings});
        crate::say::line(&report.to_string());
    } else {
        print_problems(problems);
        let pipes = configuration.pipes().count();
        let systems = configuration.systems().count();
        crate::say::line(&format!(
            "{pipes} pipes, {systems} systems: {errors} errors, {warnings} warnings"
        ));
    }
    if errors > 0 { INVALID } else { OK }
}

/// How many problems there are of each level.
pub fn count(problems: &[&Problem]) -> (usize, usize) {
    let errors = problems
        .iter()
        .filter(|problem| problem.level == Level::Error)
        .count();
    (errors, problems.len() - errors)
}

/// Reads JSON objects from files and merges them; later files win.
pub fn read_objects(files: &[PathBuf]) -> anyhow::Result<Map<String, Json>> {
    let mut all = Map::new();
    for file in files {
        all.extend(read_object(file)?);
    }
    Ok(all)
}

fn read_object(file: &Path) -> anyhow::Result<Map<String, Json>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(Json::Object(map)) => Ok(map),
        Ok(_) => Err(anyhow!("{}: expected a JSON object", file.display())),
        Err(error) => Err(anyhow!("{}: {error}", file.display())),
    }
}

/// Which pipes of a configuration an unknown name may have meant.
pub fn suggest(configuration: &Configuration, name: &str) -> Option<String> {
    let ids: BTreeMap<&str, ()> = configuration.pipes().map(|p| (p.id.as_str(), ())).collect();
    let ids: Vec<&str> = ids.into_keys().collect();
    tahini_hub::config::nearest(name, ids.iter().copied()).map(str::to_owned)
}
