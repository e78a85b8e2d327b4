//! What a microservice system's configuration asks the node to run.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// A microservice as its system's effective configuration describes it.
///
/// It holds resolved secrets, so it has no full `Debug`.
#[derive(Clone, PartialEq)]
pub struct ServiceSpec {
    /// The system's id, also the service's host name: 2 to 63 characters.
    pub id: String,
    /// How to run it as a container.
    pub docker: Option<DockerSpec>,
    /// How to run it as a process on this machine.
    pub process: Option<ProcessSpec>,
    /// Environment variables in the order of the configuration; what is not a string is JSON text.
    pub environment: Vec<(String, String)>,
    /// The service speaks HTTPS.
    pub use_https: bool,
    /// Start it at once (true), or when the first pipe asks for it (false); `None`: as the node's
    /// default says.
    pub eager_load: Option<bool>,
}

/// The `docker` part of a microservice system.
#[derive(Clone, PartialEq)]
pub struct DockerSpec {
    /// Image reference as written, for instance `quay.io/some/image:1.2.3`.
    pub image: String,
    /// The port on which the service listens within its container.
    pub port: u16,
    /// User name for the registry.
    pub username: Option<String>,
    /// Password for the registry.
    pub password: Option<String>,
    /// Memory limit in MB; 128 unless given.
    pub memory_mb: u64,
    /// CPU limit in percent of one core; 25 unless given.
    pub cpu_quota_percent: u64,
    /// Period of the CPU limit in ms; 100 unless given.
    pub cpu_period_ms: u64,
    /// Cores that the container may use, for instance `0,6-8`.
    pub cpuset_cpus: Option<String>,
    /// Host names with their addresses, known within the container.
    pub hosts: Vec<(String, IpAddr)>,
    /// Use the image that the engine has and never ask the registry.
    pub skip_pull: bool,
    /// When to look for a newer image.
    pub pull_image_cron_expression: Option<String>,
}

/// The `process` part of a microservice system.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessSpec {
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Working folder, absolute.
    pub cwd: PathBuf,
    /// The port on which it listens; without one the node picks a free port.
    pub port: Option<u16>,
}

impl std::fmt::Debug for ServiceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self
            .environment
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        f.debug_struct("ServiceSpec")
            .field("id", &self.id)
            .field("image", &self.docker.as_ref().map(|docker| &docker.image))
            .field("process", &self.process)
            .field("environment", &names)
            .finish_non_exhaustive()
    }
}

impl ServiceSpec {
    /// Reads the effective configuration of a `system:microservice` (`$ENV` and `$SECRET` already
    /// replaced). A relative `process.cwd` is relative to the project folder. The error names
    /// every wrong property by its JSON path.
    pub fn from_config(id: &str, config: &Value, project: &Path) -> Result<ServiceSpec, String> {
        let mut problems = Vec::new();
        if let Err(problem) = check_id(id) {
            problems.push(problem);
        }
        let mut top = Properties::new("", config.as_object(), &mut problems);
        let use_https = top.boolean("use_https").unwrap_or(false);
        let eager_load = top.boolean("eager_load");
        let docker_config = top.object("docker");
        let process_config = top.object("process");
        if docker_config.is_none() && process_config.is_none() {
            top.problem(
                "docker",
                "an object with at least \"image\" and \"port\"",
                None,
            );
        }

        let mut environment = Vec::new();
        let docker = docker_config.and_then(|map| {
            let mut part = Properties::new("docker.", Some(map), &mut problems);
            part.environment(&mut environment);
            read_docker(&mut part)
        });
        let process = process_config.and_then(|map| {
            let mut part = Properties::new("process.", Some(map), &mut problems);
            part.environment(&mut environment);
            read_process(&mut part, project)
        });
        if !problems.is_empty() {
            return Err(problems.join("; "));
        }
        Ok(ServiceSpec {
            id: id.into(),
            docker,
            process,
            environment,
            use_https,
            eager_load,
        })
    }

    /// True when a service that runs by the one spec need not be restarted for the other: they
    /// differ at most in when it is started and when its image is looked at.
    pub fn runs_like(&self, other: &ServiceSpec) -> bool {
        let plain = |spec: &ServiceSpec| {
            let mut plain = spec.clone();
            plain.eager_load = None;
            if let Some(docker) = &mut plain.docker {
                docker.pull_image_cron_expression = None;
            }
            plain
        };
        plain(self) == plain(other)
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.use_https { "https" } else { "http" }
    }
}

