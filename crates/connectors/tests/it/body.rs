//! Bodies: whole ones, three truncations, silence, stop requests, and back-pressure.

use std::io::Read;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;
use tahini_connectors::http::{Ask, Response, failure_of};
use tahini_hub::{Class, Failure};

use crate::server::{Reply, Server};
use crate::world::{World, url_system};

pub fn get(world: &World) -> Result<Response, Failure> {
    let headers = HeaderMap::new();
    let ask = Ask {
        method: Method::GET,
        url: "a",
        parameters: Vec::new(),
        headers: &headers,
        body: Bytes::new(),
    };
    world.system().ask(ask, &world.cancel)
}

fn read(reply: Reply) -> Result<String, Failure> {
    let server = Server::play([reply]);
    let world = World::at(&server.url());
    let mut text = String::new();
    match get(&world)?.body.read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) => Err(failure_of(&error)),
    }
}

#[test]
fn a_body_of_known_length_arrives_whole() {
    assert_eq!(read(Reply::ok("some text")).unwrap(), "some text");
    assert_eq!(read(Reply::ok("")).unwrap(), "");
}

#[test]
fn a_body_in_chunks_arrives_whole() {
    let reply = Reply::chunked().chunk("some ").chunk("text").last_chunk();
    assert_eq!(read(reply).unwrap(), "some text");
}

#[test]
fn a_body_shorter_than_its_length_is_a_failed_read_that_counts_bytes() {
    let failure = read(Reply::raw(
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789",
    ))
    .unwrap_err();
    assert_eq!(failure.class, Class::Transient);
    assert!(
        failure.message.contains("after 10 of 100 bytes"),
        "{failure}"
    );
    assert!(
        failure.message.starts_with("GET http://127.0.0.1:"),
        "{failure}"
    );
    assert!(failure.reached);
}

#[test]
fn a_body_without_its_last_chunk_is_a_failed_read_that_counts_bytes() {
    let failure = read(Reply::chunked().chunk("0123456789")).unwrap_err();
    assert_eq!(failure.class, Class::Transient);
    assert!(failure.message.contains("after 10 bytes"), "{failure}");
}

#[test]
fn a_body_cut_inside_a_chunk_is_a_failed_read() {
    let failure = read(Reply::chunked().then("64\r\n0123456789")).unwrap_err();
    assert_eq!(failure.class, Class::Transient);
    assert!(failure.message.contains("after 10 bytes"), "{failure}");
}

#[test]
fn a_compressed_body_is_unpacked_and_a_cut_one_is_a_failed_read() {
    // printf 'some text' | gzip -n
    const GZIP: &[u8] = &[
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x2b, 0xce, 0xcf, 0x4d, 0x55,
        0x28, 0x49, 0xad, 0x28, 0x01, 0x00, 0xba, 0xbd, 0xba, 0x4f, 0x09, 0x00, 0x00, 0x00,
    ];
    let reply = |bytes: &[u8]| {
        let len = bytes.len();
        Reply::raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len}\r\n\r\n"
        ))
        .then(bytes)
    };
    assert_eq!(read(reply(GZIP)).unwrap(), "some text");
    let failure = read(reply(&GZIP[..20])).unwrap_err();
    assert_eq!(failure.class, Class::Transient);
}

#[test]
fn silence_inside_a_body_ends_the_read_and_closes_the_socket() {
    let server = Server::play([Reply::chunked().chunk("half").hang()]);
    let mut config = url_system(&server.url());
    config["read_timeout"] = 0.2.into();
    let world = World::with(config, None).unwrap();
    let mut body = get(&world).unwrap().body;
    assert_eq!(body.next_chunk().unwrap().unwrap(), "half");
    let failure = body.next_chunk().unwrap_err();
    assert_eq!(failure.class, Class::Transient);
    assert!(failure.message.contains("within 0.2 s"), "{failure}");
    assert!(failure.message.contains("after 4 bytes"), "{failure}");
    drop(body);
    server.hung_up(Duration::from_secs(5));
}

#[test]
fn a_long_body_that_keeps_coming_is_not_cut() {
    let mut reply = Reply::chunked();
    for _ in 0..8 {
        reply = reply.chunk("x").pause(Duration::from_millis(100));
    }
    let server = Server::play([reply.last_chunk()]);
    let mut config = url_system(&server.url());
    config["read_timeout"] = 0.5.into();
    let world = World::with(config, None).unwrap();
    assert_eq!(
        get(&world).unwrap().body.read_up_to(100).unwrap(),
        b"xxxxxxxx"
    );
}

#[test]
#[allow(clippy::disallowed_methods, reason = "it only makes the test stricter")]
fn a_stopped_run_stops_reading_within_a_second_and_closes_the_socket() {
    let server = Server::play([Reply::chunked().chunk("half").hang()]);
    let world = World::at(&server.url());
    let mut body = get(&world).unwrap().body;
    assert_eq!(body.next_chunk().unwrap().unwrap(), "half");
    let cancel = world.cancel.clone();
    let asked = Instant::now();
    let stopper = std::thread::spawn(move || cancel.cancel());
    let failure = body.next_chunk().unwrap_err();
    assert_eq!(failure.class, Class::Cancelled);
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    stopper.join().unwrap();
    drop(body);
    server.hung_up(Duration::from_secs(5));
}

#[test]
fn a_dropped_body_closes_the_socket() {
    let server = Server::play([Reply::chunked().chunk("half").hang()]);
    let world = World::at(&server.url());
    drop(get(&world).unwrap());
    server.hung_up(Duration::from_secs(5));
}

#[test]
fn a_reader_that_is_behind_holds_the_server_back() {
    // 256 MB that nobody reads: without back-pressure the server would get rid of all of it.
    const BLOCK: usize = 1024 * 1024;
    const BLOCKS: usize = 256;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).unwrap() > 0);
        let len = BLOCK * BLOCKS;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        let block = vec![b'x'; BLOCK];
        (0..BLOCKS)
            .take_while(|_| stream.write_all(&block).is_ok())
            .count()
    });
    let world = World::at(&url);
    let mut response = get(&world).unwrap();
    // A read now and then shows that the client lives; it takes what waits and no more.
    assert!(response.body.next_chunk().unwrap().is_some());
    let sent = server.join().unwrap();
    assert!(sent < BLOCKS / 4, "the server got rid of {sent} MB");
}
