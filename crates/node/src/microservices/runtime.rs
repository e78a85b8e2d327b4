//! Where a microservice runs: one small trait, so that an engine, a process and one day a cluster
//! look the same from above.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::logs::Log;
use super::spec::ServiceSpec;

/// A boxed future: what an `async fn` of a trait object returns.
pub type Task<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Starts services in one kind of place.
pub trait Runtime: Send + Sync {
    /// The kind of place, as the status names it: `docker` or `process`.
    fn name(&self) -> &'static str;

    /// Starts the service and returns as soon as it exists; it may not listen yet. Its output goes
    /// line by line into the launch's log. What an earlier life of the node left running of this
    /// service is taken over when it is as the launch wants it, and ends otherwise. Dropping the
    /// future may leave parts behind, which `clear` removes.
    fn start<'a>(&'a self, launch: &'a Launch) -> Task<'a, Result<Arc<dyn Instance>, StartError>>;

    /// Looks for a newer version of what the service runs and gets it. True when a new start would
    /// run something else than `running` does; a place without images knows no newer version.
    fn renew<'a>(
        &'a self,
        _launch: &'a Launch,
        _running: &'a dyn Instance,
    ) -> Task<'a, Result<bool, StartError>> {
        Box::pin(async { Ok(false) })
    }

    /// Removes what an interrupted start, or an earlier life of the node, left of this service.
    fn clear<'a>(&'a self, id: &'a str) -> Task<'a, ()>;

    /// Ends what an earlier life of this node left running and is not among the `wanted` ids; what
    /// is not this node's is not touched. False when the place is out of reach for now, so that it
    /// is to be asked again.
    fn tidy<'a>(&'a self, wanted: &'a [String]) -> Task<'a, bool>;

    /// The node ends and every service has been stopped: removes what they shared.
    fn close(&self) -> Task<'_, ()>;
}

/// One started service.
pub trait Instance: Send + Sync {
    /// Where the node reaches it: `host:port`.
    fn address(&self) -> String;

    /// Something accepts connections before the service does, so that an accepted one proves
    /// nothing until it has stayed open for a moment.
    fn behind_proxy(&self) -> bool;

    /// Where the service itself listens behind that proxy, when the place tells; it need not be in
    /// reach.
    fn door(&self) -> Option<SocketAddr> {
        None
    }

    /// When it was started, when an earlier life of the node did that.
    fn adopted(&self) -> Option<Timestamp> {
        None
    }

    /// The id of the image that it runs, where there are images.
    fn image_id(&self) -> Option<&str> {
        None
    }

    /// It has ended, though what it leaves behind may still be cleared away.
    fn has_ended(&self) -> bool;

    /// Waits until the service has ended, by itself or because it was stopped.
    fn exited(&self) -> Task<'_, Exit>;

    /// Asks the service to end, forces it after the grace period, waits until nothing is left.
    fn stop(&self, grace: Duration) -> Task<'_, Exit>;

    /// What the place tells about the running service now.
    fn vitals(&self) -> Task<'_, Vitals>;

    /// Where it listens, as far as the place can tell: for the message that it does not listen where
    /// it should.
    fn listens_on(&self) -> Task<'_, Vec<SocketAddr>> {
        Box::pin(async { Vec::new() })
    }
}

/// Everything a runtime needs to start a service once.
pub struct Launch {
    /// What to run.
    pub spec: Arc<ServiceSpec>,
    /// The port of this machine on which the node will reach it.
    pub port: u16,
    /// Variables from the node, beside those of the spec, which win.
    pub node_environment: Vec<(String, String)>,
    /// The same for a place where services do not find each other by their names.
    pub nameless_environment: Vec<(String, String)>,
    /// Ask the registry for a newer image first, unless the spec says `skip_pull`.
    pub pull: bool,
    /// Where its output goes.
    pub log: Arc<Log>,
    /// Where the runtime tells how far a pull is.
    pub pulled: Arc<Mutex<Option<Pulled>>>,
}

