//! Who may ask for what.

use std::net::{IpAddr, SocketAddr};

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use tahini_hub::execution_log::User;

use super::answer::Problem;
use super::{Access, Door, Route};
use crate::auth::TokenKey;
use crate::cli::Role;

/// The node's rule for letting requests in.
pub struct Gate {
    /// The key that tokens are signed with; without one no token is valid.
    pub key: Option<TokenKey>,
    /// Requests need a token: the node listens beyond loopback.
    pub demands_token: bool,
}

impl Gate {
    /// Whether a request that was let in comes from an admin, or needed no token.
    pub fn is_admin(&self, headers: &HeaderMap) -> bool {
        let Ok(Some(token)) = bearer(headers) else {
            return true;
        };
        let claims = self.key.as_ref().map(|key| key.verify(token));
        matches!(claims, Some(Ok(claims)) if claims.role == Role::Admin)
    }

    /// Lets a request in, or says why not.
    pub fn admit(
        &self,
        route: &Route,
        parts: &Parts,
        (door, peer): (Door, SocketAddr),
    ) -> Result<User, Problem> {
        let remote_addr = peer.ip().to_string();
        let anonymous = || anybody(peer);
        if route.access == Access::Open {
            return Ok(anonymous());
        }
        let Some(token) = bearer(&parts.headers)? else {
            if self.demands_token || door == Door::Containers {
                return Err(unauthorized("expected a bearer token, found none"));
            }
            refuse_foreign_pages(&parts.headers)?;
            return Ok(anonymous());
        };
        let Some(key) = &self.key else {
            return Err(unauthorized(
                "the node has no key, so that no token is valid; `tahini token create` makes one, \
                 and then the node has to be started again",
            ));
        };
        let claims = key.verify(token).map_err(unauthorized)?;
        let looks = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let refused = match (claims.role, route.access) {
            (Role::Admin, _) | (Role::Proxy, Access::Proxy) => None,
            (Role::Reader, Access::Usual | Access::Open) if looks => None,
            (Role::Reader, Access::Proxy) => {
                Some("expected a token with the role admin or proxy, found reader")
            }
            (Role::Reader, _) => Some("expected a token with the role admin, found reader"),
            (Role::Proxy, _) => Some(
                "expected a token with the role admin or reader, found proxy, which is for \
                 /api/systems/<id>/proxy/ alone",
            ),
        };
        if let Some(words) = refused {
            return Err(Problem::new(StatusCode::FORBIDDEN, words));
        }
        Ok(User {
            user_id: claims.subject,
            remote_addr,
        })
    }
}

/// Who asks without a token.
pub(super) fn anybody(peer: SocketAddr) -> User {
    User {
        user_id: "anonymous".to_owned(),
        remote_addr: peer.ip().to_string(),
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(unauthorized(
            "expected `Authorization: Bearer <token>`, found another form",
        )),
    }
}

fn unauthorized(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, detail)
}

/// Without tokens, any page in the user's browser could reach a node on loopback: only requests
/// that our own page or no page at all makes are taken, and only under a name of this machine,
/// so that a foreign name that resolves to it is of no use.
fn refuse_foreign_pages(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let forbidden = |words: String| Err(Problem::new(StatusCode::FORBIDDEN, words));
    let host = text(header::HOST).unwrap_or("localhost");
    if !is_loopback(host) {
        return forbidden(format!(
            "expected the Host localhost or a loopback address without a token, found {host:?}"
        ));
    }
    if let Some(origin) = text(header::ORIGIN) {
        let own = origin
            .split_once("://")
            .is_some_and(|(_, authority)| authority == host);
        if !own {
            return forbidden(format!(
                "expected no page but the node's own, found {origin:?}"
            ));
        }
    }
    if text(header::HeaderName::from_static("sec-fetch-site")) == Some("cross-site") {
        return forbidden("expected no page but the node's own, found another site's".to_owned());
    }
    Ok(())
}

/// Whether an authority (`name:port`) names this machine and nothing else.
fn is_loopback(authority: &str) -> bool {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for host in [
            "localhost:9042",
            "LOCALHOST",
            "127.0.0.1:1",
            "[::1]:9042",
            "127.8.8.8",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "evil.example:9042",
            "localhost.evil.example",
            "10.0.0.1:9042",
            "",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
