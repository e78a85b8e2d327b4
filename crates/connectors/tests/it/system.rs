//! Systems: addresses, credentials, headers, and configurations that cannot be opened.

use serde_json::{Value as Json, json};
use tahini_hub::Class;

use crate::body::get;
use crate::server::{Reply, Server};
use crate::world::{World, url_system};

fn refused(config: Json) -> String {
    let failure = World::with(config, None).map(|_| ()).unwrap_err();
    assert_eq!(failure.class, Class::Config, "{failure}");
    failure.message
}

fn with(changes: Json) -> Json {
    let mut config = url_system("http://127.0.0.1:1");
    for (name, value) in changes.as_object().unwrap() {
        config[name] = value.clone();
    }
    config
}

#[test]
fn headers_and_basic_authentication_go_with_every_request() {
    let server = Server::play([Reply::ok("")]);
    let mut config = url_system(&server.url());
    config["headers"] = json!({ "X-A": "a", "Accept": "text/plain", "X-N": 1 });
    config["authentication"] = "basic".into();
    config["username"] = "Aladdin".into();
    config["password"] = "open sesame".into();
    get(&World::with(config, None).unwrap()).unwrap();
    let seen = &server.seen()[0];
    // The example of RFC 7617.
    assert_eq!(
        seen.header("authorization"),
        Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
    );
    assert_eq!(seen.header("x-a"), Some("a"));
    assert_eq!(seen.header("x-n"), Some("1"));
    assert_eq!(seen.header("accept"), Some("text/plain"));
    assert!(seen.header("user-agent").unwrap().starts_with("tahini/"));
}

#[test]
fn user_and_password_count_for_nothing_without_authentication() {
    let server = Server::play([Reply::ok("")]);
    let mut config = url_system(&server.url());
    config["username"] = "u".into();
    config["password"] = "p".into();
    get(&World::with(config, None).unwrap()).unwrap();
    assert_eq!(server.seen()[0].header("authorization"), None);
}

#[test]
fn a_prototype_whose_credentials_are_null_sends_none() {
    let server = Server::play([Reply::ok("")]);
    let mut config = url_system(&server.url());
    config["authentication"] = "basic".into();
    config["username"] = Json::Null;
    config["password"] = Json::Null;
    get(&World::with(config, None).unwrap()).unwrap();
    assert_eq!(server.seen()[0].header("authorization"), None);
}

#[test]
fn a_base_url_is_joined_and_a_pattern_is_filled() {
    for (property, base, target) in [
        ("base_url", "/files/", "/files/a"),
        ("base_url", "/files", "/a"),
        ("url_pattern", "/files/%s?k=1", "/files/a?k=1"),
        ("url_pattern", "", "/a"),
    ] {
        let server = Server::play([Reply::ok("")]);
        let config = json!({
            "_id": "s", "type": "system:url", property: format!("{}{base}", server.url())
        });
        get(&World::with(config, None).unwrap()).unwrap();
        assert_eq!(server.seen()[0].target, target, "{property} {base}");
    }
}

#[test]
fn a_microservice_is_where_the_node_runs_it() {
    let server = Server::play([Reply::ok("")]);
    let config = json!({ "_id": "s", "type": "system:microservice" });
    let world = World::with(config.clone(), Some(("s", &server.url()))).unwrap();
    get(&world).unwrap();
    assert_eq!(server.seen()[0].target, "/a");
    let world = World::with(config, Some(("other", &server.url()))).unwrap();
    let failure = get(&world).map(|_| ()).unwrap_err();
    assert_eq!(failure.class, Class::Transient);
}

#[test]
fn a_microservice_with_https_is_asked_over_https() {
    let config = json!({ "_id": "s", "type": "system:microservice", "use_https": true });
    let world = World::with(config, Some(("s", "http://127.0.0.1:1"))).unwrap();
    let address = world.system().address("/a", &world.cancel).unwrap();
    assert_eq!(address.as_str(), "https://127.0.0.1:1/a");
}

#[test]
fn a_configuration_that_asks_for_more_than_there_is_does_not_open() {
    let message = refused(with(json!({ "authentication": "ntlm" })));
    assert!(message.contains("$.authentication"), "{message}");
    assert!(message.contains("not supported yet"), "{message}");
}

#[test]
fn a_configuration_that_cannot_be_meant_does_not_open() {
    let cases = [
        (json!({ "base_url": "http://h/" }), "both"),
        (json!({ "url_pattern": null }), "neither"),
        (json!({ "url_pattern": "ftp://h/%s" }), "http or https"),
        (
            json!({ "authentication": "basic", "username": "u" }),
            "$.password",
        ),
        (
            json!({ "authentication": "basic", "password": "p" }),
            "$.username",
        ),
        (json!({ "authentication": "jwt" }), "$.jwt_token"),
        (
            json!({ "authentication": "digest", "username": "u" }),
            "$.password",
        ),
        (json!({ "authentication": "tripletex" }), "$.tripletex"),
        (
            json!({ "oauth2": { "client_id": "x" } }),
            "$.oauth2.token_url",
        ),
        (
            json!({ "oauth2": { "token_url": "http://h/t" } }),
            "$.oauth2.client_id",
        ),
        (
            json!({ "oauth2": {}, "authentication": "basic" }),
            "beside oauth2",
        ),
        (
            json!({ "client_certificate_pem": "no" }),
            "client_certificate_pem",
        ),
        (json!({ "headers": { "a b": "c" } }), "a b"),
        (json!({ "headers": { "a": ["c"] } }), "\"a\""),
        (json!({ "connect_timeout": "soon" }), "$.connect_timeout"),
        (json!({ "retry_strategy": { "4xx": {} } }), "4xx"),
        (json!({ "proxies": { "ftp": "http://h:1" } }), "ftp"),
        (
            json!({ "verify_ssl": true, "custom_ca_pem_chain": "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n" }),
            "custom_ca_pem_chain",
        ),
    ];
    for (changes, word) in cases {
        let message = refused(with(changes.clone()));
        assert!(message.contains(word), "{changes}: {message}");
    }
}

#[test]
fn a_password_of_a_wrong_type_is_not_shown() {
    let message = refused(with(
        json!({ "authentication": "basic", "username": "u", "password": 4711 }),
    ));
    assert!(!message.contains("4711"), "{message}");
}

#[test]
fn a_proxy_gets_the_request() {
    let proxy = Server::play([Reply::ok("by proxy")]);
    let config = json!({
        "_id": "s", "type": "system:url", "url_pattern": "http://tahini.invalid/%s",
        "proxies": { "http": proxy.url() }
    });
    let mut response = get(&World::with(config, None).unwrap()).unwrap();
    assert_eq!(response.body.read_up_to(100).unwrap(), b"by proxy");
    assert_eq!(proxy.seen()[0].target, "http://tahini.invalid/a");
}
