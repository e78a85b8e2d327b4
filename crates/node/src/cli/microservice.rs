//! Options of `microservice`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::examples;

/// Options of `microservice`.
#[derive(Args, Clone)]
pub struct Microservice {
    /// What to do.
    #[command(subcommand)]
    pub command: MicroserviceCommand,
}

/// What can be done about microservices.
#[derive(Subcommand, Clone)]
pub enum MicroserviceCommand {
    /// Write a working service with its tests and Dockerfile, and the system and pipes for it.
    #[command(after_long_help = examples::MICROSERVICE_NEW)]
    New(NewService),
    /// Speak the JSON pull and push protocols to a service and report what it gets wrong.
    ///
    /// A sink is sent a handful of entities whose ids begin with tahini-check, changes, full
    /// sequences and deletions of them. A sink that keeps full sequences takes these for
    /// everything there is and deletes the rest: check it against a test system, or with --no-full.
    #[command(after_long_help = examples::MICROSERVICE_CHECK)]
    Check(CheckService),
}

/// Options of `microservice new`.
#[derive(Args, Clone)]
pub struct NewService {
    /// The service's name, also its system's id and its host name: 2 to 63 lower-case letters,
    /// digits and "-".
    pub name: String,
    /// What to write it in.
    #[arg(long, value_enum)]
    pub lang: Language,
    /// What it does: give entities, take them, turn them into others, or give and take.
    #[arg(long, value_enum)]
    pub kind: ServiceKind,
    /// The project's folder, made where it is not there; a folder of the service's name by default.
    #[arg(long, value_name = "DIR")]
    pub project: Option<PathBuf>,
}

/// Options of `microservice check`.
#[derive(Args, Clone)]
pub struct CheckService {
    /// The address that a pipe would ask or post to, such as http://localhost:5000/entities.
    pub url: String,
    /// What the service should do there.
    #[arg(long, value_enum, default_value = "source")]
    pub kind: ServiceKind,
    /// Entities to post instead of made-up ones, a JSON array or one a line.
    #[arg(long, value_name = "FILE")]
    pub entities: Option<PathBuf>,
    /// Send no full sequences.
    #[arg(long)]
    pub no_full: bool,
    /// A header for every request; may be given several times.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// The name of the parameter since, where the pipe sets since_property_name.
    #[arg(long, value_name = "NAME", default_value = "since")]
    pub since_name: String,
    /// The longest silence, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
    /// Take any certificate.
    #[arg(long)]
    pub insecure: bool,
    /// Print a JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// What a service is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Python, with nothing but its standard library.
    Python,
    /// Node.js, with nothing but its own modules.
    Node,
    /// Rust, with axum and serde_json.
    Rust,
}

/// What a service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ServiceKind {
    /// It gives entities (JSON pull).
    Source,
    /// It takes entities (JSON push).
    Sink,
    /// It answers entities with what they become (http transform).
    Transform,
    /// It gives and takes them.
    #[value(name = "source+sink")]
    Both,
}

impl ServiceKind {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            ServiceKind::Source => "source",
            ServiceKind::Sink => "sink",
            ServiceKind::Transform => "transform",
            ServiceKind::Both => "source+sink",
        }
    }
}
