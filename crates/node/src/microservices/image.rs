//! Image names, and getting an image into the engine.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptions;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::engine::met;
use super::logs::Log;
use super::runtime::{Pulled, StartError};
use super::spec::DockerSpec;

/// A pull that says nothing for so long has failed.
const PULL_IDLE: Duration = Duration::from_secs(120);
/// Between two lines in the log that tell how far a pull is.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
const DOCKER_HUB: &str = "docker.io";
/// What the engine calls Docker Hub in credentials.
const DOCKER_HUB_LOGIN: &str = "https://index.docker.io/v1/";

/// An image's full name: registry, repository and tag or digest.
#[derive(Debug, PartialEq)]
pub(super) struct Reference {
    registry: String,
    repository: String,
    /// A tag, or a digest such as `sha256:…`.
    version: String,
    is_digest: bool,
}

impl Reference {
    /// Reads a name as people write it: without a registry it is on Docker Hub, without a tag it
    /// is `latest`.
    pub fn parse(text: &str) -> Reference {
        let text = text.trim();
        let (name, version, is_digest) = match text.split_once('@') {
            // With a digest a tag says nothing more.
            Some((name, digest)) => (split_tag(name).0, digest, true),
            None => {
                let (name, tag) = split_tag(text);
                (name, tag.unwrap_or("latest"), false)
            }
        };
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest.to_owned()),
            Some(_) => (DOCKER_HUB, name.to_owned()),
            None => (DOCKER_HUB, format!("library/{name}")),
        };
        let registry = registry.to_owned();
        Reference {
            registry,
            repository,
            version: version.to_owned(),
            is_digest,
        }
    }

    /// Registry and repository.
    fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The whole name, which every engine understands in the same way.
    pub fn full(&self) -> String {
        let separator = if self.is_digest { '@' } else { ':' };
        format!("{}{separator}{}", self.name(), self.version)
    }
}

fn split_tag(name: &str) -> (&str, Option<&str>) {
    // A colon before the last slash belongs to the registry's port.
    match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => (before, Some(tag)),
        _ => (name, None),
    }
}

/// The image as the engine has it.
pub(super) struct Resolved {
    pub id: Option<String>,
    pub digest: Option<String>,
    /// For which machines it is, as in `amd64`.
    pub architecture: Option<String>,
}

/// Makes sure that the engine has the image. The registry is asked for one that is not here and,
/// if the start `asks`, whether it has a newer one, where the spec allows that. A registry that
/// cannot be reached is no reason not to start an image that is here already; one that refuses is.
pub(super) async fn ensure(
    docker: &Docker,
    spec: &DockerSpec,
    asks: bool,
    pulled: &Mutex<Option<Pulled>>,
    log: &Log,
) -> Result<Resolved, StartError> {
    let reference = Reference::parse(&spec.image);
    let full = reference.full();
    let here = find(docker, &full).await?;
    if spec.skip_pull {
        return here.ok_or_else(|| {
            StartError::new(format!(
                "docker.image: expected {full} to be in the engine, since skip_pull is true, found it \
                 missing; pull or build it there, or remove skip_pull"
            ))
        });
    }
    // What has a digest is what it was, and need not be asked for again.
    let here = here.filter(|_| !asks || reference.is_digest);
    if let Some(here) = here {
        return Ok(here);
    }
    match get(docker, spec, &reference, pulled, log).await {
        Ok(image) => Ok(image),
        Err(trouble) => match find(docker, &full).await? {
            Some(here) if !trouble.refused => {
                log.note(&format!(
                    "the image could not be pulled, the engine's own is used: {}",
                    trouble.found
                ));
                Ok(here)
            }
            _ => Err(trouble.error),
        },
    }
}

/// Asks the registry for the image, and gives what the engine has then.
pub(super) async fn pull(
    docker: &Docker,
    spec: &DockerSpec,
    pulled: &Mutex<Option<Pulled>>,
    log: &Log,
) -> Result<Resolved, StartError> {
    let reference = Reference::parse(&spec.image);
    let got = get(docker, spec, &reference, pulled, log).await;
    got.map_err(|trouble| trouble.error)
}

/// The image of that name or id as the engine has it.
pub(super) async fn resolved(docker: &Docker, image: &str) -> Option<Resolved> {
    find(docker, image).await.ok().flatten()
}

