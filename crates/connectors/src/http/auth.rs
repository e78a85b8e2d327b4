//! Who we are to a server: the credentials of a system, and what becomes of them when the server
//! refuses them.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::Value as Json;
use tahini_hub::config::Props;
use tahini_hub::{Cancel, Ctx, Failure};

use super::client::{Client, Request};
use super::digest::Challenge;
use super::tokens::Tokens;

/// How a system says who we are.
pub(super) enum Auth {
    /// Not at all, or by a header `Authorization` that never changes.
    Still(Option<HeaderValue>),
    /// By answers to the server's challenges.
    Digest(Digest),
    /// By tokens that are fetched.
    Tokens(Arc<Tokens>),
}

/// The credentials of a system before its client is there.
pub(super) struct Credentials {
    /// What goes with every request.
    pub(super) auth: Auth,
    /// Values that no message may show.
    pub(super) secrets: Vec<String>,
}

impl Credentials {
    /// What the configuration asks for.
    ///
    /// # Errors
    /// Config, where something is missing, contradicts itself or is not supported.
    pub(super) fn of(ctx: &Ctx<'_>) -> Result<Credentials, Failure> {
        let props = ctx.props;
        let still = |header: Option<HeaderValue>, secrets: Vec<String>| Credentials {
            auth: Auth::Still(header),
            secrets,
        };
        let kind = props.opt_str("authentication")?.unwrap_or("none");
        if props.get("oauth2").is_some() {
            if kind != "none" {
                return Err(Failure::config(format!(
                    "{}.authentication: expected none beside oauth2, found {kind:?}",
                    props.path()
                )));
            }
            let (tokens, secrets) = Tokens::oauth2(ctx)?;
            return Ok(Credentials {
                auth: Auth::Tokens(Arc::new(tokens)),
                secrets,
            });
        }
        match kind {
            "none" => Ok(still(None, Vec::new())),
            "basic" | "digest" => {
                // Prototypes leave both null; they were warned of.
                if props.get("username").is_none() && props.get("password").is_none() {
                    return Ok(still(None, Vec::new()));
                }
                let username = props.str("username")?.to_owned();
                let password = hidden(props, "password")?;
                if kind == "digest" {
                    return Ok(Credentials {
                        secrets: vec![password.clone()],
                        auth: Auth::Digest(Digest::new(username, password)),
                    });
                }
                let token = STANDARD.encode(format!("{username}:{password}"));
                Ok(still(
                    Some(sensitive(&format!("Basic {token}"))?),
                    vec![password, token],
                ))
            }
            "jwt" => {
                let token = hidden(props, "jwt_token")?;
                Ok(still(
                    Some(sensitive(&format!("Bearer {token}"))?),
                    vec![token],
                ))
            }
            "tripletex" => {
                let (tokens, secrets) = Tokens::tripletex(ctx)?;
                Ok(Credentials {
                    auth: Auth::Tokens(Arc::new(tokens)),
                    secrets,
                })
            }
            other => Err(Failure::config(format!(
                "{}.authentication: expected none, basic, digest, jwt or tripletex, found \
                 {other:?}, which is not supported yet",
                props.path()
            ))),
        }
    }
}

/// A header's value that messages do not show.
///
/// # Errors
/// Config, where the text cannot be sent.
pub(super) fn sensitive(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        Failure::config("expected credentials that a header can hold, found other characters")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A text that must not be shown, not even when it is none.
pub(super) fn hidden(props: Props<'_>, name: &str) -> Result<String, Failure> {
    let text = props.get(name).and_then(Json::as_str);
    text.map(str::to_owned).ok_or_else(|| {
        Failure::config(format!(
            "{}.{name}: expected text, found none",
            props.path()
        ))
    })
}

impl Auth {
    /// Adds what says who we are.
    ///
    /// # Errors
    /// Those of fetching a token.
    pub(super) fn sign(
        &self,
        request: &mut Request,
        client: &Client,
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        let value = match self {
            Auth::Still(None) => return Ok(()),
            Auth::Still(Some(value)) => value.clone(),
            Auth::Digest(digest) => match digest.header(request) {
                Some(text) => sensitive(&text)?,
                None => return Ok(()),
            },
            Auth::Tokens(tokens) => sensitive(&tokens.header(client, cancel)?)?,
        };
        request.headers.insert(AUTHORIZATION, value);
        Ok(())
    }

    /// Whether the same request may be accepted now, after the server refused it with 401.
    pub(super) fn renew(&self, refused: &HeaderMap, sent: Option<&HeaderValue>) -> bool {
        match self {
            Auth::Still(_) => false,
            Auth::Digest(digest) => digest.challenged(refused, sent.is_some()),
            Auth::Tokens(tokens) => {
                tokens.refused(sent);
                true
            }
        }
    }
}

/// Digest authentication: user, password and the server's last challenge.
pub(super) struct Digest {
    username: String,
    password: String,
    /// The challenge, and how many requests answered it.
    last: Mutex<Option<(Challenge, u32)>>,
}

impl Digest {
    fn new(username: String, password: String) -> Digest {
        Digest {
            username,
            password,
            last: Mutex::default(),
        }
    }

    fn header(&self, request: &Request) -> Option<String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (challenge, count) = last.as_mut()?;
        *count += 1;
        let target = match request.url.query() {
            Some(query) => format!("{}?{query}", request.url.path()),
            None => request.url.path().to_owned(),
        };
        let cnonce = uuid::Uuid::new_v4().simple().to_string();
        Some(challenge.answer(
            (&self.username, &self.password),
            (request.method.as_str(), &target),
            *count,
            &cnonce,
        ))
    }

    fn challenged(&self, headers: &HeaderMap, answered: bool) -> bool {
        let Some(challenge) = Challenge::of(headers) else {
            return false;
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // The same challenge again means that the password is wrong.
        let is_new = last.as_ref().is_none_or(|(known, _)| *known != challenge);
        if is_new {
            *last = Some((challenge, 0));
        }
        is_new || !answered
    }
}