/// How far the pull of an image is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulled {
    /// Layers that the registry has named so far.
    pub layers: usize,
    /// Of these, the ones that are here.
    pub layers_here: usize,
    /// Bytes that have come.
    pub bytes: u64,
    /// Bytes that are to come in all, as far as they are known.
    pub total_bytes: u64,
}

/// A service that could not be started.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// What was expected, what was found, what helps.
    pub message: String,
    /// Another program has the port, so that another one should be tried.
    pub port_taken: bool,
}

impl StartError {
    /// An error that another port will not cure.
    pub fn new(message: impl Into<String>) -> StartError {
        StartError {
            message: message.into(),
            port_taken: false,
        }
    }
}

/// How a service ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// When the node saw it.
    pub at: Timestamp,
    /// Its exit code, when it ended by itself.
    pub code: Option<i64>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The engine ended it for taking more memory than it was given.
    pub oom_killed: bool,
    /// The node asked it to end.
    pub asked: bool,
    /// What may have led to an end that nobody asked for, as far as the place can tell.
    pub hint: Option<String>,
}

impl Exit {
    /// An end at this moment.
    pub fn now(code: Option<i64>, signal: Option<i32>) -> Exit {
        Exit {
            at: Timestamp::now(),
            code,
            signal,
            oom_killed: false,
            asked: false,
            hint: None,
        }
    }

    /// The end that is told there, as soon as it is.
    pub async fn of(ended: &watch::Receiver<Option<Exit>>) -> Exit {
        let mut ended = ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or_else(|| Exit::now(None, None)),
            // The task that tells it is gone: the node is ending.
            Err(_) => Exit::now(None, None),
        }
    }

    /// The end in words: `exit code 3`, `signal 9 (SIGKILL)`, `killed for memory`.
    pub fn reason(&self) -> String {
        if self.oom_killed {
            return "killed because it took more memory than its limit".to_owned();
        }
        let how = match (self.signal, self.code) {
            (Some(signal), _) => format!("signal {signal}{}", signal_name(signal)),
            (None, Some(code)) => format!("exit code {code}{}", code_meaning(code)),
            (None, None) => "for a reason that is not known".to_owned(),
        };
        match &self.hint {
            _ if self.asked => format!("stopped by the node, {how}"),
            Some(hint) => format!("{how}; {hint}"),
            None => how,
        }
    }
}

/// What shells, and the engines' init process with them, say by an exit code.
fn code_meaning(code: i64) -> &'static str {
    match code {
        126 => " (its program could not be executed)",
        127 => " (its program was not found)",
        _ => "",
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGILL => "SIGILL",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGTERM => "SIGTERM",
        _ => return String::new(),
    };
    format!(" ({name})")
}

/// What a place tells about a running service; what it does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vitals {
    /// The service's process.
    pub pid: Option<i64>,
    /// The container's id.
    pub container: Option<String>,
    /// The image as it was resolved: its id.
    pub image_id: Option<String>,
    /// The registry's digests of the image.
    pub digest: Option<String>,
    /// Memory in use, in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory limit, in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// CPU time taken since its start, in seconds.
    pub cpu_seconds: Option<f64>,
    /// CPU limit, in percent of one core.
    pub cpu_limit_percent: Option<u64>,
    /// Why the place tells nothing.
    pub trouble: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_words() {
        assert_eq!(Exit::now(Some(3), None).reason(), "exit code 3");
        assert_eq!(Exit::now(None, Some(9)).reason(), "signal 9 (SIGKILL)");
        assert_eq!(Exit::now(None, Some(64)).reason(), "signal 64");
        let memory = Exit {
            oom_killed: true,
            ..Exit::now(Some(137), None)
        };
        assert!(memory.reason().contains("memory"));
        let asked = Exit {
            asked: true,
            ..Exit::now(Some(0), None)
        };
        assert_eq!(asked.reason(), "stopped by the node, exit code 0");
        let hinted = Exit {
            hint: Some("it is for another machine".to_owned()),
            ..Exit::now(Some(126), None)
        };
        let words = "exit code 126 (its program could not be executed); it is for another machine";
        assert_eq!(hinted.reason(), words);
    }
}
