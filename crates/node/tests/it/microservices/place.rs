//! Where the contract is tried, and a host to try it with.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{ContainerConfig, ContainerCreateBody};
use bollard::query_parameters::{
    CommitContainerOptions, CreateContainerOptions, RemoveContainerOptions,
};
use serde_json::{Value, json};
use tahini_node::microservices::{Host, HostOptions, Pace, ServiceSpec, Snapshot};
use tokio::runtime::{Builder, Runtime};

/// Nothing here takes so long; a test that waits for it has failed.
pub const LIMIT: Duration = Duration::from_secs(60);
pub const SCRIPT: &str = include_str!("service.py");
/// The port of the service within its container.
pub const CONTAINER_PORT: u16 = 5000;

/// A runtime that the contract is tried with.
#[derive(Clone, Copy, PartialEq)]
pub enum Place {
    Process,
    Docker,
}

impl Place {
    /// A spec of the test's service with these variables.
    pub fn spec(self, id: &str, environment: Value) -> ServiceSpec {
        self.spec_with(id, environment, json!({}))
    }

    /// The same with more properties of the system.
    pub fn spec_with(self, id: &str, environment: Value, more: Value) -> ServiceSpec {
        let mut config = match self {
            Place::Process => {
                json!({"process": {"command": ["python3", "-c", SCRIPT], "environment": environment}})
            }
            Place::Docker => json!({"docker": {
                "image": image(), "port": CONTAINER_PORT, "skip_pull": true, "cpu_quota": 100,
                "environment": environment
            }}),
        };
        for (name, value) in more.as_object().unwrap() {
            match config.pointer_mut(&format!("/docker/{name}")) {
                Some(slot) => *slot = value.clone(),
                None => config[name] = value.clone(),
            }
        }
        ServiceSpec::from_config(id, &config, Path::new("/")).unwrap()
    }
}

/// Whether there is an engine to test with; says so when there is none.
pub fn engine_is_there() -> bool {
    let set = |name| std::env::var(name).is_ok_and(|value: String| !value.is_empty());
    if set("DOCKER_HOST") && set("TEST_IMAGE") {
        return true;
    }
    let required = std::env::var("CI").as_deref() == Ok("true")
        && std::env::var("TAHINI_ENGINE").as_deref() == Ok("1");
    assert!(
        !required,
        "expected a container engine (DOCKER_HOST and TEST_IMAGE), found none"
    );
    #[allow(clippy::print_stderr, reason = "a skipped test is told")]
    {
        eprintln!("SKIP: no container engine");
    }
    false
}

/// The image of the test's service: Python's with the script as its command.
pub fn image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| on_engine(make_image))
}

async fn make_image(docker: Docker) -> String {
    let command = ["python3", "-c", SCRIPT].map(str::to_owned).to_vec();
    // In the container and in what is made of it: some engines take the one, some the other.
    let body = ContainerCreateBody {
        image: std::env::var("TEST_IMAGE").ok(),
        cmd: Some(command.clone()),
        ..ContainerCreateBody::default()
    };
    let made = docker
        .create_container(None::<CreateContainerOptions>, body)
        .await
        .unwrap();
    let options = CommitContainerOptions {
        container: Some(made.id.clone()),
        repo: Some("localhost/tahini-test-service".into()),
        tag: Some("1".into()),
        ..CommitContainerOptions::default()
    };
    let config = ContainerConfig {
        cmd: Some(command),
        ..ContainerConfig::default()
    };
    docker.commit_container(options, config).await.unwrap();
    docker
        .remove_container(&made.id, None::<RemoveContainerOptions>)
        .await
        .unwrap();
    "localhost/tahini-test-service:1".to_owned()
}

/// Asks the engine itself, beside the node. From a thread of its own, so that it works anywhere.
pub fn on_engine<F, T>(ask: impl FnOnce(Docker) -> F + Send) -> T
where
    F: Future<Output = T>,
    T: Send,
{
    let on_thread = move || {
        Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async {
                let host = std::env::var("DOCKER_HOST").unwrap();
                let docker = Docker::connect_with_host(&host).unwrap();
                ask(docker.negotiate_version().await.unwrap()).await
            })
    };
    std::thread::scope(|scope| scope.spawn(on_thread).join().unwrap())
}

/// A host with quick pauses, stopped at the end of the test.
pub struct TestHost {
    pub host: Host,
    pub node_id: String,
    runtime: Runtime,
}

impl TestHost {
    pub fn new() -> TestHost {
        TestHost::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut HostOptions)) -> TestHost {
        let mut options = HostOptions {
            node_id: format!("test-{}", uuid::Uuid::new_v4()),
            node_url: Some("http://127.0.0.1:9042".into()),
            pace: Pace {
                start_limit: LIMIT,
                stop_grace: Duration::from_secs(5),
                first_pause: Duration::from_millis(10),
                last_pause: Duration::from_millis(50),
                steady_after: LIMIT,
            },
            ..HostOptions::default()
        };
        change(&mut options);
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let node_id = options.node_id.clone();
        TestHost {
            host: Host::new(runtime.handle().clone(), options),
            node_id,
            runtime,
        }
    }

    /// The URL of a service that is to be ready, from this thread, which is not async.
    pub fn url(&self, id: &str) -> String {
        self.try_url(id).unwrap()
    }

    pub fn try_url(&self, id: &str) -> Result<String, String> {
        self.host.ready_url(id, LIMIT, &|| false)
    }

    pub fn status(&self, id: &str) -> Value {
        self.runtime.block_on(self.host.status(id)).unwrap()
    }

    /// Asks the running service.
    pub fn get(&self, id: &str, path: &str) -> Value {
        get(&self.url(id), path)
    }

    /// The service's log as one text.
    pub fn log(&self, id: &str) -> String {
        let lines = self.host.log(id).unwrap().lines(None);
        lines.into_iter().map(|line| line.text + "\n").collect()
    }

    /// Looks until the service is as expected.
    pub fn until(&self, id: &str, expected: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let last = || self.host.snapshot(id).unwrap();
        until(&format!("{id}, last seen {}", last().state.name()), || {
            Some(last()).filter(|snapshot| expected(snapshot))
        })
    }

    /// Looks until the log holds the text, and gives the whole log.
    pub fn until_logged(&self, id: &str, text: &str) -> String {
        until(&format!("{text:?} in the log"), || {
            Some(self.log(id)).filter(|log| log.contains(text))
        })
    }

    pub fn shutdown(&self) {
        self.runtime.block_on(self.host.shutdown());
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Looks again and again until there is something to return.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(LIMIT, what, look)
}

/// The same for what may take longer than anything else here.
pub fn until_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A GET request whose answer is JSON.
pub fn get(url: &str, path: &str) -> Value {
    try_get(url, path).unwrap()
}

/// The same for a service that may not answer.
pub fn try_get(url: &str, path: &str) -> Option<Value> {
    let authority = url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(authority).ok()?;
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n");
    connection.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(head.contains(" 200 "), "{head}\n{body}");
    Some(serde_json::from_str(body).unwrap())
}
