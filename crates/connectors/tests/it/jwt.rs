//! The filter `decode_jwt`, with tokens that openssl signed.

use std::sync::Arc;

use reqwest::header::HeaderMap;
use tahini_connectors::rest::{Judge, Judgement, Posted, Validation};
use tahini_hub::secrets::MemorySecrets;

use crate::server::{Reply, Server};
use crate::world::Noon;

const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAnX4oGej2odLMVXPXIjeQ\n\
JTfTdZ2GCBJcuZWzQJVGWewM7kMAFzY+dwyYvr3fJV8/25yxmeyeuWgoGTpA1Cj1\n\
SJX2nZr1IzLLkZLreOSNKaty3ZuzmjYzQ4fEEsUhY/9jVb08QK3n2iEvXxwVeqt9\n\
oByW3Jk87ZAV/5vKB/XPkk/PEgqdSKAo4EY7n601Km+NzxhmFB7d6SX112+qJYad\n\
T6GymODGZy//4DlSXr2hIw9HyM5QkYZ2/OXG7dW7LwHHH2JhIf9Bj6GYPoo6ZShR\n\
W0wpihfXxpQ4SjSXprnWQjen5dWU5aIeEdPTlRh1KyM/naQho+HW/3y2qgF4LpMB\n\
2wIDAQAB\n\
-----END PUBLIC KEY-----";
const MODULUS: &str = "nX4oGej2odLMVXPXIjeQJTfTdZ2GCBJcuZWzQJVGWewM7kMAFzY-dwyYvr3fJV8_25yxmeyeuWgoGTpA1Cj1SJX2nZr1IzLLkZLreOSNKaty3ZuzmjYzQ4fEEsUhY_9jVb08QK3n2iEvXxwVeqt9oByW3Jk87ZAV_5vKB_XPkk_PEgqdSKAo4EY7n601Km-NzxhmFB7d6SX112-qJYadT6GymODGZy__4DlSXr2hIw9HyM5QkYZ2_OXG7dW7LwHHH2JhIf9Bj6GYPoo6ZShRW0wpihfXxpQ4SjSXprnWQjen5dWU5aIeEdPTlRh1KyM_naQho-HW_3y2qgF4LpMB2w";
/// `{"sub": "ada", "aud": "hub", "iss": "office"}`, of the key `k1`.
const GOOD: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsxIn0.eyJzdWIiOiJhZGEiLCJhdWQiOiJodWIiLCJpc3MiOiJvZmZpY2UifQ.jC7XqMtEY3xKANNlXXWEe4Z3wJy5NWrhOfkXu9sD83K8KXkWmiNOJWPvEOo32ZX2hytQ7mDrB_SwbjagO-Dye1V7K6zoED1DusE0sXfVMEA9ujHM2cbdhC8AcQk_7UslUpgJn5V1mECX1UFjYQ9-UNv60NFmTIIMU-WFzhL2GKm4KTzs1ghRFGe0PGng7hWqrwoQ9W-jjUi8W_p4hpgF07n__USTPghYO2JYBuNtmLLOSxxCCkX90WEce77xMz4N9-eTHp1p7RraJFz1iUwYG865KOqljpAMVsEfJ52s_Vq06Rnlz1mKzO93VxBcTvBgr8w3l17WTwVlTjtG8uOYuA";
/// `exp` is 1000, a moment of 1970.
const OLD: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEiLCJleHAiOjEwMDB9.c-MsS8Hiy9gWAtCiYAronUnGJEUL9riNbHdAHVnHJ2vbiWPBYm5-QAWl79zQKQycuZ6EW5Bm94u_m6l40Zv6P2KLJDYv3SkNbtXtrdPgClANJ7kPPYoNuszaaOi09Rk2ZI8xjepaGD7MhPnstTbNM0bh9rgpoRAmPCTHGGbAYoyiVXlGciey1D8RrQ4YQ5wvdQsAjg18w71m-JrFGsSnBsjV9vLBJfVNikjWDfjSA1fJlaq7KMGFjuwIP0pc4i6MCQbIn7OmKnsdsgJNkoJsLANFwq3c9yz0GVwQU3B9_3_Kanh_5b269IZ16SWS3LJ7MXESsmEGTbu3EB2Bx3ev_w";
/// `{"sub": "ada"}`, signed as it is and not carried.
const RAW: &str = "eyJhbGciOiJSUzI1NiIsImI2NCI6ZmFsc2UsImNyaXQiOlsiYjY0Il19..VoyuNARhIgQANbrIDaC1X0wPAzHBWpwdmllonJPHjZuTLh_d5kpcTSJVjVsZlAaDTbxmKZ6ws2t5kclR4HEeFzyMRb3zccwpWQdKp2w8YtkgWLs3rp_0XVp_tl3Hf51iQdL6AmUltY-ehA0bebqNqLduH3KB9gNj-MyGw09ukSWHgZwXnRZbILDRPAN8zjBgmouqT235Y2KH8gAw5JN4qnmU9uN_AExvsAaDX8m-8P0x1l3HTWi2sBjYRHkKq1cFjzEp_tjkblIQBK6ouK6yRM321SAXenqGVkjUJv-cCKPyn2gvePTORTQVwI1VzywIubMf1YPYeFbbJMv11bJ6zg";
/// The same, signed in base64.
const ENCODED: &str = "eyJhbGciOiJSUzI1NiJ9..XTFy0gnFHE1owK51ATILM_xMeJSwjY5Gj1iJKKxYSnnyp8oLWInkYOad9Rxqzh4GEi6Bf7kEqlrt13XnKbqq2IDGHGeBcyyu2cXArSCAT53Z1bVyKUsPvwZZgW6Nq8eqf-F4ak7lGQx-eomyphG4jLYDHI7KfRpvCuc-V_09P5MO4ukBTCyU7BxUpMniVT1-_6W6PAB8xjaD6D-3DCE1k9ULBmWyfKeYaiQRd7MsbENx4hVlfLmpgG4gQJcVOYgJJCZfONhpWgcTqWUZr__kFG7Il8bMXJtZfqG1laJPcNSibHA8ZrD7B6kiUTxNjwg13vwrJKZ31KOKDrKPvDGXBw";
/// `{"sub": "ada"}` under the key `shared secret`.
const SHARED: &str =
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ._KuKvQ0kca6u8rONz-j31tWIHwup8yaqdGjSKvbhalQ";

