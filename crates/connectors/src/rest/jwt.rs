//! The filter `decode_jwt`.

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, crypto, dangerous, decode, encode,
};
use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value as Seen};
use rsa::RsaPublicKey;
use rsa::pkcs1::DecodeRsaPublicKey as _;
use rsa::pkcs8::DecodePublicKey as _;
use rsa::traits::PublicKeyParts as _;
use serde_json::{Map, Value as Json};
use tahini_entity::json::{Numbers, from_config};
use tahini_hub::Clock;

use super::jwks;
use super::values::seen;

/// The key of tokens that never leave this file.
const OWN: &[u8] = b"ours alone";

fn wrong(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, words.into())
}

fn texts(value: Option<Seen>) -> Result<Vec<String>, Error> {
    let Some(value) = value.filter(|value| !value.is_none()) else {
        return Ok(Vec::new());
    };
    if let Some(text) = value.as_str() {
        return Ok(vec![text.to_owned()]);
    }
    let items = value.try_iter()?;
    Ok(items.map(|item| item.to_string()).collect())
}

/// The claims of a JSON Web Token, verified with a public key (PEM), a shared secret, or a key of
/// the set that a server publishes. The key may stand first, without its name.
pub(super) fn decode_jwt(
    token: &str,
    first: Option<String>,
    arguments: &Kwargs,
    clock: Option<&Arc<dyn Clock>>,
) -> Result<Seen, Error> {
    let token = token.trim();
    let detached = arguments.get::<Option<Seen>>("detached_payload")?;
    let detached = detached.filter(|payload| !payload.is_none());
    let jwks_url = arguments.get::<Option<String>>("jwks_url")?;
    let verify = arguments.get::<Option<bool>>("verify")?.unwrap_or(true);
    let flag = |name: &str| -> Result<bool, Error> {
        Ok(arguments.get::<Option<bool>>(name)?.unwrap_or(verify))
    };
    let algorithms = texts(arguments.get("algorithms").ok())?;
    let audience = texts(arguments.get("audience").ok())?;
    let issuer = texts(arguments.get("issuer").ok())?;
    let required = texts(arguments.get("require").ok())?;
    let (aud, iss, exp, nbf) = (
        flag("verify_aud")?,
        flag("verify_iss")?,
        flag("verify_exp")?,
        flag("verify_nbf")?,
    );
    let leeway = arguments.get::<Option<f64>>("leeway")?.unwrap_or(0.0);
    let key = arguments.get::<Option<String>>("key")?.or(first);
    let claims: Map<String, Json> = if verify {
        let algorithms = named(&algorithms)?;
        let mut validation = Validation::new(algorithms[0]);
        validation.algorithms.clone_from(&algorithms);
        validation.leeway = leeway.max(0.0) as u64;
        validation.validate_exp = exp;
        validation.validate_nbf = nbf;
        // A token for somebody else is none for us, also where nobody said who we are.
        validation.validate_aud = aud;
        validation.required_spec_claims = HashSet::new();
        if aud && !audience.is_empty() {
            validation.set_audience(&audience);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        if iss && !issuer.is_empty() {
            validation.set_issuer(&issuer);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        let keys = match (key, jwks_url) {
            (Some(key), _) => vec![decoding_key(algorithms[0], &key)?],
            (None, Some(url)) => published(&url, token, clock)?,
            (None, None) => return Err(wrong("decode_jwt expects key or jwks_url")),
        };
        verified(token, &keys, validation, detached.as_ref())?
    } else {
        dangerous::insecure_decode::<Map<String, Json>>(token)
            .map_err(|error| wrong(format!("decode_jwt: {error}")))?
            .claims
    };
    let (iat, strict) = (flag("verify_iat")?, arguments.get("strict_aud")?);
    let strict = aud && Option::unwrap_or(strict, false);
    checked(&claims, iat, strict.then_some(audience.as_slice()))?;
    arguments.assert_all_used()?;
    if let Some(missing) = required.iter().find(|name| !claims.contains_key(*name)) {
        return Err(wrong(format!(
            "decode_jwt: the claim {missing:?} is missing"
        )));
    }
    Ok(seen(&from_config(&Json::Object(claims), Numbers::FLOATS)))
}

/// What the library does not judge: that `iat` is a number, and, where there is an `audience` to
/// compare with, that `aud` is one text and the same.
fn checked(claims: &Map<String, Json>, iat: bool, exact: Option<&[String]>) -> Result<(), Error> {
    if iat && claims.get("iat").is_some_and(|iat| !iat.is_number()) {
        return Err(wrong("decode_jwt: expected the claim iat to be a number"));
    }
    let is_exact = match (claims.get("aud"), exact) {
        (_, None) => true,
        (Some(Json::String(found)), Some([wanted])) => found == wanted,
        _ => false,
    };
    match is_exact {
        true => Ok(()),
        false => Err(wrong(
            "decode_jwt: expected one aud, and the same as audience (strict_aud)",
        )),
    }
}

/// The claims of a token that one of the keys has signed.
fn verified(
    token: &str,
    keys: &[DecodingKey],
    validation: Validation,
    detached: Option<&Seen>,
) -> Result<Map<String, Json>, Error> {
    let mut last = wrong("decode_jwt: expected a key for the token, found none");
    for key in keys {
        // A key is of one family of algorithms, and those of others are not tried with it.
        let mut validation = validation.clone();
        validation
            .algorithms
            .retain(|one| one.family() == key.family());
        if validation.algorithms.is_empty() {
            continue;
        }
        let outcome = match detached {
            None => decode::<Map<String, Json>>(token, key, &validation)
                .map(|decoded| decoded.claims)
                .map_err(|error| wrong(format!("decode_jwt: {error}"))),
            Some(payload) => match signed_apart(token, payload, key, &validation) {
                Ok(claims) => return judged(&claims, validation),
                Err(error) => Err(error),
            },
        };
        match outcome {
            Ok(claims) => return Ok(claims),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The claims, if they say what they have to. The library judges that in one place, of a token that
/// we sign ourselves.
fn judged(
    claims: &Map<String, Json>,
    mut validation: Validation,
) -> Result<Map<String, Json>, Error> {
    let told = |error| wrong(format!("decode_jwt: {error}"));
    validation.algorithms = vec![Algorithm::HS256];
    let own = encode(&Header::default(), claims, &EncodingKey::from_secret(OWN)).map_err(told)?;
    let own = decode::<Map<String, Json>>(own, &DecodingKey::from_secret(OWN), &validation);
    own.map(|decoded| decoded.claims).map_err(told)
}

/// What a token's first part says, where that is a JSON object.
fn header(token: &str) -> Option<Map<String, Json>> {
    let head = token.split('.').next()?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).ok()?).ok()
}

/// The claims of a payload that the token was signed for without carrying it (RFC 7515, appendix F;
/// RFC 7797 where its header says so).
fn signed_apart(
    token: &str,
    payload: &Seen,
    key: &DecodingKey,
    validation: &Validation,
) -> Result<Map<String, Json>, Error> {
    let broken = || wrong("decode_jwt: expected a token of three parts, the second one empty");
    let (head, rest) = token.split_once('.').ok_or_else(broken)?;
    let signature = rest.strip_prefix('.').ok_or_else(broken)?;
    let bytes = match payload.as_bytes() {
        Some(bytes) => bytes.to_vec(),
        None => payload.to_string().into_bytes(),
    };
    let header = header(token).ok_or_else(broken)?;
    let algorithm = header.get("alg").and_then(Json::as_str).unwrap_or_default();
    let algorithm: Algorithm = algorithm.parse().map_err(|_| broken())?;
    if !validation.algorithms.contains(&algorithm) {
        return Err(wrong("decode_jwt: the token's algorithm is not allowed"));
    }
    let mut message = format!("{head}.").into_bytes();
    match header.get("b64") {
        Some(Json::Bool(false)) => message.extend_from_slice(&bytes),
        _ => message.extend_from_slice(URL_SAFE_NO_PAD.encode(&bytes).as_bytes()),
    }
    match crypto::verify(signature, &message, key, algorithm) {
        Ok(true) => {}
        Ok(false) => return Err(wrong("decode_jwt: InvalidSignature")),
        Err(error) => return Err(wrong(format!("decode_jwt: {error}"))),
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        wrong(format!(
            "decode_jwt: expected claims in the payload: {error}"
        ))
    })
}

/// The keys of a published set that a token may be signed with: the one that it names, or else all.
fn published(
    url: &str,
    token: &str,
    clock: Option<&Arc<dyn Clock>>,
) -> Result<Vec<DecodingKey>, Error> {
    let clock = clock.ok_or_else(|| wrong("decode_jwt cannot ask for jwks_url here"))?;
    let header = header(token).unwrap_or_default();
    let kid = header.get("kid").and_then(Json::as_str);
    let set = jwks::set(url, kid, clock).map_err(|words| wrong(format!("decode_jwt: {words}")))?;
    let fitting = set.keys.iter().filter(|key| match kid {
        Some(kid) => key.common.key_id.as_deref() == Some(kid),
        None => true,
    });
    let keys = fitting.filter_map(|key| DecodingKey::from_jwk(key).ok());
    Ok(keys.collect())
}

fn named(names: &[String]) -> Result<Vec<Algorithm>, Error> {
    if names.is_empty() {
        return Ok(vec![Algorithm::RS256]);
    }
    let named = names.iter().map(|name| {
        name.parse()
            .map_err(|_| wrong(format!("decode_jwt knows no algorithm {name:?}")))
    });
    named.collect()
}

fn decoding_key(algorithm: Algorithm, key: &str) -> Result<DecodingKey, Error> {
    let bytes = key.as_bytes();
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            return Ok(DecodingKey::from_secret(bytes));
        }
        Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA => {
            return Err(wrong(
                "decode_jwt knows RS, PS and HS algorithms, not yet ES and EdDSA",
            ));
        }
        _ => {}
    }
    let public = RsaPublicKey::from_public_key_pem(key)
        .ok()
        .or_else(|| RsaPublicKey::from_pkcs1_pem(key).ok())
        .ok_or_else(|| wrong("decode_jwt expects a public RSA key in PEM form as key"))?;
    Ok(DecodingKey::from_rsa_raw_components(
        &public.n().to_bytes_be(),
        &public.e().to_bytes_be(),
    ))
}
