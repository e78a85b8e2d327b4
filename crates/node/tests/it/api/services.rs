//! What pipes and the proxy get of hosted services that speak HTTPS, ask who is there, or tell
//! what they should not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::{TestNode, until, until_running};

// A certificate for 127.0.0.1 and its key, which the tests of connectors have, too. They are good
// for nothing but tests.
const CERTIFICATE: &[u8] = include_bytes!("../../../../connectors/tests/data/server.der");
const KEY: &[u8] = include_bytes!("../../../../connectors/tests/data/server-key.der");

/// A service that answers every request with one entity, over HTTPS where it is given a
/// certificate, to everybody or to one user.
const SCRIPT: &str = r#"
import hashlib, http.server, json, os, re, ssl
md5 = lambda *parts: hashlib.md5(":".join(parts).encode()).hexdigest()
def is_right(method, header):
    """Whether a digest answers our challenge as RFC 7616 says, with a password that was never sent."""
    given = dict(re.findall(r'(\w+)="?([^",]+)"?', (header or "").removeprefix("Digest ")))
    if "nonce" not in given:
        return False
    first, second = md5("Mufasa", "testrealm", "Circle Of Life"), md5(method, given["uri"])
    expected = md5(first, "4711", given["nc"], given["cnonce"], "auth", second)
    return given["nonce"] == "4711" and given["response"] == expected
class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Authorization")
        length = len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        challenge = "DIGEST" in os.environ and not is_right(self.command, asked)
        if challenge:
            status, value = 401, {"no": asked}
        elif "AUTHORIZATION" in os.environ and asked != os.environ["AUTHORIZATION"]:
            status, value = 401, {"no": asked}
        elif self.path == "/teapot":
            status, value = 418, {"short": "and stout"}
        else:
            status, value = 200, [{"_id": "1", "path": self.path, "length": length}]
        body = json.dumps(value).encode()
        self.send_response(status)
        if challenge:
            self.send_header("WWW-Authenticate", 'Digest realm="testrealm", nonce="4711", qop="auth", algorithm=MD5')
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_PUT = do_GET
    def log_message(self, *_):
        print("asked", flush=True)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Service)
if "PEM" in os.environ:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["PEM"])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"#;

/// A node with this service, whose system has more properties, and a pipe `p` that reads `url`.
fn node_with(script: &str, environment: Value, more: Value, url: &str) -> TestNode {
    let mut environment = environment;
    let node = TestNode::with(|options, folder| {
        let pem = folder.join("server.pem");
        let part = |name: &str, bytes: &[u8]| {
            format!(
                "-----BEGIN {name}-----\n{}\n-----END {name}-----\n",
                BASE64.encode(bytes)
            )
        };
        let text = part("CERTIFICATE", CERTIFICATE) + &part("PRIVATE KEY", KEY);
        std::fs::write(&pem, text).unwrap();
        if more["use_https"] == true {
            environment["PEM"] = json!(pem);
        }
        let mut system = json!({"_id": "one", "type": "system:microservice",
            "process": {"command": ["python3", "-c", script], "environment": environment}});
        for (name, value) in more.as_object().unwrap() {
            system[name] = value.clone();
        }
        crate::microservices::served::write_project(folder, &[system]);
        options.projects = vec![folder.join("project")];
    });
    let pipe = json!({"_id": "p", "type": "pipe", "pump": {"max_read_retries": 0},
        "source": {"type": "json", "system": "one", "url": url}});
    node.put("/api/pipes/p/config", pipe).ok();
    node
}

/// How a run of the pipe fails.
fn run_failure(node: &TestNode) -> String {
    let hub = &node.running().node().assembly.hub;
    let live = hub.pipe("p").unwrap();
    let summary = hub.run(&live, &Default::default()).unwrap();
    summary.failure.unwrap().to_string()
}