fn read_docker(part: &mut Properties<'_, '_>) -> Option<DockerSpec> {
    let image = part.required(
        "image",
        "the name of an image, for instance \"repo/image:1.0\"",
    );
    let port = part.port("port");
    if port.is_none() && part.get("port").is_none() {
        part.problem("port", "the port on which the service listens", None);
    }
    let username = part.string("username");
    let password = part.string("password");
    if username.is_some() && password.is_none() {
        part.problem(
            "password",
            "the password that belongs to docker.username",
            None,
        );
    }
    let memory_mb = part.positive("memory").unwrap_or(128);
    let cpu_quota_percent = part.positive("cpu_quota").unwrap_or(25);
    let cpu_period_ms = part.positive("cpu_period").unwrap_or(100);
    let cpuset_cpus = part.string("cpuset_cpus");
    let hosts = part.hosts("hosts");
    let skip_pull = part.boolean("skip_pull").unwrap_or(false);
    let pull_image_cron_expression = part.string("pull_image_cron_expression");
    Some(DockerSpec {
        image: image?,
        port: port?,
        username,
        password,
        memory_mb,
        cpu_quota_percent,
        cpu_period_ms,
        cpuset_cpus,
        hosts,
        skip_pull,
        pull_image_cron_expression,
    })
}