/// Why an image did not come.
struct Trouble {
    error: StartError,
    /// What the engine said.
    found: String,
    /// The registry answered, and the answer was no.
    refused: bool,
}

async fn get(
    docker: &Docker,
    spec: &DockerSpec,
    reference: &Reference,
    pulled: &Mutex<Option<Pulled>>,
    log: &Log,
) -> Result<Resolved, Trouble> {
    let full = reference.full();
    log.note(&format!("pulling {full}"));
    let done = pull_image(docker, spec, reference, pulled, log).await;
    *pulled.lock().unwrap_or_else(PoisonError::into_inner) = None;
    done.map_err(|error| Trouble {
        refused: refused(&error),
        found: error.to_string(),
        error: pull_error(&full, &error, spec.username.is_some()),
    })?;
    let unknown = |error: StartError| Trouble {
        refused: true,
        found: error.message.clone(),
        error,
    };
    let here = find(docker, &full).await.map_err(unknown)?;
    here.ok_or_else(|| {
        unknown(StartError::new(format!(
            "docker.image: {full} was pulled, and the engine does not know it"
        )))
    })
}

async fn find(docker: &Docker, image: &str) -> Result<Option<Resolved>, StartError> {
    match docker.inspect_image(image).await {
        Ok(found) => {
            let digest = found.repo_digests.unwrap_or_default().into_iter().next();
            Ok(Some(Resolved {
                id: found.id,
                digest,
                architecture: found.architecture,
            }))
        }
        Err(error) if status_of(&error) == Some(404) => Ok(None),
        Err(error) => Err(StartError::new(format!(
            "expected the engine to tell about image {image}, found: {}; is it running?",
            met(&error)
        ))),
    }
}

async fn pull_image(
    docker: &Docker,
    spec: &DockerSpec,
    reference: &Reference,
    pulled: &Mutex<Option<Pulled>>,
    log: &Log,
) -> Result<(), Error> {
    let options = CreateImageOptions {
        from_image: Some(reference.name()),
        tag: Some(reference.version.clone()),
        ..CreateImageOptions::default()
    };
    let hub = reference.registry == DOCKER_HUB;
    let credentials = spec.username.clone().map(|username| DockerCredentials {
        username: Some(username),
        password: spec.password.clone(),
        serveraddress: Some(if hub {
            DOCKER_HUB_LOGIN.into()
        } else {
            reference.registry.clone()
        }),
        ..DockerCredentials::default()
    });
    let steps = docker.create_image(Some(options), None, credentials);
    tokio::pin!(steps);
    let mut layers = Layers::default();
    let mut told = Instant::now();
    loop {
        let step = match tokio::time::timeout(PULL_IDLE, steps.next()).await {
            Ok(Some(step)) => step?,
            Ok(None) => return Ok(()),
            Err(_) => return Err(Error::RequestTimeoutError),
        };
        if let Some(status) = layers.take(&step) {
            log.note(status);
        }
        let now = layers.pulled();
        *pulled.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            log.note(&format!(
                "{} of {} layers are here, {} of {} MB have come",
                now.layers_here,
                now.layers,
                now.bytes / 1_000_000,
                now.total_bytes / 1_000_000
            ));
        }
    }
}

/// The layers of an image that is being pulled, as far as the engine has spoken of them.
#[derive(Default)]
struct Layers(HashMap<String, Layer>);

#[derive(Default)]
struct Layer {
    is_here: bool,
    bytes: u64,
    total_bytes: u64,
}

