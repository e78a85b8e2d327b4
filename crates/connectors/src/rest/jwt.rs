//! The filter `decode_jwt`.

use std::collections::HashSet;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, dangerous, decode};
use minijinja::value::{Kwargs, Rest};
use minijinja::{Error, ErrorKind, Value as Seen};
use rsa::RsaPublicKey;
use rsa::pkcs1::DecodeRsaPublicKey as _;
use rsa::pkcs8::DecodePublicKey as _;
use rsa::traits::PublicKeyParts as _;
use serde_json::{Map, Value as Json};
use tahini_entity::json::{Numbers, from_config};

use super::values::seen;

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

/// The claims of a JSON Web Token, verified with a public key (PEM) or a shared secret.
/// The key may stand first, without its name.
pub(super) fn decode_jwt(token: &str, arguments: Rest<Seen>) -> Result<Seen, Error> {
    let (first, arguments) = taken_apart(arguments)?;
    if arguments.has("jwks_url") || arguments.has("detached_payload") {
        return Err(wrong(
            "decode_jwt does not know jwks_url and detached_payload yet; give the key",
        ));
    }
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
        let key = key.ok_or_else(|| wrong("decode_jwt expects a key"))?;
        let algorithms = named(&algorithms)?;
        let first = algorithms[0];
        let mut validation = Validation::new(first);
        validation.algorithms = algorithms;
        validation.leeway = leeway.max(0.0) as u64;
        validation.validate_exp = exp;
        validation.validate_nbf = nbf;
        validation.validate_aud = aud && !audience.is_empty();
        validation.required_spec_claims = HashSet::new();
        if validation.validate_aud {
            validation.set_audience(&audience);
        }
        if iss && !issuer.is_empty() {
            validation.set_issuer(&issuer);
        }
        let key = decoding_key(first, &key)?;
        decode::<Map<String, Json>>(token.trim(), &key, &validation)
            .map_err(|error| wrong(format!("decode_jwt: {error}")))?
            .claims
    } else {
        dangerous::insecure_decode::<Map<String, Json>>(token.trim())
            .map_err(|error| wrong(format!("decode_jwt: {error}")))?
            .claims
    };
    let _ = arguments.get::<Option<bool>>("verify_iat")?;
    let _ = arguments.get::<Option<bool>>("strict_aud")?;
    arguments.assert_all_used()?;
    if let Some(missing) = required.iter().find(|name| !claims.contains_key(*name)) {
        return Err(wrong(format!(
            "decode_jwt: the claim {missing:?} is missing"
        )));
    }
    Ok(seen(&from_config(&Json::Object(claims), Numbers::FLOATS)))
}

/// The key where it has no name, and the arguments that have one.
fn taken_apart(arguments: Rest<Seen>) -> Result<(Option<String>, Kwargs), Error> {
    let mut unnamed: Vec<Seen> = arguments.to_vec();
    let last = unnamed.last();
    let by_name = last.and_then(|last| Kwargs::try_from(last.clone()).ok());
    if by_name.is_some() {
        unnamed.pop();
    }
    let by_name = by_name.unwrap_or_else(|| Kwargs::from_iter(Vec::<(String, Seen)>::new()));
    match unnamed.as_slice() {
        [] => Ok((None, by_name)),
        [key] => Ok((Some(key.to_string()), by_name)),
        _ => Err(wrong("decode_jwt expects the key alone without a name")),
    }
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
