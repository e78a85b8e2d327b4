//! Credentials: what is sent with requests, and what becomes of refusals.

use serde_json::{Value as Json, json};
use tahini_hub::{Class, Failure};

use crate::body::get;
use crate::server::{Reply, Seen, Server};
use crate::world::{World, url_system};

/// What a server with this script saw of one request, and what came of it.
fn ask(script: Vec<Reply>, more: impl Fn(&str) -> Json) -> (Vec<Seen>, Result<(), Failure>) {
    let server = Server::play(script);
    let mut config = url_system(&server.url());
    for (name, value) in more(&server.url()).as_object().unwrap() {
        config[name] = value.clone();
    }
    let world = World::with(config, None).unwrap();
    let outcome = get(&world).map(|_| ());
    (server.seen(), outcome)
}

fn authorization(seen: &Seen) -> &str {
    seen.header("authorization").unwrap_or_default()
}

fn token(more: Json) -> Reply {
    let mut answer = json!({"access_token": "fresh-token"});
    for (name, value) in more.as_object().unwrap() {
        answer[name] = value.clone();
    }
    Reply::ok(&answer.to_string())
}

#[test]
fn a_json_web_token_is_the_bearers() {
    let more = |_: &str| {
        json!({"authentication": "jwt", "jwt_token": "a.b.c",
                                "headers": {"Authorization": "mine"}})
    };
    let (seen, outcome) = ask(vec![Reply::ok("")], more);
    outcome.unwrap();
    assert_eq!(authorization(&seen[0]), "Bearer a.b.c");
}

#[test]
fn a_digest_answers_the_challenge_and_a_wrong_password_is_told() {
    let challenge = || {
        Reply::status(
            "401 No",
            "WWW-Authenticate: Digest realm=\"r\", nonce=\"n1\", qop=\"auth\", opaque=\"o\"\r\n",
            "who are you?",
        )
    };
    let digest =
        |_: &str| json!({"authentication": "digest", "username": "u", "password": "pass-word"});
    let (seen, outcome) = ask(vec![challenge(), Reply::ok("")], digest);
    outcome.unwrap();
    assert_eq!(authorization(&seen[0]), "");
    let answer = authorization(&seen[1]);
    for part in [
        "Digest username=\"u\"",
        "realm=\"r\"",
        "uri=\"/a\"",
        "nc=00000001",
        "opaque=\"o\"",
    ] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    let (_, outcome) = ask(vec![challenge(), challenge()], digest);
    let failure = outcome.unwrap_err();
    assert_eq!((failure.class, failure.status), (Class::Entity, Some(401)));
    assert_eq!(failure.original.as_deref(), Some("who are you?"));
}

