//! A strict stand-in for a service with a REST API: it wants a valid token with every request,
//! pages what it lists in four ways, keeps what it is sent, and misbehaves where it is told to.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value as Json, json};

pub const CLIENT: (&str, &str) = ("client-7", "secret-of-the-client");
pub const FIRST_REFRESH: &str = "refresh-token-number-0";

/// How a request goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// 429 with this `Retry-After`.
    TooMany(&'static str),
    /// 500.
    Broken,
    /// The body ends early.
    Truncated,
    /// Nothing comes for this long.
    Slow(Duration),
    /// The token has expired meanwhile.
    Expired,
    /// 200 and an error in the body.
    HiddenError,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: HashMap<String, String>,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

#[derive(Default)]
struct State {
    contacts: BTreeMap<u64, Json>,
    asked: Vec<Asked>,
    faults: VecDeque<Fault>,
    tokens: u64,
    valid: Option<String>,
    refresh: String,
    /// The last elements of a page come again as the first of the next.
    overlap: bool,
    /// Requests that are being answered, and the most that ever were.
    under_way: usize,
    most: usize,
}

pub struct Api {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// An answer: status, more headers (each ending in `\r\n`), body.
type Answer = (u16, String, Vec<u8>);

impl Api {
    /// The service with this many contacts, numbered from 1.
    pub fn with(contacts: u64) -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let contact = |id: u64| {
            let day = format!("2024-05-{:02}T00:00:00Z", 1 + id % 28);
            (
                id,
                json!({"id": id, "name": format!("Contact {id}"), "changed": day}),
            )
        };
        let state = Arc::new(Mutex::new(State {
            contacts: (1..=contacts).map(contact).collect(),
            refresh: FIRST_REFRESH.to_owned(),
            ..State::default()
        }));
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (state, stopping) = (Arc::clone(&state), Arc::clone(&stopping));
            move || {
                while let Ok((stream, _)) = listener.accept() {
                    if stopping.load(Ordering::SeqCst) {
                        break;
                    }
                    let state = Arc::clone(&state);
                    let host = format!("http://{address}");
                    std::thread::spawn(move || serve(stream, &state, &host));
                }
            }
        });
        Api {
            address,
            state,
            stopping,
            thread: Some(thread),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The next requests for contacts go wrong like this, one after the other.
    pub fn misbehaves(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    /// From now on this refresh token counts.
    pub fn issues(&self, refresh: &str) {
        self.state().refresh = refresh.to_owned();
    }

    pub fn overlaps(&self) {
        self.state().overlap = true;
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests for contacts so far, those for tokens left out.
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.state().asked.clone();
        let asked = asked.into_iter();
        asked.filter(|asked| asked.path != "/oauth/token").collect()
    }

    /// The forms with which tokens were asked for.
    pub fn grants(&self) -> Vec<HashMap<String, String>> {
        let asked = self.state().asked.clone();
        let asked = asked.iter().filter(|asked| asked.path == "/oauth/token");
        asked
            .map(|asked| pairs(std::str::from_utf8(&asked.body).unwrap()))
            .collect()
    }

    /// The most requests that were being answered at once.
    pub fn most_at_once(&self) -> usize {
        self.state().most
    }

    pub fn contact(&self, id: u64) -> Option<Json> {
        self.state().contacts.get(&id).cloned()
    }

    pub fn refresh_token(&self) -> String {
        self.state().refresh.clone()
    }

    /// A system of this service.
    pub fn system(&self, operations: Json) -> Json {
        json!({
            "_id": "crm", "type": "system:rest",
            "url_pattern": format!("{}/%s", self.url()),
            "connect_timeout": 5, "read_timeout": 2,
            "oauth2": {
                "client_id": CLIENT.0, "client_secret": "$SECRET(client-secret)",
                "token_url": format!("{}/oauth/token", self.url()),
                "refresh_token": "$SECRET(refresh-token)",
            },
            "operations": operations,
        })
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn pairs(text: &str) -> HashMap<String, String> {
    let decoded = |text: &str| {
        let mut out = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'+' => out.push(b' '),
                b'%' => {
                    let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
                    let hex = std::str::from_utf8(&hex).unwrap();
                    out.push(u8::from_str_radix(hex, 16).unwrap());
                }
                other => out.push(other),
            }
        }
        String::from_utf8(out).unwrap()
    };
    let mut all = HashMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let twice = all.insert(decoded(name), decoded(value));
        assert!(twice.is_none(), "{name} was sent twice in {text}");
    }
    all
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let method = words.next()?.to_owned();
    let target = words.next()?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length");
    let length = length.map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Some(Asked {
        method,
        path: path.to_owned(),
        query: pairs(query),
        headers,
        body,
    })
}

fn serve(stream: TcpStream, state: &Mutex<State>, host: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(asked) = read(&mut reader) {
        let mut held = state.lock().unwrap();
        held.asked.push(asked.clone());
        held.under_way += 1;
        held.most = held.most.max(held.under_way);
        let is_token = asked.path == "/oauth/token";
        let fault = if is_token {
            None
        } else {
            held.faults.pop_front()
        };
        let (status, headers, body) = match fault {
            Some(Fault::TooMany(after)) => (
                429,
                format!("Retry-After: {after}\r\n"),
                b"slow down".to_vec(),
            ),
            Some(Fault::Broken) => (500, String::new(), b"something broke".to_vec()),
            Some(Fault::HiddenError) => json_answer(
                200,
                &json!({"errors": [{"message": "no such account"}], "results": []}),
            ),
            Some(Fault::Expired) => {
                held.valid = None;
                answer(&mut held, &asked, host)
            }
            _ => answer(&mut held, &asked, host),
        };
        drop(held);
        if let Some(Fault::Slow(pause)) = fault {
            std::thread::sleep(pause);
        }
        // Whoever reads the answer may ask again at once.
        state.lock().unwrap().under_way -= 1;
        let cut = match fault {
            Some(Fault::Truncated) => body.len() / 2,
            _ => body.len(),
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        // A client that gave up reads no further.
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&body[..cut]);
        if cut < body.len() {
            return;
        }
    }
}

fn json_answer(status: u16, body: &Json) -> Answer {
    let headers = "Content-Type: application/json; charset=utf-8\r\n".to_owned();
    (status, headers, body.to_string().into_bytes())
}

fn answer(state: &mut State, asked: &Asked, host: &str) -> Answer {
    if asked.path == "/oauth/token" {
        return token(state, asked);
    }
    let expected = state.valid.as_ref().map(|token| format!("Bearer {token}"));
    if expected.is_none() || asked.header("authorization") != expected.as_deref() {
        return json_answer(401, &json!({"message": "the token is not valid"}));
    }
    match asked.path.strip_prefix("/contact/") {
        Some(id) => one(state, asked, id.parse().ok()),
        None if asked.path == "/contact" && asked.method == "POST" => created(state, asked),
        None => list(state, asked, host),
    }
}

fn token(state: &mut State, asked: &Asked) -> Answer {
    let form = pairs(std::str::from_utf8(&asked.body).unwrap());
    let field = |name: &str| form.get(name).map(String::as_str);
    let typed = asked.header("content-type") == Some("application/x-www-form-urlencoded");
    if asked.method != "POST" || !typed {
        return json_answer(400, &json!({"error": "invalid_request"}));
    }
    if (field("client_id"), field("client_secret")) != (Some(CLIENT.0), Some(CLIENT.1)) {
        return json_answer(401, &json!({"error": "invalid_client"}));
    }
    match field("grant_type") {
        Some("refresh_token") if field("refresh_token") == Some(&state.refresh) => {}
        Some("client_credentials") if field("scope") == Some("read write") => {}
        Some("password")
            if (field("username"), field("password")) == (Some("ada"), Some("lovelace")) => {}
        _ => return json_answer(400, &json!({"error": "invalid_grant"})),
    }
    state.tokens += 1;
    let token = format!("access-token-number-{}", state.tokens);
    state.valid = Some(token.clone());
    let mut answer = json!({"access_token": token, "expires_in": 3600, "token_type": "Bearer"});
    if field("grant_type") == Some("refresh_token") {
        state.refresh = format!("refresh-token-number-{}", state.tokens);
        answer["refresh_token"] = state.refresh.as_str().into();
    }
    json_answer(200, &answer)
}

fn one(state: &mut State, asked: &Asked, id: Option<u64>) -> Answer {
    let found = id.and_then(|id| state.contacts.get(&id).cloned());
    let (Some(id), Some(found)) = (id, found) else {
        return json_answer(404, &json!({"message": "no such contact"}));
    };
    match asked.method.as_str() {
        "GET" => json_answer(200, &json!({"value": found})),
        "PUT" if asked.header("content-type") != Some("application/json") => {
            json_answer(415, &json!({"message": "JSON only"}))
        }
        "PUT" => {
            let mut fresh = asked.json();
            if fresh["name"] == "" {
                return json_answer(422, &json!({"message": "a contact has a name"}));
            }
            fresh["id"] = id.into();
            state.contacts.insert(id, fresh.clone());
            json_answer(200, &json!({"value": fresh}))
        }
        "DELETE" => {
            state.contacts.remove(&id);
            (204, String::new(), Vec::new())
        }
        _ => json_answer(405, &json!({"message": "no such method"})),
    }
}

fn created(state: &mut State, asked: &Asked) -> Answer {
    let id = state.contacts.keys().last().map_or(1, |last| last + 1);
    let mut fresh = asked.json();
    fresh["id"] = id.into();
    state.contacts.insert(id, fresh.clone());
    json_answer(201, &json!({"value": fresh}))
}

/// Lists contacts, paged as the path says.
fn list(state: &mut State, asked: &Asked, host: &str) -> Answer {
    let number = |name: &str, default: usize| {
        let text = asked.query.get(name);
        text.map_or(default, |text| text.parse().unwrap())
    };
    let since = asked
        .query
        .get("since")
        .map(String::as_str)
        .or(asked.header("x-since"));
    let all: Vec<Json> = state
        .contacts
        .values()
        .filter(|one| since.is_none_or(|since| one["changed"].as_str().unwrap() >= since))
        .cloned()
        .collect();
    let size = number("limit", 10);
    let start = match asked.path.as_str() {
        "/contacts-by-page" => (number("page", 1) - 1) * size,
        _ => number("offset", number("after", 0)),
    };
    let end = all.len().min(start + size);
    let overlap = usize::from(state.overlap && start > 0 && start < end);
    let part = &all[(start - overlap).min(end)..end];
    let more = end < all.len();
    let next = format!("{host}{}?after={end}&limit={size}", asked.path);
    match asked.path.as_str() {
        "/contacts-by-page" | "/contacts-by-offset" => json_answer(200, &json!({"results": part})),
        "/contacts-by-cursor" => {
            let mut answer = json!({"results": part});
            if more {
                answer["paging"] = json!({"next": {"link": next, "after": end.to_string()}});
            }
            json_answer(200, &answer)
        }
        "/contacts-by-link" => {
            let (status, mut headers, body) = json_answer(200, &json!(part));
            let next = format!("?after={end}&limit={size}");
            let rel = if more { "next" } else { "prev" };
            headers.push_str(&format!("Link: <{next}>; rel=\"{rel}\"\r\n"));
            (status, headers, body)
        }
        "/report" => (
            200,
            "Content-Type: text/csv\r\n".to_owned(),
            b"id;name\n1;Ada\n".to_vec(),
        ),
        _ => json_answer(404, &json!({"message": "no such path"})),
    }
}
