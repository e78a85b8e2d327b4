//! The JSON protocols over HTTP: entities as streams, in and out, one at a time.
//!
//! Nothing here is particular to this service: what it does stands in main.rs. Memory does not grow with the number of
//! entities: what comes is taken apart as it arrives, and what goes is written as it is made, no faster than the other
//! side reads.
#![allow(dead_code)] // Each kind of service uses its part.

use std::fmt::Display;
use std::io;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

/// An entity: an object with an `_id`.
pub type Entity = Map<String, Value>;

/// So many entities are handed on together.
pub const GROUP: usize = 100;
/// So many bytes are written at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// So many chunks wait for a reader that is slower than we are.
const CHUNKS_WAITING: usize = 4;
const LARGEST_ENTITY_BYTES: usize = 16 * 1024 * 1024;

/// Why a request is not answered as it should be.
#[derive(Debug)]
pub enum Failure {
    /// The request is wrong, and sending it again would not help: expected, found.
    Refused(String),
    /// We, or the system behind us, failed.
    Broken(String),
}

impl Failure {
    pub fn refused(words: impl Display) -> Failure {
        Failure::Refused(words.to_string())
    }

    pub fn broken(words: impl Display) -> Failure {
        Failure::Broken(words.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, words) = match self {
            Failure::Refused(words) => (StatusCode::BAD_REQUEST, words),
            Failure::Broken(words) => (StatusCode::INTERNAL_SERVER_ERROR, words),
        };
        println!("ERROR {}: {words}", status.as_u16());
        reply(status, &json!({"message": words}))
    }
}

/// A small answer: `value` as JSON.
pub fn reply(status: StatusCode, value: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, value.to_string()).into_response()
}

/// A large answer: a JSON array, written as the entities come from an iterator, which may block.
pub async fn send<I>(entities: I) -> Result<Response, Failure>
where
    I: Iterator<Item = Result<Entity, Failure>> + Send + 'static,
{
    let (begun, beginning) = tokio::sync::oneshot::channel();
    let (give, take) = mpsc::channel(CHUNKS_WAITING);
    tokio::task::spawn_blocking(move || {
        let mut entities = entities.peekable();
        // The first is there before the status, so that a wrong password is an error answer.
        let first = match entities.peek() {
            Some(Err(_)) => entities.next().and_then(Result::err).map_or(Ok(()), Err),
            _ => Ok(()),
        };
        let failed = first.is_err();
        if begun.send(first).is_ok() && !failed {
            write(entities, |chunk| give.blocking_send(chunk).is_ok());
        }
    });
    beginning.await.map_err(Failure::broken)??;
    Ok(streamed(take))
}

/// A large answer to a large body: each group of entities becomes others.
pub async fn answer<C>(body: Body, change: C) -> Result<Response, Failure>
where
    C: Fn(Vec<Entity>) -> Result<Vec<Entity>, Failure> + Clone + Send + 'static,
{
    let mut entities = Entities::new(body);
    let mut group = entities.group().await?;
    let (give, take) = mpsc::channel(CHUNKS_WAITING);
    // The first group is there before the status, so that a wrong body is an error answer.
    let mut changed = blocking(change.clone(), std::mem::take(&mut group)).await?;
    tokio::spawn(async move {
        let (mut text, mut count) = (vec![b'['], 0);
        while !changed.is_empty() {
            for entity in changed {
                push_json(&mut text, &entity, &mut count);
            }
            if text.len() >= CHUNK_BYTES && give.send(Ok(Bytes::from(std::mem::take(&mut text)))).await.is_err() {
                return;
            }
            let next = match entities.group().await {
                Ok(group) if group.is_empty() => break,
                Ok(group) => blocking(change.clone(), group).await,
                Err(failure) => Err(failure),
            };
            changed = match next {
                Ok(changed) => changed,
                Err(failure) => {
                    let _ = give.send(Err(broken_off(failure))).await;
                    return;
                }
            };
        }
        text.push(b']');
        let _ = give.send(Ok(Bytes::from(text))).await;
        println!("INFO answered with {count} entities");
    });
    Ok(streamed(take))
}

/// Takes a body group by group; 200 when every group was taken. The last batch of every run is
/// empty, and then `take` is not called.
pub async fn take<T>(body: Body, take: T) -> Result<Response, Failure>
where
    T: Fn(Vec<Entity>) -> Result<(), Failure> + Clone + Send + 'static,
{
    let (mut entities, mut count) = (Entities::new(body), 0);
    loop {
        let group = entities.group().await?;
        if group.is_empty() {
            break;
        }
        if let Some(odd) = group.iter().find(|entity| !entity.get("_id").is_some_and(Value::is_string)) {
            let id = odd.get("_id").unwrap_or(&Value::Null);
            return Err(Failure::refused(format!("expected entities with a string _id, found {id}")));
        }
        count += group.len();
        let take = take.clone();
        blocking(move |group| take(group).map(|()| Vec::new()), group).await?;
    }
    println!("INFO took {count} entities");
    Ok(reply(StatusCode::OK, &json!({})))
}

