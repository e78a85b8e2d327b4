//! The status page: one file, which talks to the API.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::{Answer, Call, Node};

const PAGE: &str = include_str!("../../ui/index.html");
/// What stands in the page where the nonce belongs.
const NONCE: &str = "TAHINI_NONCE";

/// The page, with a nonce of its own, so that no script but ours runs.
pub fn show(_: &Node, _: &Call) -> Answer {
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let mut response: Response = PAGE.replace(NONCE, &nonce).into_response();
    let headers = response.headers_mut();
    let policy = HeaderValue::from_str(&policy).expect("the policy is plain text");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}
