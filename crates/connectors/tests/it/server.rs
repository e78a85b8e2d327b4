//! A server that answers exactly what a script says, byte by byte, and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// One answer: bytes, pauses, and what happens to the connection at its end.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Bytes(Vec<u8>),
    Pause(Duration),
    /// Silence until the client closes the connection.
    Hang,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    headers: Vec<(String, String)>,
    pub body: String,
}

pub struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stopping: Arc<AtomicBool>,
    hung_up: Mutex<Receiver<()>>,
    thread: Option<JoinHandle<usize>>,
}

impl Reply {
    /// These bytes, then the connection is closed.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Reply {
        Reply::default().then(bytes)
    }

    /// A whole answer of this status with more headers (each ending in `\r\n`).
    pub fn status(status: &str, headers: &str, body: &str) -> Reply {
        let len = body.len();
        Reply::raw(format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len}\r\n{headers}\r\n{body}"
        ))
    }

    /// A whole answer of status 200.
    pub fn ok(body: &str) -> Reply {
        Reply::status("200 OK", "", body)
    }

    /// The head of an answer in chunks; `chunk` and `last_chunk` go on.
    pub fn chunked() -> Reply {
        Reply::raw("HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
    }

    pub fn chunk(self, body: &str) -> Reply {
        let len = body.len();
        self.then(format!("{len:x}\r\n{body}\r\n"))
    }

    pub fn last_chunk(self) -> Reply {
        self.then("0\r\n\r\n")
    }

    pub fn then(mut self, bytes: impl AsRef<[u8]>) -> Reply {
        self.steps.push(Step::Bytes(bytes.as_ref().to_vec()));
        self
    }

    pub fn pause(mut self, pause: Duration) -> Reply {
        self.steps.push(Step::Pause(pause));
        self
    }

    pub fn hang(mut self) -> Reply {
        self.steps.push(Step::Hang);
        self
    }
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let first = all.next().map(|(_, value)| value.as_str());
        assert!(all.next().is_none(), "{name} was sent twice");
        first
    }

    /// The value of a query parameter as it was sent, still encoded.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// The query's names, in order.
    pub fn parameters(&self) -> Vec<&str> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        query
            .split('&')
            .filter_map(|pair| pair.split('=').next())
            .collect()
    }

    /// The `_id`s of the entities in the body.
    pub fn ids(&self) -> Vec<String> {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        let ids = body.as_array().unwrap().iter();
        ids.map(|entity| entity["_id"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Server {
    /// Answers one request after another, each on its own connection, as the script says.
    pub fn play(script: impl IntoIterator<Item = Reply>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let (tell, hung_up) = sync_channel(1);
        let script: Vec<Reply> = script.into_iter().collect();
        let thread = std::thread::spawn({
            let (seen, stopping) = (Arc::clone(&seen), Arc::clone(&stopping));
            move || {
                let mut left = script.len();
                for reply in script {
                    let (stream, _) = listener.accept().unwrap();
                    if stopping.load(Ordering::SeqCst) {
                        break;
                    }
                    answer(stream, &reply, &seen, &tell);
                    left -= 1;
                }
                left
            }
        });
        Server {
            address,
            seen,
            stopping,
            hung_up: Mutex::new(hung_up),
            thread: Some(thread),
        }
    }

    /// An address at which nobody listens.
    pub fn nowhere() -> String {
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        format!("http://{address}")
    }

    /// The address without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until the client closed a connection on which a reply hangs.
    pub fn hung_up(&self, within: Duration) {
        self.hung_up
            .lock()
            .unwrap()
            .recv_timeout(within)
            .expect("the client closes the connection");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread if it waits for one more request; it may have ended already.
        let _ = TcpStream::connect(self.address);
        let left = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            assert_eq!(
                left.unwrap(),
                0,
                "replies of the script that nobody asked for"
            );
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the pace of a slow server, not a wait for anything"
)]
fn answer(stream: TcpStream, reply: &Reply, seen: &Mutex<Vec<Seen>>, hung_up: &SyncSender<()>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let request = read_request(&mut reader);
    seen.lock().unwrap().push(request);
    let mut stream = stream;
    for step in &reply.steps {
        match step {
            // A client that gave up reads no further.
            Step::Bytes(bytes) => drop(stream.write_all(bytes)),
            Step::Pause(pause) => std::thread::sleep(*pause),
            Step::Hang => {
                let mut rest = Vec::new();
                // A reset is as good an end as an orderly one.
                let _ = reader.read_to_end(&mut rest);
                hung_up.send(()).unwrap();
            }
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Seen {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut words = line.trim_end().split(' ');
    let method = words.next().unwrap().to_owned();
    let target = words.next().unwrap().to_owned();
    assert_eq!(words.next(), Some("HTTP/1.1"));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap();
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut seen = Seen {
        method,
        target,
        headers,
        body: String::new(),
    };
    let len = seen
        .header("content-length")
        .map_or(0, |len| len.parse().unwrap());
    let mut body = vec![0; len];
    reader.read_exact(&mut body).unwrap();
    seen.body = String::from_utf8(body).unwrap();
    seen
}