/// Runs what may block where blocking is allowed.
async fn blocking<C>(change: C, group: Vec<Entity>) -> Result<Vec<Entity>, Failure>
where
    C: FnOnce(Vec<Entity>) -> Result<Vec<Entity>, Failure> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(move || change(group)).await;
    done.map_err(Failure::broken)?
}

fn write(entities: impl Iterator<Item = Result<Entity, Failure>>, mut give: impl FnMut(io::Result<Bytes>) -> bool) {
    let (mut text, mut count) = (vec![b'['], 0);
    for entity in entities {
        match entity {
            Ok(entity) => push_json(&mut text, &entity, &mut count),
            Err(failure) => {
                give(Err(broken_off(failure)));
                return;
            }
        }
        if text.len() >= CHUNK_BYTES && !give(Ok(Bytes::from(std::mem::take(&mut text)))) {
            println!("INFO the other side hung up");
            return;
        }
    }
    text.push(b']');
    give(Ok(Bytes::from(text)));
    println!("INFO sent {count} entities");
}

fn push_json(text: &mut Vec<u8>, entity: &Entity, count: &mut u64) {
    if *count > 0 {
        text.push(b',');
    }
    *count += 1;
    serde_json::to_writer(text, entity).expect("an entity is JSON, and memory takes it");
}

/// An error in the middle cuts the connection: an array that ends neatly would say that these were
/// all.
fn broken_off(failure: Failure) -> io::Error {
    let (Failure::Refused(words) | Failure::Broken(words)) = failure;
    println!("ERROR the answer was broken off: {words}");
    io::Error::other(words)
}

fn streamed(chunks: mpsc::Receiver<io::Result<Bytes>>) -> Response {
    let chunks = stream::unfold(chunks, |mut chunks| async { Some((chunks.recv().await?, chunks)) });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(chunks)).into_response()
}

/// The objects of a JSON array that is a body, each as soon as it is whole.
pub struct Entities {
    chunks: BodyDataStream,
    splitter: Splitter,
}

impl Entities {
    pub fn new(body: Body) -> Entities {
        Entities { chunks: body.into_data_stream(), splitter: Splitter::default() }
    }

    /// The next entities, at most `GROUP`; none at the end.
    pub async fn group(&mut self) -> Result<Vec<Entity>, Failure> {
        let mut group = Vec::new();
        while group.len() < GROUP {
            if let Some(entity) = self.splitter.next()? {
                group.push(entity);
                continue;
            }
            match self.chunks.next().await {
                Some(Ok(chunk)) => self.splitter.feed(&chunk)?,
                Some(Err(error)) => return Err(Failure::refused(format!("expected the rest of the body: {error}"))),
                None => {
                    self.splitter.finish()?;
                    break;
                }
            }
        }
        Ok(group)
    }
}

