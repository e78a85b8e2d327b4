//! The connection to a container engine, and what is known of it once it stands.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bollard::errors::Error;
use bollard::query_parameters::ListContainersOptions;
use bollard::{API_DEFAULT_VERSION, Docker};

use super::docker::{NODE_LABEL, SYSTEM_LABEL};
use super::image::Resolved;
use super::network::Network;
use super::runtime::StartError;

const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// How long an engine may take to begin its answer, in seconds.
const ANSWER_SECONDS: u64 = 120;

/// What a client met, in the words of whoever met it first: its own say no more than that it did
/// not get through, or name an address that says nothing to who asked.
pub(crate) fn met(error: &dyn std::error::Error) -> String {
    let mut first = error;
    while let Some(cause) = first.source() {
        first = cause;
    }
    first.to_string()
}

/// Where an engine is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// As in `DOCKER_HOST`.
    pub host: String,
    /// The folder with `ca.pem`, `cert.pem` and `key.pem`, for an engine behind TLS.
    pub certificates: Option<PathBuf>,
}

impl Place {
    /// The engine that is asked for, else the environment's, else the usual socket.
    pub fn of(
        host: Option<String>,
        certificates: Option<PathBuf>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Place {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let host = host
            .or_else(|| set("TAHINI_DOCKER_HOST"))
            .or_else(|| set("DOCKER_HOST"))
            .unwrap_or_else(|| DEFAULT_HOST.to_owned());
        let from_environment = || {
            set("DOCKER_TLS_VERIFY")?;
            let usual = || Some(Path::new(&set("HOME")?).join(".docker"));
            set("DOCKER_CERT_PATH").map(PathBuf::from).or_else(usual)
        };
        let certificates = certificates
            .or_else(from_environment)
            .filter(|_| !host.starts_with("unix://"));
        Place { host, certificates }
    }

    /// Connects, and learns which containers an earlier life of the node left.
    pub async fn connect(&self, node_id: &str) -> Result<Found, StartError> {
        let help = |found: &dyn std::fmt::Display| {
            StartError::new(format!(
                "expected a container engine at {}, found: {found}; start Docker or Podman, set \
                 DOCKER_HOST, or give the system a \"process\"",
                self.host
            ))
        };
        let authority = self.host.split_once("://");
        let address = match authority.filter(|(scheme, _)| *scheme != "unix") {
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Some((_, authority)) => {
                let found = tokio::net::lookup_host(authority).await;
                let mut found = found.map_err(|error| help(&error))?;
                found.next().ok_or_else(|| help(&"no address"))?.ip()
            }
        };
        let docker = self.open().map_err(|error| help(&error))?;
        let docker = docker.negotiate_version().await;
        let docker = docker.map_err(|error| help(&met(&error)))?;
        let left = Left::of(&docker, node_id).await;
        let left = left.map_err(|error| help(&met(&error)))?;
        // An engine that does not tell is taken at its word that it can run what it has.
        let version = docker.version().await.unwrap_or_default();
        let parts = version.components.unwrap_or_default();
        let is_podman = parts.iter().any(|part| part.name.contains("Podman"));
        let is_near = self.host.starts_with("unix://");
        Ok(Found {
            bridges_late: is_podman && is_near && !is_rootless(&docker).await,
            docker,
            address,
            architecture: version.arch,
            is_podman,
            left,
        })
    }

    fn open(&self) -> Result<Docker, Error> {
        let Some(folder) = &self.certificates else {
            return Docker::connect_with_host(&self.host);
        };
        Docker::connect_with_ssl(
            &self.host,
            &folder.join("key.pem"),
            &folder.join("cert.pem"),
            &folder.join("ca.pem"),
            ANSWER_SECONDS,
            API_DEFAULT_VERSION,
        )
    }
}

/// Whether the engine runs without the rights to change the machine's networks.
async fn is_rootless(docker: &Docker) -> bool {
    let info = docker.info().await.unwrap_or_default();
    let words = info.security_options.unwrap_or_default();
    words.iter().any(|word| word.contains("rootless"))
}

/// What is known of an engine once it answers.
pub(super) struct Found {
    pub docker: Docker,
    /// The address on which ports are published and reached.
    pub address: IpAddr,
    /// For which machines its images are, as in `amd64`.
    pub architecture: Option<String>,
    pub is_podman: bool,
    /// It makes a network's bridge, and the node's address there, with the first container.
    pub bridges_late: bool,
    pub left: Left,
}

/// An engine that is connected.
pub(super) struct Engine {
    pub docker: Docker,
    /// The address on which ports are published and reached.
    pub address: IpAddr,
    pub left: Left,
    /// It does not tell that a container was killed for memory, or did not for long.
    pub is_podman: bool,
    pub bridges_late: bool,
    architecture: Option<String>,
    network: RwLock<Arc<Network>>,
}

impl Engine {
    /// An engine whose containers are in this network.
    pub fn new(found: Found, network: Network) -> Engine {
        Engine {
            docker: found.docker,
            address: found.address,
            left: found.left,
            is_podman: found.is_podman,
            bridges_late: found.bridges_late,
            architecture: found.architecture,
            network: RwLock::new(Arc::new(network)),
        }
    }