#[test]
fn a_service_over_https_is_reached_and_its_certificate_verified_on_demand() {
    let node = node_with(SCRIPT, json!({}), json!({"use_https": true}), "things");
    until_running(&node);
    let url = node.json("/api/systems/one/status")["url"].clone();
    assert!(url.as_str().unwrap().starts_with("https://127.0.0.1:"));
    assert_eq!(node.run("p"), (1, 1));
    assert_eq!(node.json("/api/systems/one/proxy/x")[0]["path"], "/x");

    let more = json!({"use_https": true, "verify_ssl": true});
    let node = node_with(SCRIPT, json!({}), more, "things");
    until_running(&node);
    let words = run_failure(&node);
    assert!(words.contains("certificate"), "{words}");
    node.get("/api/systems/one/proxy/x")
        .is_problem(502, "did not answer");
}

#[test]
fn a_service_that_asks_who_is_there_is_told() {
    // The example of RFC 7617.
    let expected = json!({"AUTHORIZATION": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="});
    let who = json!({"username": "Aladdin", "password": "open sesame"});
    let mut basic = who.clone();
    basic["authentication"] = json!("basic");
    let node = node_with(SCRIPT, expected.clone(), basic, "things");
    assert_eq!(node.run("p"), (1, 1));
    let digest = |password: &str| {
        let more = json!({"authentication": "digest", "username": "Mufasa", "password": password});
        node_with(SCRIPT, json!({"DIGEST": "1"}), more, "things")
    };
    assert_eq!(digest("Circle Of Life").run("p"), (1, 1));
    let words = run_failure(&digest("Hakuna Matata"));
    assert!(words.contains("401"), "{words}");
    // Nobody is told who asks unless the configuration says so.
    let node = node_with(SCRIPT, expected, who, "things");
    let words = run_failure(&node);
    assert!(words.contains("401"), "{words}");
}

/// Whoever comes through the proxy has shown the node who it is; the node shows that to the service.
#[test]
fn the_proxy_says_who_is_there_as_pipes_do() {
    let digest = json!({"authentication": "digest", "username": "Mufasa",
        "password": "Circle Of Life"});
    let basic =
        json!({"authentication": "basic", "username": "Aladdin", "password": "open sesame"});
    let header = json!({"AUTHORIZATION": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="});
    for (environment, more) in [(json!({"DIGEST": "1"}), digest), (header, basic)] {
        let node = node_with(SCRIPT, environment, more, "things");
        until_running(&node);
        let post = |path: &str| {
            let path = format!("/api/systems/one/proxy/{path}");
            let request = node.request(reqwest::Method::POST, &path);
            node.send(request.body("seven b")).ok()
        };
        let first = post("a?x=1");
        assert_eq!(
            (&first[0]["length"], &first[0]["path"]),
            (&json!(7), &json!("/a?x=1"))
        );
        for path in ["/b", "/b%2Fc?y=%20"] {
            let answer = node.json(&format!("/api/systems/one/proxy{path}"));
            assert_eq!(answer[0]["path"], path);
        }
        assert_eq!(post("d")[0]["length"], 7);
    }
    // Nobody else's credentials are tried, and a wrong password is the service's to refuse.
    let wrong = json!({"authentication": "digest", "username": "Mufasa", "password": "wrong"});
    let node = node_with(SCRIPT, json!({"DIGEST": "1"}), wrong, "things");
    until_running(&node);
    assert_eq!(node.get("/api/systems/one/proxy/x").status, 401);
}

const HOSTED: &str = include_str!("../microservices/service.py");

/// What a run says whose service is taken away, or restarted, while it reads.
#[test]
fn a_run_says_that_its_service_was_stopped_and_not_that_a_connection_broke() {
    // Whose system goes, is stopped itself, before or after it notices.
    let gone = ["no longer has its system", "stopped on request"];
    for (method, path, words) in [
        ("DELETE", "/api/systems/one", &gone[..]),
        ("POST", "/api/systems/one/reload", &["stopped by the node"]),
    ] {
        let node = node_with(HOSTED, json!({}), json!({}), "slow");
        until_running(&node);
        let failure = std::thread::scope(|scope| {
            let run = scope.spawn(|| run_failure(&node));
            until("the first half", || {
                let text = node.get("/api/systems/one/logs").text;
                text.contains("said half of it").then_some(())
            });
            let asked = node.request(method.parse().unwrap(), path);
            assert!((200..300).contains(&node.send(asked).status));
            run.join().unwrap()
        });
        let is_told = words.iter().any(|words| failure.contains(words));
        assert!(is_told, "{failure}");
    }
}

#[test]
fn what_a_system_says_about_a_status_holds_for_its_service() {
    let strategy =
        json!({"retry_strategy": {"418": {"max_read_retries": 2, "read_retry_delay": 0}}});
    for (more, requests) in [(json!({}), 1), (strategy, 3)] {
        let node = node_with(SCRIPT, json!({}), more, "teapot");
        // What the pump says itself would win.
        let pipe = json!({"_id": "p", "type": "pipe",
            "source": {"type": "json", "system": "one", "url": "teapot"}});
        node.put("/api/pipes/p/config", pipe).ok();
        let words = run_failure(&node);
        assert!(words.contains("418"), "{words}");
        let asked = until("the lines", || {
            let count = node
                .get("/api/systems/one/logs")
                .text
                .matches("asked")
                .count();
            (count >= requests).then_some(count)
        });
        assert_eq!(asked, requests);
    }
}

/// A service that tells its secret in every way it can, and ends.
const GOSSIP: &str = r#"
import base64, json, os, sys, time, urllib.parse
token = os.environ["TOKEN"]
forms = [token, urllib.parse.quote(token, safe=""), base64.b64encode(token.encode()).decode(),
    base64.b64encode(("user:" + token).encode()).decode(), json.dumps(token), json.dumps(json.dumps(token))]
for form in forms:
    print("said", form, "end", flush=True)
    sys.stderr.write("said " + form[:7])
    sys.stderr.flush()
    time.sleep(0.05)
    sys.stderr.write(form[7:] + " end\n")
    sys.stderr.flush()
sys.exit("all is said: " + token)
"#;

#[test]
fn nothing_that_is_told_holds_a_secret_in_any_form() {
    let secret = "p@ss \"wörd\" /1?&";
    let environment = json!({"TOKEN": "$SECRET(token)"});
    let node = node_with(GOSSIP, environment, json!({"use_https": false}), "things");
    node.put("/api/secrets", json!({ "token": secret })).ok();
    let logs = until("all that it says", || {
        let text = node.get("/api/systems/one/logs").text;
        text.contains("all is said").then_some(text)
    });
    let status = until("its end", || {
        let status = node.get("/api/systems/one/status").text;
        status.contains("all is said").then_some(status)
    });
    let failure = run_failure(&node);
    assert!(failure.contains("all is said"), "{failure}");
    let log = "/api/datasets/system:pump_execution:p/entities";
    let told = [
        logs.clone(),
        status,
        failure,
        node.get(log).text,
        node.get("/api/systems/one").text,
        node.get("/api/systems").text,
        node.get("/api/config").text,
        node.get("/api/pipes/p").text,
    ];
    let forms = [
        secret.to_owned(),
        "p%40ss%20".to_owned(),
        BASE64.encode(secret),
        BASE64.encode(format!("user:{secret}"))[8..].to_owned(),
        Value::from(secret).to_string().trim_matches('"').to_owned(),
        "w\\u00f6rd".to_owned(),
        "wörd".to_owned(),
    ];
    for text in &told {
        for form in &forms {
            assert!(!text.contains(form.as_str()), "{form} in {text}");
        }
    }
    let first = logs.split("all is said").next().unwrap();
    assert_eq!(first.matches("said ").count(), 12, "{first}");
    assert_eq!(first.matches("***").count(), 12, "{first}");
}
