//! The API of a node that runs in this process, on a free port, with a folder of its own.

mod access;
mod config;
mod datasets;
mod description;
mod documents;
mod entity_types;
mod pipes;
mod preview;
mod publishers;
mod receivers;
mod secrets;
mod services;
mod shapes;
mod status;
mod systems;
mod upstream;
mod webhooks;

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Map, Value, json};
use tahini_connectors::http::runtime;
use tahini_hub::pump::Request;
use tahini_node::auth::TokenKey;
use tahini_node::cli::Role;
use tahini_node::serve::{Options, Running};
use tempfile::TempDir;

/// Nothing here takes so long.
const LIMIT: Duration = Duration::from_secs(30);

/// A node and a client.
pub struct TestNode {
    pub folder: TempDir,
    options: Options,
    running: Option<Running>,
    client: Client,
    /// Sent with every request, where there is one.
    pub token: Option<String>,
}

/// A token of the node with these options, for ten minutes.
pub fn token(options: &Options, role: Role) -> String {
    let key = TokenKey::open_or_create(&options.token_key).unwrap();
    let now = jiff::Timestamp::now().as_second().unsigned_abs();
    key.issue(role, 600, now).unwrap()
}

/// What a node answered.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub bytes: Vec<u8>,
}

impl TestNode {
    /// A node without any configuration.
    pub fn new() -> TestNode {
        TestNode::with(|_, _| {})
    }

    /// A node with these components.
    pub fn of(components: Value) -> TestNode {
        let node = TestNode::new();
        let answer = node.put("/api/config", components);
        assert_eq!(answer.status, 200, "{}", answer.text);
        node
    }

    /// A node whose options and folder are prepared.
    pub fn with(prepare: impl FnOnce(&mut Options, &Path)) -> TestNode {
        TestNode::try_with(prepare).unwrap()
    }

    /// The same for a node that may not start.
    pub fn try_with(prepare: impl FnOnce(&mut Options, &Path)) -> anyhow::Result<TestNode> {
        let folder = tempfile::tempdir()?;
        let mut options = Options {
            data: folder.path().join("data"),
            listen: "127.0.0.1:0".parse()?,
            projects: Vec::new(),
            profile: "test".to_owned(),
            env: Map::new(),
            secrets: Vec::new(),
            allow_process: false,
            automatic: false,
            prefer_docker: false,
            metrics_listen: None,
            backups: None,
            master_key: folder.path().join("keys/master.key"),
            token_key: folder.path().join("keys/token.key"),
        };
        prepare(&mut options, folder.path());
        let running = Running::start(options.clone())?;
        let client = Client::builder().no_proxy().build()?;
        Ok(TestNode {
            folder,
            options,
            running: Some(running),
            client,
            token: None,
        })
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// The options that it was started with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Changes the options of the next start.
    pub fn change_options(&mut self, change: impl FnOnce(&mut Options)) {
        change(&mut self.options);
    }

    /// Stops the node and starts it again over the same folder.
    pub fn restart(&mut self) {
        self.running.take().unwrap().stop(LIMIT).unwrap();
        self.running = Some(Running::start(self.options.clone()).unwrap());
    }

    pub fn url(&self, path: &str) -> String {
        // From beyond loopback or not, the test asks over loopback.
        format!("http://127.0.0.1:{}{path}", self.running().address().port())
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, self.url(path));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub fn send(&self, request: RequestBuilder) -> Answered {
        runtime().block_on(async {
            let answer = request.timeout(LIMIT).send().await.unwrap();
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            let bytes = answer.bytes().await.unwrap().to_vec();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Answered {
                status,
                headers,
                text,
                bytes,
            }
        })
    }

    pub fn get(&self, path: &str) -> Answered {
        self.send(self.request(Method::GET, path))
    }

    /// The JSON of an answer that must be 200.
    pub fn json(&self, path: &str) -> Value {
        self.get(path).ok()
    }

    pub fn put(&self, path: &str, body: Value) -> Answered {
        self.send_json(Method::PUT, path, body)
    }

    pub fn post(&self, path: &str, body: Value) -> Answered {
        self.send_json(Method::POST, path, body)
    }

    pub fn delete(&self, path: &str) -> Answered {
        self.send(self.request(Method::DELETE, path))
    }

    pub fn send_json(&self, method: Method, path: &str, body: Value) -> Answered {
        let request = self
            .request(method, path)
            .header(CONTENT_TYPE, "application/json");
        self.send(request.body(body.to_string()))
    }

    /// An operation of a pipe's pump.
    pub fn pump(&self, pipe: &str, fields: &[(&str, &str)]) -> Answered {
        self.form(&format!("/api/pipes/{pipe}/pump"), fields)
    }

    /// Posts a form.
    pub fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answered {
        let kind = "application/x-www-form-urlencoded";
        let mut url = reqwest::Url::parse("http://form/").unwrap();
        url.query_pairs_mut().extend_pairs(fields);
        let form = url.query().unwrap_or_default().to_owned();
        self.send(
            self.request(Method::POST, path)
                .header(CONTENT_TYPE, kind)
                .body(form),
        )
    }

    /// Runs a pipe here and now and returns how many entities it read and changed.
    pub fn run(&self, pipe: &str) -> (u64, u64) {
        let hub = &self.running().node().assembly.hub;
        let live = hub.pipe(pipe).unwrap();
        let summary = hub.run(&live, &Request::default()).unwrap();
        assert!(summary.success(), "{:?}", summary.failure);
        (summary.read, summary.changed)
    }

    /// The `runtime` of a pipe.
    pub fn runtime(&self, pipe: &str) -> Value {
        self.json(&format!("/api/pipes/{pipe}"))["runtime"].clone()
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let stopped = running.stop(LIMIT);
            if !std::thread::panicking() {
                stopped.unwrap();
            }
        }
    }
}

impl Answered {
    /// The JSON of an answer, whatever its status.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("{error} in {}: {}", self.status, self.text))
    }

    /// The JSON of an answer that must be 200.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.value()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// That it is a problem of that status whose detail has these words.
    #[track_caller]
    pub fn is_problem(&self, status: u16, words: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let value = self.value();
        assert_eq!(
            (&value["type"], &value["status"]),
            (&json!("about:blank"), &json!(status))
        );
        assert!(value["title"].is_string(), "{value}");
        let detail = value["detail"].as_str().unwrap();
        assert!(detail.contains(words), "expected {words:?} in {detail:?}");
    }
}

/// An embedded pipe with entities of these ids.
pub fn embedded(id: &str, ids: &[&str]) -> Value {
    let entities: Vec<Value> = ids
        .iter()
        .map(|id| json!({"_id": id, "name": id}))
        .collect();
    json!({"_id": id, "type": "pipe", "source": {"type": "embedded", "entities": entities}})
}

/// A pipe from a dataset of that name.
pub fn reader(id: &str, dataset: &str) -> Value {
    json!({"_id": id, "type": "pipe", "source": {"type": "dataset", "dataset": dataset}})
}

/// Looks again and again until there is something to return.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    crate::microservices::place::until(what, look)
}

/// The status of the service `one`, once it runs.
pub fn until_running(node: &TestNode) -> Value {
    until("the service", || {
        let status = node.json("/api/systems/one/status");
        (status["running"] == true).then_some(status)
    })
}

/// All files below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// The `_id`s of entities, in order.
pub fn ids(entities: &Value) -> Vec<String> {
    let list = entities.as_array().unwrap();
    list.iter()
        .map(|entity| entity["_id"].as_str().unwrap().to_owned())
        .collect()
}