    /// The network that containers are started in.
    pub fn network(&self) -> Arc<Network> {
        let network = self.network.read().unwrap_or_else(PoisonError::into_inner);
        network.clone()
    }

    /// The one for those that start from now on.
    pub fn set_network(&self, network: Network) {
        let mut held = self.network.write().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(network);
    }

    /// What is to be said of an image that is for other machines than this engine's.
    pub fn foreign(&self, image: &Resolved) -> Option<String> {
        let own = self.architecture.as_ref()?;
        let other = image.architecture.as_ref()?;
        (own != other && !other.is_empty()).then(|| {
            format!(
                "the image is for {other}, and the engine's machine is {own}: build or pull it for \
                 {own}"
            )
        })
    }
}

/// The containers that an earlier life of this node left, by system; each is given out once.
pub(super) struct Left(Mutex<BTreeMap<String, Vec<String>>>);

impl Left {
    async fn of(docker: &Docker, node_id: &str) -> Result<Left, Error> {
        let label = format!("{NODE_LABEL}={node_id}");
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
            ..ListContainersOptions::default()
        };
        let mut left: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for found in docker.list_containers(Some(options)).await? {
            let mut labels = found.labels.unwrap_or_default();
            let system = labels.remove(SYSTEM_LABEL).unwrap_or_default();
            left.entry(system).or_default().extend(found.id);
        }
        Ok(Left(Mutex::new(left)))
    }

    /// Those of one system.
    pub fn take(&self, system: &str) -> Vec<String> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        left.remove(system).unwrap_or_default()
    }

    /// Those of all systems but these.
    pub fn take_beside(&self, wanted: &[String]) -> Vec<String> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = std::mem::take(&mut *left);
        let (stay, go): (BTreeMap<_, _>, BTreeMap<_, _>) = all
            .into_iter()
            .partition(|(system, _)| wanted.contains(system));
        *left = stay;
        go.into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_comes_from_the_option_then_the_environment() {
        let place = |host: Option<&str>, variables: &[(&str, &str)]| {
            let variables: BTreeMap<String, String> = variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            let place = Place::of(host.map(str::to_owned), None, |name| {
                variables.get(name).cloned()
            });
            let folder = place.certificates;
            (place.host, folder.map(|path| path.display().to_string()))
        };
        let usual = DEFAULT_HOST.to_owned();
        assert_eq!(place(None, &[]), (usual.clone(), None));
        assert_eq!(place(None, &[("DOCKER_HOST", "")]), (usual, None));
        let tcp = ("DOCKER_HOST", "tcp://engine:2376");
        let own = ("TAHINI_DOCKER_HOST", "unix:///run/own.sock");
        assert_eq!(place(None, &[tcp]).0, "tcp://engine:2376");
        assert_eq!(place(None, &[tcp, own]).0, "unix:///run/own.sock");
        assert_eq!(place(Some("tcp://a:1"), &[tcp, own]).0, "tcp://a:1");

        let home = ("HOME", "/home/ada");
        let verify = ("DOCKER_TLS_VERIFY", "1");
        let path = ("DOCKER_CERT_PATH", "/certs");
        let folder = |variables: &[(&str, &str)]| place(None, variables).1;
        assert_eq!(folder(&[tcp, verify, path]).as_deref(), Some("/certs"));
        assert_eq!(
            folder(&[tcp, verify, home]).as_deref(),
            Some("/home/ada/.docker")
        );
        assert_eq!(folder(&[tcp, path]), None, "TLS was not asked for");
        assert_eq!(folder(&[own, verify, path]), None, "a socket needs none");
    }
}