impl Layers {
    /// Takes what the engine says; gives back what is said of the image as a whole.
    fn take<'s>(&mut self, step: &'s CreateImageInfo) -> Option<&'s str> {
        let status = step.status.as_deref()?;
        let Some(id) = step.id.as_deref() else {
            let whole = status.starts_with("Digest:") || status.starts_with("Status:");
            return whole.then_some(status);
        };
        // The first line of a pull has the tag as its id.
        if status.starts_with("Pulling from") {
            return None;
        }
        let layer = self.0.entry(id.to_owned()).or_default();
        match status {
            "Already exists" | "Pull complete" => layer.is_here = true,
            "Download complete" => layer.bytes = layer.total_bytes,
            // What is unpacked has come.
            "Downloading" => {
                let number = |found: Option<i64>| found.and_then(|n| u64::try_from(n).ok());
                let detail = step.progress_detail.as_ref();
                layer.bytes = number(detail.and_then(|detail| detail.current)).unwrap_or(0);
                layer.total_bytes = number(detail.and_then(|detail| detail.total)).unwrap_or(0);
            }
            _ => {}
        }
        None
    }

    fn pulled(&self) -> Pulled {
        let layers = self.0.values();
        Pulled {
            layers: self.0.len(),
            layers_here: layers.clone().filter(|layer| layer.is_here).count(),
            bytes: layers.clone().map(|layer| layer.bytes).sum(),
            total_bytes: layers.map(|layer| layer.total_bytes).sum(),
        }
    }
}

/// The registry answered, and the answer was no.
fn refused(error: &Error) -> bool {
    let text = error.to_string().to_lowercase();
    let words = [
        "unauthorized",
        "denied",
        "authentication required",
        "no basic auth",
        "manifest unknown",
    ];
    status_of(error) == Some(404) || words.iter().any(|word| text.contains(word))
}

fn pull_error(image: &str, error: &Error, with_user: bool) -> StartError {
    let text = error.to_string();
    let lower = text.to_lowercase();
    let help =
        if lower.contains("unauthorized") || lower.contains("denied") || lower.contains("auth") {
            if with_user {
                "check docker.username and docker.password"
            } else {
                "a private image needs docker.username and docker.password"
            }
        } else if refused(error) || lower.contains("not found") {
            "check the name and tag in docker.image"
        } else {
            "check that the engine can reach the registry; skip_pull uses the image that it has"
        };
    StartError::new(format!(
        "docker.image: expected to pull {image}, found: {text}; {help}"
    ))
}

/// The HTTP status of the engine's answer.
pub(super) fn status_of(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_of_a_pull_is_the_sum_of_its_layers() {
        // What an engine said, in its order.
        let said = r#"{"status":"Pulling from some/image","id":"1"}
            {"status":"Already exists","progressDetail":{},"id":"a"}
            {"status":"Pulling fs layer","progressDetail":{},"id":"b"}
            {"status":"Pulling fs layer","progressDetail":{},"id":"c"}
            {"status":"Downloading","progressDetail":{"current":300,"total":1000},"id":"b"}
            {"status":"Downloading","progressDetail":{"current":10,"total":50},"id":"c"}
            {"status":"Download complete","progressDetail":{},"id":"c"}
            {"status":"Extracting","progressDetail":{"current":7,"total":50},"id":"c"}
            {"status":"Pull complete","progressDetail":{},"id":"c"}
            {"status":"Digest: sha256:0"}"#;
        let mut layers = Layers::default();
        let mut whole = Vec::new();
        for line in said.lines() {
            let step: CreateImageInfo = serde_json::from_str(line).unwrap();
            whole.extend(layers.take(&step).map(str::to_owned));
        }
        assert_eq!(whole, ["Digest: sha256:0"]);
        let expected = Pulled {
            layers: 3,
            layers_here: 2,
            bytes: 350,
            total_bytes: 1050,
        };
        assert_eq!(layers.pulled(), expected);
    }

    #[test]
    fn names_are_completed_as_people_mean_them() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let cases = [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.27", "docker.io/library/nginx:1.27".to_owned()),
            (
                "some/file-share:latest",
                "docker.io/some/file-share:latest".to_owned(),
            ),
            (
                "quay.io/user/image:1.2.3",
                "quay.io/user/image:1.2.3".to_owned(),
            ),
            ("localhost/image", "localhost/image:latest".to_owned()),
            (
                "127.0.0.1:5000/image",
                "127.0.0.1:5000/image:latest".to_owned(),
            ),
            ("host:5000/a/b/c:7", "host:5000/a/b/c:7".to_owned()),
            (&format!("a/b@{digest}"), format!("docker.io/a/b@{digest}")),
            (
                &format!("ghcr.io/a/b:1@{digest}"),
                format!("ghcr.io/a/b@{digest}"),
            ),
        ];
        for (written, full) in cases {
            assert_eq!(Reference::parse(written).full(), full, "{written}");
        }
    }
}
