//! HTTPS: when certificates are verified, and against what.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value as Json, json};
use tahini_hub::Class;

use crate::body::get;
use crate::world::World;

// A certificate for 127.0.0.1 that is valid until 2120, its key, and the authority that signed
// it. They are good for nothing but these tests.
const CERTIFICATE: &[u8] = include_bytes!("../data/server.der");
const KEY: &[u8] = include_bytes!("../data/server-key.der");
const AUTHORITY: &str = include_str!("../data/ca.pem");
// A client's certificate with its key, and the authority that signed it; as useless elsewhere.
const CLIENT: &str = include_str!("../data/client.pem");
const CLIENTS: &[u8] = include_bytes!("../data/client-ca.der");

/// A server that answers one connection over TLS, if the client accepts its certificate; with
/// `strict` it wants one of the client's, too.
fn server(strict: bool) -> (String, JoinHandle<bool>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut clients = RootCertStore::empty();
    clients.add(CertificateDer::from(CLIENTS.to_vec())).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(clients), provider.clone());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match strict {
        true => config.with_client_cert_verifier(clients.build().unwrap()),
        false => config.with_no_client_auth(),
    };
    let config = config
        .with_single_cert(
            vec![CertificateDer::from(CERTIFICATE.to_vec())],
            PrivatePkcs8KeyDer::from(KEY.to_vec()).into(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let mut request = [0; 4096];
        if !matches!(stream.read(&mut request), Ok(1..)) {
            return false;
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsafe";
        stream.write_all(answer).is_ok()
    });
    (url, thread)
}

/// What came of a request with this configuration beside the address.
fn ask(more: Json) -> Result<Vec<u8>, tahini_hub::Failure> {
    ask_of(server(false), more)
}

fn ask_of(
    (url, thread): (String, JoinHandle<bool>),
    more: Json,
) -> Result<Vec<u8>, tahini_hub::Failure> {
    let mut config =
        json!({ "_id": "s", "type": "system:url", "url_pattern": format!("{url}/%s") });
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    let world = World::with(config, None).unwrap();
    let outcome = get(&world).and_then(|mut response| response.body.read_up_to(100));
    assert_eq!(thread.join().unwrap(), outcome.is_ok());
    outcome
}

#[test]
fn certificates_are_not_verified_unless_asked_for() {
    assert_eq!(ask(json!({})).unwrap(), b"safe");
    assert_eq!(ask(json!({ "verify_ssl": false })).unwrap(), b"safe");
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused_where_they_are_verified() {
    let failure = ask(json!({ "verify_ssl": true })).unwrap_err();
    assert_eq!(failure.class, Class::Transient);
    assert!(!failure.reached);
    assert!(failure.message.contains("certificate"), "{failure}");
}

#[test]
fn an_authority_of_the_configuration_is_trusted() {
    let outcome = ask(json!({ "verify_ssl": true, "custom_ca_pem_chain": AUTHORITY }));
    assert_eq!(outcome.unwrap(), b"safe");
}

#[test]
fn a_server_that_wants_a_certificate_gets_it() {
    let shows = json!({ "client_certificate_pem": CLIENT });
    assert_eq!(ask_of(server(true), shows).unwrap(), b"safe");
    let failure = ask_of(server(true), json!({})).unwrap_err();
    assert_eq!(failure.class, Class::Transient, "{failure}");
}
