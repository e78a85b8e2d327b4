//! Options of `connector`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::examples;
use crate::remote::Remote;

/// Options of `connector`.
#[derive(Args, Clone)]
pub struct Connector {
    /// What to do.
    #[command(subcommand)]
    pub command: ConnectorCommand,
}

/// What can be done about connectors.
#[derive(Subcommand, Clone)]
pub enum ConnectorCommand {
    /// Begin a connector: its manifest, its system, and the templates of its data types.
    #[command(after_long_help = examples::CONNECTOR_INIT)]
    Init(InitConnector),
    /// Expand a connector into a project that can be run.
    #[command(after_long_help = examples::CONNECTOR_EXPAND)]
    Expand(ExpandConnector),
    /// Expand a connector without writing anything, and say what is wrong with it.
    #[command(after_long_help = examples::CONNECTOR_VALIDATE)]
    Validate(ValidateConnector),
    /// Get the tokens of an account, with a browser where the service wants one.
    #[command(after_long_help = examples::CONNECTOR_AUTHENTICATE)]
    Authenticate(AuthenticateConnector),
}

/// Which connector.
#[derive(Args, Clone)]
pub struct Place {
    /// The connector's folder, with its manifest.json.
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// The id that the connector's system gets, and its pipes begin with.
    #[arg(long, default_value = "xxxxxx")]
    pub system: String,
    /// Which <profile>-env.json gives the variables.
    #[arg(long, default_value = "test", env = "TAHINI_PROFILE")]
    pub profile: String,
}

/// Options of `connector init`.
#[derive(Args, Clone)]
pub struct InitConnector {
    /// The connector's folder, made where it is not there.
    pub folder: PathBuf,
    /// How the service wants to know who asks.
    #[arg(long, value_enum, default_value = "oauth2")]
    pub auth: ConnectorAuth,
    /// A data type to begin with; may be given several times.
    #[arg(long = "datatype", value_name = "NAME")]
    pub datatypes: Vec<String>,
    /// Write the pipe that shares, too, not only those that collect.
    #[arg(long)]
    pub share: bool,
}

/// How a service wants to know who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConnectorAuth {
    /// OAuth2, where somebody logs in once.
    Oauth2,
    /// A key.
    #[value(name = "api_key")]
    ApiKey,
    /// A key that is exchanged for a token.
    Jwt,
}

/// Options of `connector expand`.
#[derive(Args, Clone)]
pub struct ExpandConnector {
    /// Which one.
    #[command(flatten)]
    pub place: Place,
    /// The project's folder, in the connector's; what is in it is replaced.
    #[arg(long, short = 'e', value_name = "DIR", default_value = ".expanded")]
    pub expanded: PathBuf,
}

/// Options of `connector validate`.
#[derive(Args, Clone)]
pub struct ValidateConnector {
    /// Which one.
    #[command(flatten)]
    pub place: Place,
    /// Print a JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Options of `connector authenticate`.
#[derive(Args, Clone)]
pub struct AuthenticateConnector {
    /// Which one.
    #[command(flatten)]
    pub place: Place,
    /// Where a node takes the secrets and variables.
    #[command(flatten)]
    pub node: Remote,
    /// Write the secrets into this file instead, for `--secrets` of other commands, and the
    /// variables into the profile's file.
    #[arg(long, value_name = "FILE")]
    pub into: Option<PathBuf>,
    /// The port of the address to which the service sends the browser back, which is
    /// http://localhost:PORT/login_callback.
    #[arg(long, default_value_t = 5010)]
    pub port: u16,
    /// How long to wait for the browser, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
    /// The service gives no refresh token.
    #[arg(long)]
    pub ignore_refresh_token: bool,
    /// The address of the service's API, where the manifest or the token's address do not tell.
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// The account, where the service's answer does not tell.
    #[arg(long, value_name = "ID")]
    pub account_id: Option<String>,
}
