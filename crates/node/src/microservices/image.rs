//! Image names, and getting an image into the engine.

use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::query_parameters::CreateImageOptions;
use futures_util::StreamExt;

use super::logs::Log;
use super::runtime::StartError;
use super::spec::DockerSpec;

/// A pull that says nothing for so long has failed.
const PULL_IDLE: Duration = Duration::from_secs(120);
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
}

/// Makes sure that the engine has the image, asking the registry when `pull` and the spec allow
/// it. A registry that cannot be reached is no reason not to start an image that is here already;
/// one that refuses is.
pub(super) async fn ensure(
    docker: &Docker,
    spec: &DockerSpec,
    pull: bool,
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
    if !pull && let Some(here) = here {
        return Ok(here);
    }
    log.note(&format!("pulling {full}"));
    match (pull_image(docker, spec, &reference, log).await, here) {
        (Ok(()), _) => find(docker, &full).await?.ok_or_else(|| {
            StartError::new(format!(
                "docker.image: {full} was pulled, and the engine does not know it"
            ))
        }),
        (Err(error), Some(here)) if !refused(&error) => {
            log.note(&format!(
                "the image could not be pulled, the engine's own is used: {error}"
            ));
            Ok(here)
        }
        (Err(error), _) => Err(pull_error(&full, &error, spec.username.is_some())),
    }
}

async fn find(docker: &Docker, image: &str) -> Result<Option<Resolved>, StartError> {
    match docker.inspect_image(image).await {
        Ok(found) => {
            let digest = found.repo_digests.unwrap_or_default().into_iter().next();
            Ok(Some(Resolved {
                id: found.id,
                digest,
            }))
        }
        Err(error) if status_of(&error) == Some(404) => Ok(None),
        Err(error) => Err(StartError::new(format!(
            "the engine was asked for image {image}: {error}"
        ))),
    }
}

async fn pull_image(
    docker: &Docker,
    spec: &DockerSpec,
    reference: &Reference,
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
    loop {
        let step = match tokio::time::timeout(PULL_IDLE, steps.next()).await {
            Ok(Some(step)) => step?,
            Ok(None) => return Ok(()),
            Err(_) => return Err(Error::RequestTimeoutError),
        };
        // Layers report their progress many times a second; only the beginning and end are kept.
        let whole_image = step
            .progress_detail
            .is_none_or(|detail| detail.total.is_none());
        if let Some(status) = step.status.filter(|_| whole_image)
            && (status.starts_with("Digest:") || status.starts_with("Status:"))
        {
            log.note(&status);
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
