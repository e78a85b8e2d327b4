//! The command line.

mod connector;
mod examples;
mod microservice;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

pub use self::connector::{
    AuthenticateConnector, Connector, ConnectorAuth, ConnectorCommand, ExpandConnector,
    InitConnector, ValidateConnector,
};
pub use self::microservice::{
    CheckService, Language, Microservice, MicroserviceCommand, NewService, ServiceKind,
};
use crate::commands;
use crate::remote::Remote;

/// Everything asked for was done.
pub const OK: u8 = 0;
/// A run or a test failed.
pub const FAILED: u8 = 1;
/// The configuration has errors.
pub const INVALID: u8 = 3;
/// The node could not be reached.
pub const UNREACHABLE: u8 = 4;
/// The node wants another token.
pub const FORBIDDEN: u8 = 5;
/// What is there is not what should be (`fmt --check`, a damaged backup).
pub const DIFFERENT: u8 = 7;
/// Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// The version, and the commit that it is built from where that is known.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), env!("TAHINI_BUILT_FROM"));

/// An open data hub in one binary: collects, transforms, merges and shares data by configuration.
///
/// Compatible with Sesam's configuration and protocols; not affiliated with Sesam.
#[derive(Parser)]
#[command(
    name = "tahini",
    version = VERSION,
    propagate_version = true,
    after_long_help = examples::TAHINI,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node: pipes on their schedules, the API, the status page.
    #[command(after_long_help = examples::SERVE)]
    Serve(Serve),
    /// Load a project into a store and run its pipes until nothing changes.
    #[command(after_long_help = examples::RUN)]
    Run(Run),
    /// Run a project's tests (expected/*.test.json) in this process.
    #[command(after_long_help = examples::TEST)]
    Test(Test),
    /// Say everything that is wrong with a project's configuration.
    #[command(after_long_help = examples::VALIDATE)]
    Validate(Validate),
    /// Transform entities from stdin by DTL rules, a line each.
    #[command(after_long_help = examples::TRANSFORM)]
    Transform(Transform),
    /// Say what the functions of DTL do, or what rules in a file read and depend on.
    #[command(after_long_help = examples::EXPLAIN)]
    Explain(Explain),
    /// Lay out configuration and test files as the reference's client does.
    #[command(after_long_help = examples::FMT)]
    Fmt(Fmt),
    /// Print a JSON Schema of the configuration, for editors.
    #[command(after_long_help = examples::SCHEMA)]
    Schema(Schema),
    /// Print what a dataset holds, or what a pipe would give.
    #[command(after_long_help = examples::ENTITIES)]
    Entities(Entities),
    /// Commit or roll back a dataset's tripped circuit breaker.
    #[command(after_long_help = examples::BREAKER)]
    Breaker(Breaker),
    /// Remove entities from a dataset for good, with all their versions.
    #[command(after_long_help = examples::ERASE)]
    Erase(Erase),
    /// Follow one entity on its way through a pipe.
    #[command(after_long_help = examples::TRACE)]
    Trace(Trace),
    /// Ask a running node why a pipe is idle.
    #[command(after_long_help = examples::WHY)]
    Why(Why),
    /// Ask a running node where the properties of what a pipe makes come from.
    #[command(after_long_help = examples::LINEAGE)]
    Lineage(Lineage),
    /// Ask a running node how many entities a pipe's joins lead to.
    #[command(after_long_help = examples::HOPS)]
    Hops(Hops),
    /// Save a node, running or not: datasets, configuration, encrypted secrets.
    #[command(after_long_help = examples::BACKUP)]
    Backup(Backup),
    /// Put a backup back, or check it.
    #[command(after_long_help = examples::RESTORE)]
    Restore(Restore),
    /// Begin, expand and check connectors, and log in with their accounts.
    Connector(Connector),
    /// Write microservices of your own, and check them.
    Microservice(Microservice),
    /// Make tokens for the API.
    #[command(after_long_help = examples::TOKEN)]
    Token(Token),
    /// Print a script that completes commands in your shell.
    #[command(after_long_help = examples::COMPLETIONS)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where a project's variables and secrets come from.
#[derive(Args, Clone)]
pub struct Setting {
    /// Which <profile>-env.json gives the variables.
    #[arg(long, default_value = "test", env = "TAHINI_PROFILE")]
    pub profile: String,
    /// A JSON object of secrets (names and values); may be given several times. Secrets are also
    /// taken from TAHINI_SECRET_<NAME>.
    #[arg(long = "secrets", value_name = "FILE")]
    pub secrets: Vec<PathBuf>,
    /// A JSON object of variables that win over the profile's; may be given several times.
    #[arg(long = "env", value_name = "FILE")]
    pub env: Vec<PathBuf>,
}

