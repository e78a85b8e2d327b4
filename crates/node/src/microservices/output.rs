//! What a container writes, read for as long as it runs.

use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerState};
use bollard::query_parameters::{InspectContainerOptions, LogsOptions};
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

use super::image::status_of;
use super::logs::{LineSplitter, Log, Stream};

/// Pause before an engine that does not answer is asked again.
pub(super) const ENGINE_PAUSE: Duration = Duration::from_secs(1);

/// What the engine knows of a container.
pub(super) async fn inspect(docker: &Docker, id: &str) -> Result<ContainerInspectResponse, Error> {
    let options = None::<InspectContainerOptions>;
    docker.inspect_container(id, options).await
}

/// The container's state; one that is gone does not run.
pub(super) async fn state_of(docker: &Docker, id: &str) -> Result<ContainerState, Error> {
    match inspect(docker, id).await {
        Ok(found) => Ok(found.state.unwrap_or_default()),
        Err(error) if status_of(&error) == Some(404) => Ok(ContainerState::default()),
        Err(error) => Err(error),
    }
}

/// Reads what a container writes.
pub(super) struct Follower {
    pub docker: Docker,
    pub id: String,
    pub log: Arc<Log>,
    /// True once the container has ended.
    pub has_ended: watch::Receiver<bool>,
}

impl Follower {
    /// Reads until the container has ended. An engine that hung up while it runs is asked for the
    /// rest, from the second of the last line on: rather a line twice than none.
    pub async fn run(mut self, tail: String) {
        let mut options = LogsOptions {
            follow: true,
            stdout: true,
            stderr: true,
            tail,
            ..LogsOptions::default()
        };
        loop {
            let begun = Timestamp::now();
            let last = self.read(options.clone()).await.unwrap_or(begun);
            if !self.goes_on().await {
                return;
            }
            options.tail = "all".to_owned();
            options.since = i32::try_from(last.as_second()).unwrap_or(0);
        }
    }

    /// Reads until the engine hangs up; gives the moment of the last output.
    async fn read(&self, options: LogsOptions) -> Option<Timestamp> {
        let mut stdout = LineSplitter::new(self.log.clone(), Stream::Stdout);
        let mut stderr = LineSplitter::new(self.log.clone(), Stream::Stderr);
        let mut last = None;
        let chunks = self.docker.logs(&self.id, Some(options));
        tokio::pin!(chunks);
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(LogOutput::StdErr { message }) => stderr.feed(&message),
                Ok(other) => stdout.feed(&other.into_bytes()),
                Err(error) => {
                    tracing::debug!(container = self.id, %error, "its output broke off");
                    break;
                }
            }
            last = Some(Timestamp::now());
        }
        stdout.finish();
        stderr.finish();
        last
    }

    /// Whether the container runs on though the engine hung up; waits for an engine that does not
    /// answer.
    async fn goes_on(&mut self) -> bool {
        loop {
            // The end of the output is there a moment before the end of the container.
            let ended = timeout(ENGINE_PAUSE, self.has_ended.wait_for(|ended| *ended));
            if ended.await.is_ok() {
                return false;
            }
            if let Ok(state) = state_of(&self.docker, &self.id).await {
                return state.running == Some(true);
            }
        }
    }
}
