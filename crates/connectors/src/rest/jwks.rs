//! Sets of public keys that a server publishes (RFC 7517), kept for a while.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::JwkSet;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use tahini_hub::{Cancel, Clock};

use crate::http::{Client, Options, Request, is_near};

/// How long a set counts.
const KEPT: Duration = Duration::from_secs(300);
/// A set in which a key is missing is fetched anew, but not more often than this.
const SOONEST: Duration = Duration::from_secs(10);
/// How many sets are kept.
const MOST: usize = 64;
/// How long the server may take to answer.
const WITHIN: Duration = Duration::from_secs(10);
/// The most bytes that a set may have.
const BYTES: usize = 1 << 20;

type Kept = HashMap<String, (Instant, Arc<JwkSet>)>;

static SETS: LazyLock<Mutex<Kept>> = LazyLock::new(Mutex::default);

/// The set at this address, in which the key of that name should be.
///
/// # Errors
/// In words, where the address is none of https (or of this machine), or gives no set.
pub(super) fn set(
    address: &str,
    kid: Option<&str>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<JwkSet>, String> {
    let known = {
        let sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
        sets.get(address).cloned()
    };
    if let Some((at, set)) = known {
        let age = at.elapsed();
        let is_missing = kid.is_some_and(|kid| set.find(kid).is_none());
        if age < SOONEST || (age < KEPT && !is_missing) {
            return Ok(set);
        }
    }
    let set = Arc::new(fetched(address, clock)?);
    let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
    keep(&mut sets, address, &set);
    Ok(set)
}

/// Keeps a set in place of the one before of its address, or where there is room.
fn keep(sets: &mut Kept, address: &str, set: &Arc<JwkSet>) {
    if sets.len() >= MOST {
        sets.retain(|_, (at, _)| at.elapsed() < KEPT);
    }
    if sets.len() < MOST || sets.contains_key(address) {
        sets.insert(address.to_owned(), (Instant::now(), Arc::clone(set)));
    }
}

fn fetched(address: &str, clock: &Arc<dyn Clock>) -> Result<JwkSet, String> {
    let url = Url::parse(address).map_err(|error| format!("jwks_url is no address: {error}"))?;
    let is_near = is_near(&url);
    if url.scheme() != "https" && !is_near {
        return Err("expected an https address as jwks_url".to_owned());
    }
    let client = Client::new(Options {
        connect_timeout: WITHIN,
        read_timeout: WITHIN,
        verify_ssl: true,
        ca_pem: None,
        identity_pem: None,
        proxies: Vec::new(),
        environment_proxies: !is_near,
        secrets: Vec::new(),
        clock: Arc::clone(clock),
    });
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let request = Request {
        method: Method::GET,
        url,
        headers,
        body: Default::default(),
    };
    let bytes = client
        .and_then(|client| client.send(request, &Cancel::new()))
        .and_then(|mut response| response.body.read_up_to(BYTES))
        .map_err(|failure| format!("jwks_url: {failure}"))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| format!("jwks_url gives no set of keys: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_set_is_kept_anew_also_where_there_is_no_room() {
        let set = || Arc::new(JwkSet { keys: Vec::new() });
        let mut sets = Kept::new();
        for number in 0..MOST {
            keep(&mut sets, &number.to_string(), &set());
        }
        let newer = set();
        keep(&mut sets, "7", &newer);
        assert!(Arc::ptr_eq(&sets["7"].1, &newer));
        keep(&mut sets, "one more", &newer);
        assert_eq!((sets.len(), sets.contains_key("one more")), (MOST, false));
    }
}