/// Where datasets are kept.
#[derive(Args, Clone)]
pub struct Store {
    /// The folder with the datasets.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "tahini-data",
        env = "TAHINI_DATA_DIR"
    )]
    pub data: PathBuf,
}

/// Options of `serve`.
#[derive(Args, Clone)]
pub struct Serve {
    /// Project folders to load over the stored configuration.
    pub projects: Vec<PathBuf>,
    /// Where datasets are kept.
    #[command(flatten)]
    pub store: Store,
    /// Where to listen, a name or a number and a port; anything but loopback needs tokens.
    #[arg(long, value_name = "ADDRESS", value_parser = address, default_value = "127.0.0.1:9042",
        env = "TAHINI_LISTEN")]
    pub listen: SocketAddr,
    /// Variables and secrets.
    #[command(flatten)]
    pub setting: Setting,
    /// Accept microservices that are local processes over the API, too.
    #[arg(long)]
    pub allow_process: bool,
    /// Run pipes only when asked, never by schedule or signal.
    #[arg(long)]
    pub no_schedule: bool,
    /// Run microservices as containers where they could also be local processes.
    #[arg(long)]
    pub prefer_docker: bool,
    /// Also serve metrics, without a token, here.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub metrics_listen: Option<SocketAddr>,
    /// The folder in which backups of the running node may be made.
    #[arg(long, value_name = "DIR", env = "TAHINI_BACKUP_DIR")]
    pub backups: Option<PathBuf>,
    /// Log lines for people or machines; people on a terminal by default.
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Options of `run`.
#[derive(Args, Clone)]
pub struct Run {
    /// The project's folder.
    pub project: PathBuf,
    /// Where datasets are kept.
    #[command(flatten)]
    pub store: Store,
    /// Only these pipes; may be given several times.
    #[arg(long = "pipe", value_name = "ID")]
    pub pipes: Vec<String>,
    /// The most passes over the pipes.
    #[arg(long, default_value_t = 100)]
    pub max_passes: usize,
    /// Variables and secrets.
    #[command(flatten)]
    pub setting: Setting,
    /// Print a JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Options of `test`.
#[derive(Args, Clone)]
pub struct Test {
    /// The project's folder.
    pub project: PathBuf,
    /// Variables and secrets.
    #[command(flatten)]
    pub setting: Setting,
    /// Write what the pipes give as what is expected.
    #[arg(long)]
    pub update: bool,
    /// Print a JSON object instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// Options of `validate`.
#[derive(Args, Clone)]
pub struct Validate {
    /// The project's folder.
    pub project: PathBuf,
    /// Variables and secrets.
    #[command(flatten)]
    pub setting: Setting,
    /// Print a JSON object instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// Options of `transform`.
#[derive(Args, Clone)]
pub struct Transform {
    /// A rules object, a dtl transform or a whole pipe.
    pub rules: PathBuf,
    /// A dataset that the rules may look things up in, NDJSON or a JSON array; may be given
    /// several times.
    #[arg(long = "dataset", value_name = "NAME=FILE", value_parser = dataset)]
    pub datasets: Vec<(String, PathBuf)>,
    /// The value of `now` instead of the time, for example 2024-02-29T12:30:00Z.
    #[arg(long, value_name = "TIME")]
    pub now: Option<jiff::Timestamp>,
    /// Print what the rules read, and for each entity the value at every step.
    #[arg(long)]
    pub explain: bool,
    /// With --explain, print a JSON object an entity instead of text.
    #[arg(long, requires = "explain")]
    pub json: bool,
    /// Variables and secrets.
    #[command(flatten)]
    pub setting: Setting,
}

/// Options of `explain`.
#[derive(Args, Clone)]
pub struct Explain {
    /// Functions, or files with rules; without any, all functions are listed.
    #[arg(value_name = "NAME|FILE")]
    pub names: Vec<String>,
    /// Variables and secrets, for files.
    #[command(flatten)]
    pub setting: Setting,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Options of `fmt`.
#[derive(Args, Clone)]
pub struct Fmt {
    /// Files, or the folders of projects.
    #[arg(required = true, value_name = "FILE|PROJECT")]
    pub paths: Vec<PathBuf>,
    /// Change nothing; name the files that would change, and end with code 7 when there are any.
    #[arg(long)]
    pub check: bool,
}

/// Options of `schema`.
#[derive(Args, Clone)]
pub struct Schema {
    /// What the schema is for.
    #[arg(value_enum, default_value = "all")]
    pub subject: SchemaSubject,
}

/// What a schema is for.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum SchemaSubject {
    /// One pipe.
    Pipe,
    /// One system.
    System,
    /// A rules object.
    Rules,
    /// A file of configuration: a component, or a list of them.
    All,
}

/// Options of `entities`.
#[derive(Args, Clone)]
pub struct Entities {
    /// A dataset or, with --project, a pipe.
    pub name: String,
    /// Where datasets are kept.
    #[command(flatten)]
    pub store: Store,
    /// The project whose pipe is evaluated; then NAME is a pipe.
    #[arg(long)]
    pub project: Option<PathBuf>,
    /// All versions, not only the latest.
    #[arg(long)]
    pub history: bool,
    /// Also what a tripped circuit breaker holds back.
    #[arg(long)]
    pub uncommitted: bool,
    /// Only what came after this offset.
    #[arg(long)]
    pub since: Option<String>,
    /// At most this many.
    #[arg(long)]
    pub limit: Option<usize>,
    /// source, before-transforms, after-transforms or sink.
    #[arg(long, default_value = "sink")]
    pub stage: String,
    /// Variables and secrets.
    #[command(flatten)]
    pub setting: Setting,
}

/// Options of `breaker`.
#[derive(Args, Clone)]
pub struct Breaker {
    /// What to do.
    #[arg(value_enum)]
    pub action: BreakerAction,
    /// The dataset.
    pub dataset: String,
    /// Where datasets are kept.
    #[command(flatten)]
    pub store: Store,
}

/// What is done about a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BreakerAction {
    /// Say whether it is tripped, and why.
    Show,
    /// Show readers what is held back.
    Commit,
    /// Take back what is held back; the pipe's place is that before the run.
    Rollback,
}

/// Options of `erase`.
#[derive(Args, Clone)]
pub struct Erase {
    /// The dataset.
    pub dataset: String,
    /// The `_id`s of the entities.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    /// Where datasets are kept.
    #[command(flatten)]
    pub store: Store,
}

/// Options of `trace`.
#[derive(Args, Clone)]
pub struct Trace {
    /// The project's folder.
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// The pipe.
    pub pipe: String,
    /// The entity's `_id` in the source.
    pub id: String,
    /// Where datasets are kept.
    #[command(flatten)]
    pub store: Store,
    /// Variables and secrets.
    #[command(flatten)]
    pub setting: Setting,
    /// Print a JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Options of `why`.
#[derive(Args, Clone)]
pub struct Why {
    /// The pipe.
    pub pipe: String,
    /// The node; without --node the one that listens on this machine.
    #[command(flatten)]
    pub remote: Remote,
    /// Print a JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Options of `lineage`.
#[derive(Args, Clone)]
pub struct Lineage {
    /// The pipe.
    pub pipe: String,
    /// One of its properties, with dots between nested names; all of them without it.
    pub property: Option<String>,
    /// Go back at most so many pipes.
    #[arg(long, value_name = "PIPES")]
    pub depth: Option<u32>,
    /// The node; without --node the one that listens on this machine.
    #[command(flatten)]
    pub remote: Remote,
    /// Print a JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Options of `hops`.
#[derive(Args, Clone)]
pub struct Hops {
    /// The pipe.
    pub pipe: String,
    /// The node; without --node the one that listens on this machine.
    #[command(flatten)]
    pub remote: Remote,
    /// Print a JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Options of `backup`.
#[derive(Args, Clone)]
pub struct Backup {
    /// The folder of the backup, brought up to date where there is one; with --node its name in
    /// that node's folder of backups (serve --backups DIR).
    #[arg(value_name = "DIR|NAME")]
    pub to: PathBuf,
    /// The data folder of a node that does not run.
    #[command(flatten)]
    pub store: Store,
    /// The node that runs.
    #[command(flatten)]
    pub remote: Remote,
    /// Print a JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Options of `restore`.
#[derive(Args, Clone)]
pub struct Restore {
    /// The folder of the backup.
    #[arg(value_name = "BACKUP")]
    pub from: PathBuf,
    /// The data folder to restore into.
    #[command(flatten)]
    pub store: Store,
    /// Only read the backup through: every byte is compared with its sum.
    #[arg(long)]
    pub check: bool,
    /// Replace what is in the data folder, and take a damaged backup as far as it goes.
    #[arg(long, conflicts_with = "check")]
    pub force: bool,
    /// Print a JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Options of `token`.
#[derive(Args, Clone)]
pub struct Token {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Subcommand, Clone)]
enum TokenCommand {
    /// Make a token, and the node's key when there is none.
    #[command(after_long_help = examples::TOKEN)]
    Create {
        /// What the bearer may do.
        #[arg(long, value_enum, default_value = "admin")]
        role: Role,
        /// How long it holds: 12h, 30d, 1y.
        #[arg(long, default_value = "30d")]
        expires: String,
    },
}

/// What a token's bearer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Everything.
    Admin,
    /// Look, and change nothing.
    Reader,
    /// Reach the services of microservice systems through the node, and nothing else.
    Proxy,
}

/// A dataset's name and the file that stands for it.
fn dataset(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(file)))
        }
        _ => Err("expected NAME=FILE".to_owned()),
    }
}

/// The address that a name or a number stands for, which decides whether tokens are needed.
/// Of several the first of the older kind, which every name on a machine of its own has.
fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().map_err(|error| {
        format!("expected a name or number with a port, such as localhost:9042: {error}")
    })?;
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    let first = found.first().copied();
    first.ok_or_else(|| "expected a name that has an address, found one without".to_owned())
}

/// Runs the program; errors are printed here.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    crate::serve::ignore_file_limit_signal();
    let outcome = match cli.command {
        Command::Serve(options) => crate::serve::serve(&options),
        Command::Run(options) => commands::run::run(&options),
        Command::Test(options) => commands::test::test(&options),
        Command::Validate(options) => commands::validate::validate(&options),
        Command::Transform(options) => commands::transform::transform(&options),
        Command::Explain(options) => commands::explain::explain(&options),
        Command::Fmt(options) => commands::fmt::fmt(&options),
        Command::Schema(options) => commands::schema::schema(&options),
        Command::Entities(options) => commands::entities::entities(&options),
        Command::Breaker(options) => commands::breaker::breaker(&options),
        Command::Erase(options) => commands::erase::erase(&options),
        Command::Trace(options) => commands::trace::trace(&options),
        Command::Why(options) => commands::why::why(&options),
        Command::Lineage(options) => commands::lineage::lineage(&options),
        Command::Hops(options) => commands::hops::hops(&options),
        Command::Backup(options) => commands::backup::backup(&options),
        Command::Restore(options) => commands::restore::restore(&options),
        Command::Connector(options) => commands::connector::connector(&options),
        Command::Microservice(options) => commands::microservice::microservice(&options),
        Command::Token(Token {
            command: TokenCommand::Create { role, expires },
        }) => crate::auth::create_token(role, &expires).map(|token| {
            crate::say::line(&token);
            OK
        }),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tahini", &mut script);
            crate::say::bytes(&script);
            Ok(OK)
        }
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            crate::say::error_line(&format!("tahini: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command lines in a text of examples, as far as they are for us.
    fn lines(examples: &str) -> Vec<Vec<String>> {
        let lines = examples.lines().filter_map(|line| {
            let line = line.strip_prefix("  tahini ")?;
            // Two spaces begin a remark.
            let line = line.split("  ").next()?;
            let own = line.split(['<', '>', '|']).next()?;
            let words = own.split_whitespace().map(str::to_owned);
            Some(std::iter::once("tahini".to_owned()).chain(words).collect())
        });
        lines.collect()
    }

    fn check(command: &clap::Command, name: &str) {
        let text = command.get_after_long_help().map(ToString::to_string);
        let own = lines(&text.unwrap_or_default());
        if !command.has_subcommands() || name == "tahini" {
            assert!(!own.is_empty(), "{name} has examples");
        }
        for words in own {
            let line = words.join(" ");
            assert!(line.starts_with(name), "{line} stands under {name}");
            if let Err(error) = Cli::try_parse_from(&words) {
                panic!("{line}: {error}");
            }
        }
        for inner in command.get_subcommands() {
            check(inner, &format!("{name} {}", inner.get_name()));
        }
    }

    #[test]
    fn every_command_has_examples_that_are_taken() {
        check(&Cli::command(), "tahini");
    }

    #[test]
    fn addresses_may_have_names() {
        let local = address("localhost:9050").unwrap();
        assert!(local.ip().is_loopback());
        assert_eq!(local.port(), 9050);
        assert_eq!(address("[::1]:1").unwrap(), "[::1]:1".parse().unwrap());
        assert!(!address("0.0.0.0:9042").unwrap().ip().is_loopback());
        for wrong in ["9042", "localhost", "localhost:x", ":"] {
            let words = address(wrong).unwrap_err();
            assert!(words.contains("localhost:9042"), "{wrong}: {words}");
        }
    }
}