/// What a template says of a token, which stands in `request_params.t`.
fn said(template: &str, token: &str) -> Result<String, String> {
    let mut secrets = MemorySecrets::default();
    secrets.set(None, "public", PUBLIC);
    let judge = Judge {
        secrets: Arc::new(secrets),
        system: None,
        clock: Arc::new(Noon),
    };
    let validation = Validation::of(template, judge).map_err(|failure| failure.message)?;
    let posted = Posted {
        url: "http://h/",
        params: &[("t".to_owned(), token.to_owned())],
        headers: &HeaderMap::new(),
        body: b"",
    };
    match validation
        .judge(&posted)
        .map_err(|failure| failure.message)?
    {
        Judgement::Taken => Ok(String::new()),
        Judgement::Refused(words) => Ok(words),
    }
}

fn decoded(arguments: &str, token: &str) -> Result<String, String> {
    said(
        &format!("{{{{ (request_params.t | decode_jwt({arguments})).sub }}}}"),
        token,
    )
}

#[test]
fn a_token_is_verified_as_the_arguments_say() {
    let key = "key=secret('public')";
    for (arguments, token) in [
        ("secret('public')".to_owned(), GOOD),
        (key.to_owned(), GOOD),
        (
            format!("{key}, audience='hub', issuer=['office', 'x']"),
            GOOD,
        ),
        (format!("{key}, require=['aud', 'sub']"), GOOD),
        (format!("{key}, verify_exp=False"), OLD),
        ("verify=False".to_owned(), OLD),
        (
            "key='shared secret', algorithms=['HS256']".to_owned(),
            SHARED,
        ),
        (
            format!("{key}, detached_payload='{{\"sub\":\"ada\"}}'"),
            RAW,
        ),
        (
            format!("{key}, detached_payload=('{{\"sub\":\"ada\"}}' | bytes)"),
            ENCODED,
        ),
    ] {
        assert_eq!(
            decoded(&arguments, token).as_deref(),
            Ok("ada"),
            "{arguments}"
        );
    }
    for (arguments, token, word) in [
        (format!("{key}, audience='other'"), GOOD, "InvalidAudience"),
        (format!("{key}, issuer='other'"), GOOD, "InvalidIssuer"),
        (format!("{key}, require='exp'"), GOOD, "\"exp\" is missing"),
        (key.to_owned(), OLD, "ExpiredSignature"),
        // Whoever knows the public key cannot sign with it.
        ("key='shared secret'".to_owned(), SHARED, "public RSA key"),
        (key.to_owned(), SHARED, "InvalidAlgorithm"),
        (
            "key='another', algorithms=['HS256']".to_owned(),
            SHARED,
            "InvalidSignature",
        ),
        (
            format!("{key}, detached_payload='{{\"sub\":\"bob\"}}'"),
            RAW,
            "InvalidSignature",
        ),
        (
            format!("{key}, detached_payload='x'"),
            GOOD,
            "the second one empty",
        ),
        (String::new(), GOOD, "expects key or jwks_url"),
        (format!("{key}, algorithm='RS256'"), GOOD, "algorithm"),
    ] {
        let words = decoded(&arguments, token).unwrap_err();
        assert!(words.contains(word), "{arguments}: {word:?} in {words}");
    }
}

#[test]
fn keys_are_read_where_they_are_published_and_kept_for_a_while() {
    let other = MODULUS.replacen("A", "B", 3);
    let set = format!(
        r#"{{"keys": [{{"kty": "RSA", "kid": "k0", "n": "{other}", "e": "AQAB"}},
                      {{"kty": "RSA", "kid": "k1", "n": "{MODULUS}", "e": "AQAB"}}]}}"#
    );
    // One answer for all of them.
    let server = Server::play([Reply::ok(&set)]);
    let arguments = format!("jwks_url='{}/keys'", server.url());
    for token in [GOOD, GOOD] {
        assert_eq!(decoded(&arguments, token).as_deref(), Ok("ada"));
    }
    let words = decoded(&arguments, OLD).unwrap_err();
    assert!(words.contains("ExpiredSignature"), "{words}");
    assert_eq!(server.seen()[0].target, "/keys");
    let words = decoded("jwks_url='http://example.com/keys'", GOOD).unwrap_err();
    assert!(words.contains("https"), "{words}");
}