#[test]
fn tokens_are_fetched_as_the_configuration_says() {
    let oauth2 = |more: Json| {
        move |url: &str| {
            let mut section = json!({
                "client_id": "c", "client_secret": "secret-of-c", "token_url": format!("{url}/token"),
            });
            for (name, value) in more.as_object().unwrap() {
                section[name] = value.clone();
            }
            json!({"oauth2": section})
        }
    };
    for (more, body) in [
        (
            json!({"scope": ["a", "b"], "extra": {"audience": "x", "number": 1}}),
            "grant_type=client_credentials&client_id=c&client_secret=secret-of-c&scope=a%20b\
             &audience=x&number=1",
        ),
        (
            json!({"username": "u", "password": "p w"}),
            "grant_type=password&username=u&password=p%20w&client_id=c&client_secret=secret-of-c",
        ),
        (
            json!({"refresh_token": "r", "scope": "a"}),
            "grant_type=refresh_token&refresh_token=r&client_id=c&client_secret=secret-of-c",
        ),
        (
            json!({"extra": {"grant_type": "mine", "client_secret": null}}),
            "client_id=c&client_secret=secret-of-c&grant_type=mine",
        ),
    ] {
        let script = vec![token(json!({})), Reply::ok("")];
        let (seen, outcome) = ask(script, oauth2(more));
        outcome.unwrap();
        assert_eq!(
            (seen[0].method.as_str(), seen[0].target.as_str()),
            ("POST", "/token")
        );
        assert_eq!(seen[0].body, body);
        assert_eq!(authorization(&seen[1]), "Bearer fresh-token");
    }
    // The token of the configuration is used first, and another is fetched once it is refused.
    let script = vec![
        Reply::status("401 No", "", ""),
        token(json!({})),
        Reply::ok(""),
    ];
    let given = oauth2(json!({"access_token": "given-token", "refresh_token": "r"}));
    let (seen, outcome) = ask(script, given);
    outcome.unwrap();
    assert_eq!(authorization(&seen[0]), "Bearer given-token");
    assert_eq!(authorization(&seen[2]), "Bearer fresh-token");
    // Some providers want the client's credentials in the header.
    let script = vec![
        Reply::status("401 No", "", "{\"error\": \"invalid_client\"}"),
        token(json!({})),
        Reply::ok(""),
    ];
    let (seen, outcome) = ask(script, oauth2(json!({})));
    outcome.unwrap();
    assert_eq!(authorization(&seen[1]), "Basic YzpzZWNyZXQtb2YtYw==");
    assert_eq!(seen[1].body, "grant_type=client_credentials");
}

#[test]
fn a_token_that_expires_is_fetched_again_before_it_does() {
    // The clock stands still, so 30 seconds are within the window and 31 are not.
    for (seconds, fetches) in [(31, 1), (30, 2)] {
        let mut script = vec![token(json!({"expires_in": seconds})), Reply::ok("")];
        script.extend((1..fetches).map(|_| token(json!({"expires_in": "3600"}))));
        script.push(Reply::ok(""));
        let server = Server::play(script);
        let mut config = url_system(&server.url());
        config["oauth2"] =
            json!({"client_id": "c", "token_url": format!("{}/token", server.url())});
        let world = World::with(config, None).unwrap();
        get(&world).unwrap();
        get(&world).unwrap();
        let seen = server.seen();
        let tokens = seen.iter().filter(|seen| seen.target == "/token");
        assert_eq!(tokens.count(), fetches, "{seconds}");
    }
}

#[test]
fn a_token_endpoint_that_gives_none_is_told_without_secrets() {
    let oauth2 = |url: &str| {
        json!({"oauth2": {
            "client_id": "c", "client_secret": "secret-of-c", "token_url": format!("{url}/token?k=v"),
        }})
    };
    for (reply, words) in [
        (
            Reply::ok("{\"token\": \"x\"}"),
            "expected access_token in the answer",
        ),
        (Reply::ok("<html>"), "expected a JSON object"),
        (
            Reply::status("400 No", "", "secret-of-c is wrong"),
            "found 400",
        ),
    ] {
        let (_, outcome) = ask(vec![reply], oauth2);
        let failure = outcome.unwrap_err().to_string();
        assert!(failure.contains(words), "{failure}");
        assert!(
            failure.contains("an access token was not given"),
            "{failure}"
        );
        assert!(!failure.contains("secret-of-c"), "{failure}");
    }
}

#[test]
fn a_tripletex_session_is_created_for_as_long_as_was_asked() {
    let more = |url: &str| {
        json!({"authentication": "tripletex", "tripletex": {
            "consumer_token": "con", "employee_token": "emp", "token_url": format!("{url}/:create"),
        }})
    };
    let session = Reply::ok("{\"value\": {\"token\": \"session\"}}");
    let (seen, outcome) = ask(vec![session, Reply::ok("")], more);
    outcome.unwrap();
    assert_eq!(seen[0].method, "PUT");
    assert_eq!(
        seen[0].target,
        "/:create?consumerToken=con&employeeToken=emp&expirationDate=2024-05-03"
    );
    // 0:session
    assert_eq!(authorization(&seen[1]), "Basic MDpzZXNzaW9u");
}