/// Cuts the text of a JSON array into its objects, as it comes.
#[derive(Default)]
pub struct Splitter {
    buffer: Vec<u8>,
    at: usize,
    place: Place,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Place {
    #[default]
    Begin,
    First,
    Entity,
    Inside { start: usize, depth: u32, in_text: bool },
    Behind,
    End,
}

impl Splitter {
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        let taken = match &mut self.place {
            Place::Inside { start, .. } => std::mem::take(start),
            _ => self.at.min(self.buffer.len()),
        };
        self.buffer.drain(..taken);
        self.at -= taken;
        if self.buffer.len() > LARGEST_ENTITY_BYTES {
            let words = format!("expected entities of at most {LARGEST_ENTITY_BYTES} bytes, found a larger one");
            return Err(Failure::Refused(words));
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    pub fn next(&mut self) -> Result<Option<Entity>, Failure> {
        while let Some(&byte) = self.buffer.get(self.at) {
            self.at += 1;
            self.place = match (self.place, byte) {
                // The character behind a backslash ends nothing.
                (Place::Inside { in_text: true, .. }, b'\\') => {
                    self.at += 1;
                    continue;
                }
                (Place::Inside { start, depth, in_text }, b'"') => Place::Inside { start, depth, in_text: !in_text },
                (Place::Inside { start, depth, in_text: false }, b'{' | b'[') => {
                    Place::Inside { start, depth: depth + 1, in_text: false }
                }
                (Place::Inside { start, depth: 1, in_text: false }, b'}' | b']') => {
                    self.place = Place::Behind;
                    let entity = serde_json::from_slice(&self.buffer[start..self.at]);
                    return entity.map(Some).map_err(|error| Failure::refused(format!("expected JSON in UTF-8: {error}")));
                }
                (Place::Inside { start, depth, in_text: false }, b'}' | b']') => {
                    Place::Inside { start, depth: depth - 1, in_text: false }
                }
                (place @ Place::Inside { .. }, _) => place,
                (place, b' ' | b'\t' | b'\r' | b'\n') => place,
                (Place::Begin, b'[') => Place::First,
                (Place::First, b']') | (Place::Behind, b']') => Place::End,
                (Place::First | Place::Entity, b'{') => Place::Inside { start: self.at - 1, depth: 1, in_text: false },
                (Place::Behind, b',') => Place::Entity,
                _ => return Err(self.wrong()),
            };
        }
        Ok(None)
    }

    pub fn finish(&self) -> Result<(), Failure> {
        match self.place {
            Place::End => Ok(()),
            _ => Err(Failure::refused("expected a whole JSON array of entities, found the end of the body")),
        }
    }

    fn wrong(&self) -> Failure {
        let expected = match self.place {
            Place::Begin => "a JSON array of entities",
            Place::End => "nothing behind the array",
            _ => "an entity",
        };
        let found: Vec<u8> = self.buffer[self.at - 1..].iter().copied().take(20).collect();
        Failure::refused(format!("expected {expected}, found {:?}", String::from_utf8_lossy(&found)))
    }
}

/// Serves until SIGTERM, on PORT and, where HOST does not say otherwise, for this machine alone.
pub fn serve(routes: Router) -> io::Result<()> {
    let variable = |name: &str, or: &str| std::env::var(name).unwrap_or_else(|_| or.to_owned());
    let address = format!("{}:{}", variable("HOST", "127.0.0.1"), variable("PORT", "5000"));
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        // Listened for before anybody can know that the service is there.
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let listener = tokio::net::TcpListener::bind(&address).await?;
        println!("INFO listening on {}", listener.local_addr()?);
        tokio::select! {
            served = async { axum::serve(listener, routes).await } => served,
            _ = terminated.recv() => Ok(()),
        }
    })?;
    // What is under way is broken off, which its other side notices.
    runtime.shutdown_background();
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    use super::*;

    /// A service on a free port, for as long as it lives.
    pub struct Served {
        address: SocketAddr,
        _runtime: tokio::runtime::Runtime,
    }

    impl Served {
        pub fn new(routes: Router) -> Served {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
            let address = listener.local_addr().unwrap();
            runtime.spawn(async { axum::serve(listener, routes).await });
            Served { address, _runtime: runtime }
        }

        /// Status and body of an answer, and whether it came to its end: in HTTP/1.0 the end of the
        /// connection is the end of the body, so that what is cut is no JSON.
        pub fn ask(&self, request: &str, body: &[u8]) -> (u16, Option<Value>) {
            let mut line = TcpStream::connect(self.address).unwrap();
            let head = format!("{request} HTTP/1.0\r\nHost: service\r\nContent-Length: {}\r\n\r\n", body.len());
            line.write_all(head.as_bytes()).unwrap();
            line.write_all(body).unwrap();
            let mut answer = Vec::new();
            let _ = line.read_to_end(&mut answer);
            let text = String::from_utf8(answer).unwrap();
            // What is cut early may lack even its head.
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or(("HTTP/1.0 200", ""));
            (head[9..12].parse().unwrap(), serde_json::from_str(body).ok())
        }

        pub fn push(&self, batch: &Value) -> u16 {
            let request = "POST /entities?sequence_id=s&is_full=false&request_id=1";
            self.ask(request, batch.to_string().as_bytes()).0
        }
    }

    /// What is no batch of entities.
    pub const NO_BATCH: [&[u8]; 6] = [b"[{\"_id\": \"1\"}", b"", b"[\"1\"]", b"{}", b"[{\"_id\": \"1\"}] x", b"[{\"_id\": \"\xff\"}]"];

    #[test]
    fn entities_are_cut_out_wherever_chunks_end() {
        let text = br#" [ {"_id": "1", "text": "a ] } \" \\"} ,{"_id":"2","in":{"a":[1,{}]}}] "#;
        for size in 1..text.len() {
            let mut splitter = Splitter::default();
            let mut found = Vec::new();
            for chunk in text.chunks(size) {
                splitter.feed(chunk).unwrap();
                while let Some(entity) = splitter.next().unwrap() {
                    found.push(entity["_id"].clone());
                }
            }
            splitter.finish().unwrap();
            assert_eq!(found, ["1", "2"], "{size}");
        }
    }
}
