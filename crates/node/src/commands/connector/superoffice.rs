//! The ticket with which a connector asks SuperOffice, in the way of the reference's client: the
//! login's `id_token` brings a system user's token, which is signed with the application's key and
//! handed in for a ticket.

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::{BigUint, Pkcs1v15Sign, RsaPrivateKey};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest as _, Sha256};

/// The beginning of the names of SuperOffice's claims.
const CLAIM: &str = "http://schemes.superoffice.net/identity/";
/// What stands before a SHA-256 hash that is signed (RFC 8017, 9.2, note 1).
const SHA256_PREFIX: &[u8] = &[
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// What a ticket comes with.
pub(super) struct Ticket {
    /// The ticket.
    pub ticket: String,
    /// The customer's account.
    pub account: String,
    /// Where the customer's API is.
    pub base_url: String,
}

/// Asks for a ticket: `answer` is that of the login, `key` the application's private key as XML or
/// PEM, `token` the application's token.
///
/// # Errors
/// Where something is missing or refused, in words without secrets.
pub(super) fn ticket(
    oauth2: &Json,
    answer: &Json,
    key: &str,
    token: &str,
) -> anyhow::Result<Ticket> {
    let key = private_key(key)?;
    let text = |name: &str| {
        let found = answer[name].as_str();
        found.ok_or_else(|| anyhow!("expected {name} in the login's answer, found none"))
    };
    let jwks_uri = oauth2["jwks_uri"]
        .as_str()
        .ok_or_else(|| anyhow!("manifest.json: expected text as oauth2.jwks_uri"))?;
    let environment = reqwest::Url::parse(jwks_uri).context("manifest.json: oauth2.jwks_uri")?;
    let environment = environment.origin().ascii_serialization();
    let customer = customer_of(text("access_token")?)?;
    let keys = super::authenticate::get(jwks_uri)?;
    let keys: JwkSet = serde_json::from_value(keys)
        .map_err(|_| anyhow!("{jwks_uri}: expected a set of keys, found something else"))?;
    let user = claim(&verified(text("id_token")?, &keys)?, "system_token").context(
        "the client may be one for another kind of application than that of a system user",
    )?;
    let signed = signed(&key, &user, Timestamp::now())?;
    let asked = json!({
        "SignedSystemToken": signed, "ApplicationToken": token,
        "ContextIdentifier": customer, "ReturnTokenType": "JWT",
    });
    let url = format!("{environment}/Login/api/PartnerSystemUser/Authenticate");
    let kind = [("content-type", "application/json;charset=UTF-8")];
    let given = super::authenticate::post(&url, &kind, asked.to_string())?;
    if given["IsSuccessful"] != true {
        let why = given["ErrorMessage"].as_str().unwrap_or("no reason given");
        bail!("{url} gave no ticket: {why}");
    }
    let given = given["Token"].as_str().unwrap_or_default();
    let claims = verified(given, &keys)?;
    let (ticket, account) = (claim(&claims, "ticket")?, claim(&claims, "ctx")?);
    let state = super::authenticate::get(&format!("{environment}/api/state/{account}"))?;
    let base_url = base_url(&state, &account)?;
    Ok(Ticket {
        ticket,
        account,
        base_url,
    })
}

/// The customer that an access token names: `8A:Cust12345.abc` is of `Cust12345`.
fn customer_of(access_token: &str) -> anyhow::Result<String> {
    let behind = access_token.split(':').nth(1).unwrap_or_default();
    match behind.split('.').next() {
        Some(customer) if !customer.is_empty() => Ok(customer.to_owned()),
        _ => bail!("expected an access token that names the customer, found another form"),
    }
}

/// The claims of a token that one of the keys has signed.
fn verified(token: &str, keys: &JwkSet) -> anyhow::Result<Map<String, Json>> {
    let header = decode_header(token).context("a token of SuperOffice")?;
    let named = header.kid.as_deref().and_then(|kid| keys.find(kid));
    let key = named.or_else(|| keys.keys.first());
    let key = key.ok_or_else(|| anyhow!("expected keys at oauth2.jwks_uri, found none"))?;
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let key = DecodingKey::from_jwk(key).context("a key of oauth2.jwks_uri")?;
    let verified = decode(token, &key, &validation).context("a token of SuperOffice")?;
    Ok(verified.claims)
}

fn claim(claims: &Map<String, Json>, name: &str) -> anyhow::Result<String> {
    match claims.get(&format!("{CLAIM}{name}")) {
        Some(Json::String(text)) => Ok(text.clone()),
        Some(Json::Number(number)) => Ok(number.to_string()),
        _ => bail!("expected the claim {CLAIM}{name} in SuperOffice's token, found none"),
    }
}

/// The user's token with the minute and a signature of both.
fn signed(key: &RsaPrivateKey, user: &str, now: Timestamp) -> anyhow::Result<String> {
    let token = format!("{user}.{}", now.strftime("%Y%m%d%H%M"));
    let scheme = Pkcs1v15Sign {
        hash_len: Some(32),
        prefix: SHA256_PREFIX.into(),
    };
    let signature = key.sign(scheme, &Sha256::digest(token.as_bytes()));
    let signature = signature.context("cannot sign with rsa_private_key")?;
    Ok(format!("{token}.{}", STANDARD.encode(signature)))
}

/// The API's address without the customer: what stands before it in the state's `v1` or `Api`.
fn base_url(state: &Json, account: &str) -> anyhow::Result<String> {
    let address = state["v1"].as_str().or_else(|| state["Api"].as_str());
    let address = address.ok_or_else(|| anyhow!("expected v1 or Api in {account}'s state"))?;
    let before = address.split(&format!("/{account}")).next();
    let before = before.and_then(|before| before.split(account).next());
    Ok(before.unwrap_or(address).to_owned())
}

/// A private key in PEM form, or as .NET writes it in XML.
fn private_key(text: &str) -> anyhow::Result<RsaPrivateKey> {
    if text.contains("-----BEGIN") {
        let text = text.replace("\\n", "\n");
        return RsaPrivateKey::from_pkcs1_pem(&text)
            .or_else(|_| RsaPrivateKey::from_pkcs8_pem(&text))
            .map_err(|_| anyhow!("expected an RSA key in rsa_private_key, found a broken one"));
    }
    let number = |name: &str| -> anyhow::Result<BigUint> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let inner = text.split_once(&open);
        let inner = inner.and_then(|(_, rest)| Some(rest.split_once(&close)?.0));
        let digits: String = inner.unwrap_or_default().split_whitespace().collect();
        let bytes = STANDARD.decode(digits).unwrap_or_default();
        if bytes.is_empty() {
            bail!("expected <{name}> in rsa_private_key (XML, or PEM), found none");
        }
        Ok(BigUint::from_bytes_be(&bytes))
    };
    let primes = vec![number("P")?, number("Q")?];
    RsaPrivateKey::from_components(
        number("Modulus")?,
        number("Exponent")?,
        number("D")?,
        primes,
    )
    .map_err(|_| anyhow!("expected an RSA key in rsa_private_key, found a broken one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_customer_and_the_address_are_found() {
        assert_eq!(customer_of("8A:Cust41398.AeRx").unwrap(), "Cust41398");
        assert!(customer_of("opaque").is_err());
        let state = json!({"Api": "https://sod.superoffice.com:443/Cust41398/api"});
        let found = base_url(&state, "Cust41398").unwrap();
        assert_eq!(found, "https://sod.superoffice.com:443");
    }
}
