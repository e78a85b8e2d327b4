//! A service that does everything as it should, and whose answers a test may change.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// A request.
pub struct Asked {
    pub method: String,
    pub query: BTreeMap<String, String>,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// Whether its sequence and request came before.
    again: bool,
}

impl Asked {
    /// The number in a parameter.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.query.get(name)?.parse().ok()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name)?;
        Some(&found.1)
    }

    /// The body, where it is an array of objects.
    pub fn entities(&self) -> Option<Vec<Value>> {
        let all: Vec<Value> = serde_json::from_str(&self.body).ok()?;
        all.iter().all(Value::is_object).then_some(all)
    }

    /// Whether this request came before.
    pub fn is_again(&self) -> bool {
        self.again
    }

    /// Whether this request is at odds with the one before it, of which there is one in all cases.
    pub fn is_out_of_step(&self) -> bool {
        let is = |name: &str, value: &str| self.query.get(name).is_some_and(|found| found == value);
        let later = is("request_id", "2");
        let chained = self.query.contains_key("previous_request_id");
        let other_kind =
            later && is("is_full", "false") && self.entities().is_some_and(|all| all.len() == 1);
        is("previous_request_id", "99") || (chained && is("is_first", "true")) || other_kind
    }
}

/// What the service holds: seven entities, an integer of change each.
pub fn records() -> Vec<Value> {
    (1..=7).map(|at| json!({"_id": at.to_string(), "_updated": at * 10, "name": format!("Record {at}")})).collect()
}

/// A header of answers behind which the connection seems to stay open, and does not.
pub const CLOSES_LATER: &str = "Connection: keep-alive";

/// An answer with its length.
pub fn plain(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    (head + body).into_bytes()
}

/// A value, and 200.
pub fn json_answer(value: &Value) -> Vec<u8> {
    plain("200 OK", "application/json", &value.to_string())
}

/// 200, in chunks.
pub fn chunked(body: &str) -> Vec<u8> {
    let mut answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".to_owned();
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, left) = rest.split_at(rest.len().min(16_000));
        answer += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
        rest = left;
    }
    (answer + "0\r\n\r\n").into_bytes()
}

fn right(asked: &Asked) -> Vec<u8> {
    if asked.method == "POST" {
        return match asked.entities() {
            Some(_) => json_answer(&json!({})),
            None => plain(
                "400 Bad Request",
                "application/json",
                "{\"message\": \"expected entities\"}",
            ),
        };
    }
    let since = asked.number("since").unwrap_or(0);
    let later = records()
        .into_iter()
        .filter(|entity| entity["_updated"].as_i64().unwrap() > since);
    let limit = usize::try_from(asked.number("limit").unwrap_or(1000)).unwrap();
    json_answer(&json!(later.take(limit).collect::<Vec<_>>()))
}

fn echoed(asked: &Asked) -> Vec<u8> {
    match asked.entities() {
        Some(all) => json_answer(&json!(all)),
        None => plain(
            "400 Bad Request",
            "application/json",
            "{\"message\": \"expected entities\"}",
        ),
    }
}

type Answer = dyn Fn(&Asked) -> Vec<u8> + Send + Sync;

/// A server on a free port; each request has a connection and a thread of its own.
pub struct Service {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Service {
    pub fn right() -> Service {
        Service::start(Box::new(right), false)
    }

    pub fn transform() -> Service {
        Service::start(Box::new(echoed), false)
    }

    pub fn wrong(fault: fn(&Asked, Vec<u8>) -> Vec<u8>) -> Service {
        Service::start(Box::new(move |asked| fault(asked, right(asked))), false)
    }

    pub fn wrong_transform(fault: fn(&Asked, Vec<u8>) -> Vec<u8>) -> Service {
        Service::start(Box::new(move |asked| fault(asked, echoed(asked))), false)
    }

    /// A service that answers no more once a reader has gone in the middle of an answer.
    pub fn that_dies_of_hanging_up(fault: fn(&Asked, Vec<u8>) -> Vec<u8>) -> Service {
        Service::start(Box::new(move |asked| fault(asked, right(asked))), true)
    }

    pub fn url(&self) -> String {
        format!("http://{}/entities", self.address)
    }

    fn start(answer: Box<Answer>, mortal: bool) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let (stop, seen) = (ended.clone(), Arc::new(Mutex::new(HashSet::new())));
        let answer: Arc<Answer> = Arc::from(answer);
        std::thread::spawn(move || {
            for line in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                if mortal {
                    // One at a time: the next request meets what became of this one.
                    if serve(line.unwrap(), &*answer, &seen).is_err() {
                        return;
                    }
                    continue;
                }
                let (answer, seen) = (answer.clone(), seen.clone());
                std::thread::spawn(move || serve(line.unwrap(), &*answer, &seen));
            }
        });
        Service { address, ended }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(line: TcpStream, answer: &Answer, seen: &Mutex<HashSet<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(line);
    let mut head = String::new();
    reader.read_line(&mut head)?;
    let mut words = head.split(' ');
    let (method, target) = (
        words.next().unwrap_or_default().to_owned(),
        words.next().unwrap_or_default().to_owned(),
    );
    let mut headers = Vec::new();
    loop {
        let mut text = String::new();
        reader.read_line(&mut text)?;
        let Some((name, value)) = text.split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, length)| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let url =
        reqwest::Url::parse(&format!("http://service{target}")).map_err(std::io::Error::other)?;
    let mut asked = Asked {
        method,
        query: url.query_pairs().into_owned().collect(),
        headers,
        body: String::from_utf8(body).map_err(std::io::Error::other)?,
        again: false,
    };
    if let (Some(sequence), Some(request)) = (
        asked.query.get("sequence_id"),
        asked.query.get("request_id"),
    ) {
        asked.again = !seen.lock().unwrap().insert(format!("{sequence} {request}"));
    }
    let answer = answer(&asked);
    reader.get_mut().write_all(&answer)?;
    reader.get_mut().flush()?;
    if answer
        .windows(CLOSES_LATER.len())
        .any(|window| window == CLOSES_LATER.as_bytes())
    {
        // The next request is read, and no more said.
        reader.read_line(&mut String::new())?;
    }
    Ok(())
}