fn read_process(part: &mut Properties<'_, '_>, project: &Path) -> Option<ProcessSpec> {
    let expected = "a list of a program and its arguments, all strings";
    let command = match part.get("command") {
        Some(Value::Array(words)) if !words.is_empty() => words
            .iter()
            .map(|word| word.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    };
    if command.is_none() {
        let found = part.get("command");
        part.problem("command", expected, found);
    }
    let cwd = project.join(part.string("cwd").unwrap_or_default());
    let cwd = std::path::absolute(&cwd).unwrap_or(cwd);
    let port = part.port("port");
    Some(ProcessSpec {
        command: command?,
        cwd,
        port,
    })
}

/// The id is also a container's and a host's name.
fn check_id(id: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let first = id.chars().next().is_some_and(allowed);
    let rest = id.chars().all(|c| allowed(c) || c == '_' || c == '-');
    if first && rest && (2..=63).contains(&id.len()) {
        return Ok(());
    }
    Err(format!(
        "_id: expected the id of a microservice, which is also its host name: 2 to 63 lower-case \
         letters, digits, \"_\" and \"-\", the first a letter or a digit; found {id:?}"
    ))
}

/// The properties of one object, read with their types; what is wrong is collected.
struct Properties<'a, 'p> {
    prefix: &'static str,
    map: Option<&'a Map<String, Value>>,
    problems: &'p mut Vec<String>,
}

impl<'a, 'p> Properties<'a, 'p> {
    fn new(
        prefix: &'static str,
        map: Option<&'a Map<String, Value>>,
        problems: &'p mut Vec<String>,
    ) -> Properties<'a, 'p> {
        Properties {
            prefix,
            map,
            problems,
        }
    }

    /// The property, unless it is absent or null.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.map?.get(name).filter(|value| !value.is_null())
    }

    /// The kind of what was found is told, never the value: it may be a secret.
    fn problem(&mut self, name: &str, expected: &str, found: Option<&Value>) {
        let found = match found {
            None => "nothing",
            Some(Value::Null) => "null",
            Some(Value::Bool(_)) => "a boolean",
            Some(Value::Number(_)) => "another number",
            Some(Value::String(_)) => "a string",
            Some(Value::Array(_)) => "another list",
            Some(Value::Object(_)) => "an object",
        };
        self.problems.push(format!(
            "{}{name}: expected {expected}, found {found}",
            self.prefix
        ));
    }

    fn read<T>(
        &mut self,
        name: &str,
        expected: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(name)?;
        let converted = convert(value);
        if converted.is_none() {
            self.problem(name, expected, Some(value));
        }
        converted
    }

    fn boolean(&mut self, name: &str) -> Option<bool> {
        self.read(name, "true or false", Value::as_bool)
    }

    fn string(&mut self, name: &str) -> Option<String> {
        self.read(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    fn required(&mut self, name: &str, expected: &str) -> Option<String> {
        if self.get(name).is_none() {
            self.problem(name, expected, None);
        }
        self.read(name, expected, |value| {
            value
                .as_str()
                .filter(|text| !text.trim().is_empty())
                .map(str::to_owned)
        })
    }

    fn positive(&mut self, name: &str) -> Option<u64> {
        self.read(name, "a whole number above 0", |value| {
            value.as_u64().filter(|n| *n > 0)
        })
    }

    fn port(&mut self, name: &str) -> Option<u16> {
        self.read(name, "a port from 1 to 65535", |value| {
            // `$ENV` may have put a string here.
            let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
            u16::try_from(number).ok().filter(|port| *port > 0)
        })
    }

    fn object(&mut self, name: &str) -> Option<&'a Map<String, Value>> {
        self.read(name, "an object", Value::as_object)
    }

    fn hosts(&mut self, name: &str) -> Vec<(String, IpAddr)> {
        let mut hosts = Vec::new();
        for (host, address) in self.object(name).into_iter().flatten() {
            let parsed = address.as_str().and_then(|text| text.parse().ok());
            match parsed {
                Some(parsed) if is_host_name(host) => hosts.push((host.clone(), parsed)),
                Some(_) => self.problems.push(format!(
                    "{}{name}: expected host names, found {host:?}",
                    self.prefix
                )),
                None => self.problem(&format!("{name}.{host}"), "an IP address", Some(address)),
            }
        }
        hosts
    }

    /// Adds `environment` to what is there; a name that is given again takes the new value.
    fn environment(&mut self, into: &mut Vec<(String, String)>) {
        for (name, value) in self.object("environment").into_iter().flatten() {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            if name.is_empty() || name.contains(['=', '\0']) || text.contains('\0') {
                self.problems.push(format!(
                    "{}environment: expected names without \"=\" and no NUL characters, found {name:?}",
                    self.prefix
                ));
                continue;
            }
            into.retain(|(known, _)| known != name);
            into.push((name.clone(), text));
        }
    }
}

/// Labels of letters, digits, `-` and `_`, with dots between them.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(config: Value) -> Result<ServiceSpec, String> {
        ServiceSpec::from_config("our-service", &config, Path::new("/projects/one"))
    }

    #[test]
    fn the_documented_defaults() {
        let spec = read(json!({"docker": {"image": "repo/image:1.0", "port": 4444}})).unwrap();
        let docker = spec.docker.clone().unwrap();
        assert_eq!(
            (docker.image.as_str(), docker.port),
            ("repo/image:1.0", 4444)
        );
        assert_eq!(
            (
                docker.memory_mb,
                docker.cpu_quota_percent,
                docker.cpu_period_ms
            ),
            (128, 25, 100)
        );
        assert!(!docker.skip_pull && docker.cpuset_cpus.is_none() && docker.hosts.is_empty());
        assert_eq!((spec.scheme(), spec.eager_load), ("http", None));
        assert!(spec.process.is_none() && spec.environment.is_empty());
    }

    #[test]
    fn every_documented_property() {
        let spec = read(json!({
            "_id": "our-service", "type": "system:microservice", "use_https": true, "eager_load": false,
            "docker": {
                "image": "a/b", "port": 5000, "username": "u", "password": "p", "memory": 64,
                "cpu_quota": 400, "cpu_period": 50, "cpuset_cpus": "0,2", "skip_pull": true,
                "pull_image_cron_expression": "0 0 * * *",
                "hosts": {"db.example.org": "10.0.0.7", "six": "fe80::1"}
            }
        }))
        .unwrap();
        assert_eq!((spec.scheme(), spec.eager_load), ("https", Some(false)));
        let docker = spec.docker.unwrap();
        assert_eq!(
            (docker.username.as_deref(), docker.password.as_deref()),
            (Some("u"), Some("p"))
        );
        assert_eq!(
            (
                docker.memory_mb,
                docker.cpu_quota_percent,
                docker.cpu_period_ms
            ),
            (64, 400, 50)
        );
        assert_eq!(
            (docker.cpuset_cpus.as_deref(), docker.skip_pull),
            (Some("0,2"), true)
        );
        assert_eq!(
            docker.pull_image_cron_expression.as_deref(),
            Some("0 0 * * *")
        );
        let hosts: Vec<String> = docker
            .hosts
            .iter()
            .map(|(name, address)| format!("{name} {address}"))
            .collect();
        assert_eq!(hosts, ["db.example.org 10.0.0.7", "six fe80::1"]);
    }

    #[test]
    fn environment_values_that_are_no_strings_become_json_text() {
        let spec = read(json!({
            "docker": {"image": "a", "port": 1, "environment": {
                "text": "as is", "since-field": "", "object": {"key": [1, "two"]}, "flag": true,
                "number": serde_json::from_str::<Value>("1.50").unwrap(), "nothing": null
            }},
            "process": {"command": ["x"], "environment": {"text": "changed"}}
        }))
        .unwrap();
        let got: Vec<(&str, &str)> = spec
            .environment
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        assert_eq!(
            got,
            [
                ("since-field", ""),
                ("object", r#"{"key":[1,"two"]}"#),
                ("flag", "true"),
                ("number", "1.50"),
                ("nothing", "null"),
                ("text", "changed"),
            ]
        );
    }

    #[test]
    fn a_process_runs_in_a_folder_of_the_project() {
        let with = |process: Value| read(json!({"process": process})).unwrap().process.unwrap();
        let there = with(json!({"command": ["python3", "app.py"], "cwd": "service", "port": 5001}));
        assert_eq!(there.command, ["python3", "app.py"]);
        assert_eq!(
            (there.cwd, there.port),
            (PathBuf::from("/projects/one/service"), Some(5001))
        );
        let here = with(json!({"command": ["x"]}));
        assert_eq!(
            (here.cwd, here.port),
            (PathBuf::from("/projects/one/"), None)
        );
        let elsewhere = with(json!({"command": ["x"], "cwd": "/srv"}));
        assert_eq!(elsewhere.cwd, PathBuf::from("/srv"));
    }

    #[test]
    fn only_what_the_service_sees_is_a_difference() {
        let with = |name: &str, value: Value| {
            let mut config =
                json!({"docker": {"image": "a", "port": 1, "environment": {"A": "1"}}});
            *config
                .pointer_mut("/docker")
                .unwrap()
                .as_object_mut()
                .unwrap()
                .entry(name)
                .or_insert(json!(0)) = value.clone();
            config[name] = value;
            read(config).unwrap()
        };
        let plain = with("name", json!("x"));
        assert!(plain.runs_like(&with("eager_load", json!(false))));
        assert!(plain.runs_like(&with("pull_image_cron_expression", json!("0 0 * * *"))));
        assert!(!plain.runs_like(&with("environment", json!({"A": "2"}))));
        assert!(!plain.runs_like(&with("image", json!("b"))));
        assert!(!plain.runs_like(&with("use_https", json!(true))));
    }

    #[test]
    fn ids_are_host_names() {
        let ok = |id: &str| check_id(id).is_ok();
        let longest = "a".repeat(63);
        for id in ["ab", "0-a_b", longest.as_str()] {
            assert!(ok(id), "{id}");
        }
        let too_long = "a".repeat(64);
        for id in [
            "",
            "a",
            "Ab",
            "aB",
            "-ab",
            "_ab",
            "a.b",
            "å1",
            "a b",
            too_long.as_str(),
        ] {
            assert!(!ok(id), "{id}");
        }
    }

    #[test]
    fn every_problem_is_named_by_its_path() {
        let problem = read(json!({
            "use_https": "yes",
            "docker": {
                "image": "", "port": 70000, "username": "u", "memory": -1,
                "hosts": {"a b": "10.0.0.1", "ok": "nowhere"}, "environment": {"a=b": "c"}
            },
            "process": {"command": "python3 app.py"}
        }))
        .unwrap_err();
        for path in [
            "use_https: ",
            "docker.image: ",
            "docker.port: ",
            "docker.password: ",
            "docker.memory: ",
            "docker.hosts: ",
            "docker.hosts.ok: ",
            "docker.environment: ",
            "process.command: ",
        ] {
            assert!(problem.contains(path), "{path} in {problem}");
        }
        assert_eq!(problem.matches("expected").count(), 9, "{problem}");
    }

    #[test]
    fn something_to_run_is_needed() {
        let problem = read(json!({"type": "system:microservice"})).unwrap_err();
        assert!(problem.starts_with("docker: expected"), "{problem}");
        let problem = read(json!({"docker": {}})).unwrap_err();
        assert!(
            problem.contains("docker.image") && problem.contains("docker.port"),
            "{problem}"
        );
    }

    #[test]
    fn secrets_do_not_show_in_messages_or_debug() {
        let spec = read(json!({"docker": {
            "image": "a", "port": 1, "username": "u", "password": "s3cr3t",
            "environment": {"TOKEN": "s3cr3t"}
        }}))
        .unwrap();
        assert!(!format!("{spec:?}").contains("s3cr3t"));
        let problem = read(json!({"docker": {"image": "a", "port": "s3cr3t"}})).unwrap_err();
        assert!(!problem.contains("s3cr3t"), "{problem}");
    }
}
