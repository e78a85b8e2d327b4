//! Access tokens: fetched when they are needed, fetched again before they expire and after they
//! were refused, by one thread at a time.

use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde_json::{Map, Value as Json};
use sha2::{Digest as _, Sha256};
use tahini_hub::config::{Kind, Property, Props};
use tahini_hub::secrets::SecretSource;
use tahini_hub::{Cancel, Clock, Ctx, Failure};

use super::address::{add_parameter, parse};
use super::auth::{hidden, sensitive};
use super::body::CANCEL_POLL;
use super::client::{Client, Request};

/// How much of a token endpoint's answer is read.
const ANSWER_BYTES: usize = 1024 * 1024;
/// `refresh_window` where the configuration says nothing.
const REFRESH_WINDOW: i64 = 30;
/// `ttl` where the configuration says nothing, in hours.
const TTL_HOURS: i64 = 48;
/// What a rotated refresh token is kept under, with the fingerprint of the one it goes back to.
const KEPT: &str = "~oauth2";

/// The properties of `oauth2`.
pub(super) const OAUTH2: &[Property] = &[
    Property::required("client_id", Kind::String, "Who we are to the provider."),
    Property::new(
        "client_secret",
        Kind::String,
        "The secret that belongs to client_id.",
    ),
    Property::required(
        "token_url",
        Kind::String,
        "The address that gives out access tokens.",
    ),
    Property::new(
        "access_token",
        Kind::String,
        "A token to begin with; one is fetched when it is not there or not accepted.",
    ),
    Property::new(
        "refresh_token",
        Kind::String,
        "What access tokens are fetched with; a new one that the provider gives takes its place, \
         and is kept encrypted.",
    ),
    Property::new(
        "refresh_window",
        Kind::Integer(0),
        "How many seconds before it expires a token is fetched again.",
    )
    .or("30"),
    Property::new("scope", Kind::StringOrList, "What is asked for."),
    Property::new(
        "username",
        Kind::String,
        "With password: the user for whom tokens are fetched (password grant).",
    ),
    Property::new("password", Kind::String, "The password of username."),
    Property::new(
        "extra",
        Kind::Object,
        "More parameters of the token request; they win over ours.",
    ),
];

/// The properties of `tripletex`.
pub(super) const TRIPLETEX: &[Property] = &[
    Property::required("consumer_token", Kind::String, "The consumer's token."),
    Property::required("employee_token", Kind::String, "The employee's token."),
    Property::required(
        "token_url",
        Kind::String,
        "The address that creates sessions.",
    ),
    Property::new(
        "ttl",
        Kind::Integer(1),
        "How many hours a session is asked for; it lasts to the beginning of the day they end in.",
    )
    .or("48"),
];

/// Where a system's access tokens come from, and the one that counts now.
pub(super) struct Tokens {
    grant: Grant,
    token_url: Url,
    window: SignedDuration,
    clock: Arc<dyn Clock>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    access: Option<String>,
    expires: Option<Timestamp>,
    refresh: Option<String>,
    /// The provider wants id and secret of the client in a header, not in the form.
    basic: bool,
}

enum Grant {
    OAuth2(Box<OAuth2>),
    Tripletex {
        consumer: String,
        employee: String,
        hours: i64,
    },
}

struct OAuth2 {
    client_id: String,
    client_secret: Option<String>,
    scope: Option<String>,
    user: Option<(String, String)>,
    /// The refresh token of the configuration.
    configured: Option<String>,
    extra: Map<String, Json>,
    system: String,
    secrets: Arc<dyn SecretSource>,
}

/// A token endpoint's answer.
struct Answer(Map<String, Json>);

impl Tokens {
    /// The tokens of a system with the section `oauth2`, and the values that nobody may see.
    ///
    /// # Errors
    /// Config, where something is missing or of a wrong type.
    pub(super) fn oauth2(ctx: &Ctx<'_>) -> Result<(Tokens, Vec<String>), Failure> {
        let (path, map) = section(ctx.props, "oauth2")?;
        let props = Props::new(&path, map);
        let optional = |name: &str| -> Result<Option<String>, Failure> {
            props.get(name).map(|_| hidden(props, name)).transpose()
        };
        let scope = match props.get("scope") {
            None => None,
            Some(Json::String(one)) => Some(one.clone()),
            Some(Json::Array(all)) => {
                let all: Vec<&str> = all.iter().filter_map(Json::as_str).collect();
                Some(all.join(" "))
            }
            Some(other) => {
                return Err(props.wrong("scope", "text or a list of texts", Some(other)));
            }
        };
        let user = match (optional("username")?, optional("password")?) {
            (Some(name), Some(password)) => Some((name, password)),
            _ => None,
        };
        let oauth2 = OAuth2 {
            client_id: hidden(props, "client_id")?,
            client_secret: optional("client_secret")?,
            scope,
            user,
            configured: optional("refresh_token")?,
            extra: props.opt_object("extra")?.cloned().unwrap_or_default(),
            system: ctx.owner.to_owned(),
            secrets: Arc::clone(ctx.secrets),
        };
        let access = optional("access_token")?;
        let kept = oauth2.kept();
        let held = Held {
            expires: access.as_deref().and_then(expiry),
            // A token that was fetched since belongs to the refresh token that was kept.
            access: access.clone().filter(|_| kept.is_none()),
            refresh: kept.or_else(|| oauth2.configured.clone()),
            basic: false,
        };
        let mut secrets: Vec<String> = [&oauth2.client_secret, &oauth2.configured, &access]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        secrets.extend(held.refresh.clone());
        secrets.extend(oauth2.user.iter().map(|(_, password)| password.clone()));
        let extra = oauth2.extra.iter().filter(|(name, _)| is_secret(name));
        secrets.extend(extra.filter_map(|(_, value)| value.as_str().map(str::to_owned)));
        let tokens = Tokens {
            grant: Grant::OAuth2(Box::new(oauth2)),
            token_url: parse(props.str("token_url")?)?,
            window: SignedDuration::from_secs(props.int("refresh_window", REFRESH_WINDOW)?),
            clock: Arc::clone(ctx.clock),
            held: Mutex::new(held),
        };
        Ok((tokens, secrets))
    }

    /// The same with the section `tripletex`.
    ///
    /// # Errors
    /// Config, where something is missing or of a wrong type.
    pub(super) fn tripletex(ctx: &Ctx<'_>) -> Result<(Tokens, Vec<String>), Failure> {
        let (path, map) = section(ctx.props, "tripletex")?;
        let props = Props::new(&path, map);
        let consumer = hidden(props, "consumer_token")?;
        let employee = hidden(props, "employee_token")?;
        let secrets = vec![consumer.clone(), employee.clone()];
        let tokens = Tokens {
            grant: Grant::Tripletex {
                consumer,
                employee,
                hours: props.int("ttl", TTL_HOURS)?,
            },
            token_url: parse(props.str("token_url")?)?,
            window: SignedDuration::from_secs(REFRESH_WINDOW),
            clock: Arc::clone(ctx.clock),
            held: Mutex::default(),
        };
        Ok((tokens, secrets))
    }

    /// The header `Authorization`, with a token that is fetched if there is none that lasts.
    ///
    /// # Errors
    /// Those of the token endpoint; cancelled, at most a moment after the run was stopped, also
    /// while another run fetches the token.
    pub(super) fn header(&self, client: &Client, cancel: &Cancel) -> Result<String, Failure> {
        let mut held = locked(&self.held, cancel)?;
        let now = self.clock.now();
        let lasts = held
            .expires
            .is_none_or(|expires| now + self.window < expires);
        if held.access.is_none() || !lasts {
            self.fetch(&mut held, client, cancel)
                .map_err(|failure| failure.context("an access token was not given"))?;
        }
        let token = held.access.clone().unwrap_or_default();
        Ok(match self.grant {
            Grant::OAuth2(_) => format!("Bearer {token}"),
            Grant::Tripletex { .. } => {
                let encoded = STANDARD.encode(format!("0:{token}"));
                client.hide(&encoded);
                format!("Basic {encoded}")
            }
        })
    }

    /// Forgets the token that was refused, unless another is there already.
    pub(super) fn refused(&self, sent: Option<&HeaderValue>) {
        let Ok(mut held) = self.held.lock() else {
            return;
        };
        let current = held.access.as_ref().map(|token| match self.grant {
            Grant::OAuth2(_) => format!("Bearer {token}"),
            Grant::Tripletex { .. } => format!("Basic {}", STANDARD.encode(format!("0:{token}"))),
        });
        let sent = sent.and_then(|value| value.to_str().ok());
        if current.as_deref() == sent {
            held.access = None;
        }
    }

    fn fetch(&self, held: &mut Held, client: &Client, cancel: &Cancel) -> Result<(), Failure> {
        let oauth2 = match &self.grant {
            Grant::OAuth2(oauth2) => oauth2,
            Grant::Tripletex {
                consumer,
                employee,
                hours,
            } => return self.session(held, client, cancel, (consumer, employee, *hours)),
        };
        let mut answer = self.granted(oauth2, held, client, cancel);
        let refused = matches!(&answer, Err(failure) if matches!(failure.status, Some(400 | 401)));
        // The kept refresh token may be worth less than the one of the configuration.
        if refused && held.refresh != oauth2.configured && oauth2.configured.is_some() {
            held.refresh.clone_from(&oauth2.configured);
            answer = self.granted(oauth2, held, client, cancel);
        }
        let answer = answer?;
        let access = answer.text("access_token").ok_or_else(|| {
            Failure::transient(format!(
                "expected access_token in the answer of the token endpoint, found {}",
                answer.names()
            ))
        })?;
        client.hide(access);
        if let Some(fresh) = answer.text("refresh_token")
            && held.refresh.as_deref() != Some(fresh)
        {
            client.hide(fresh);
            // It is on the disk before it is used: the one before may be worth nothing now.
            oauth2.keep(fresh)?;
            held.refresh = Some(fresh.to_owned());
        }
        let seconds = answer.number("expires_in");
        held.expires = seconds
            .map(|seconds| self.clock.now() + SignedDuration::from_secs(seconds))
            .or_else(|| expiry(access));
        held.access = Some(access.to_owned());
        Ok(())
    }

    fn granted(
        &self,
        oauth2: &OAuth2,
        held: &mut Held,
        client: &Client,
        cancel: &Cancel,
    ) -> Result<Answer, Failure> {
        let first = self.ask(oauth2, held, client, cancel);
        let refused = matches!(&first, Err(failure) if failure.status == Some(401));
        if !refused || held.basic || oauth2.client_secret.is_none() {
            return first;
        }
        held.basic = true;
        let second = self.ask(oauth2, held, client, cancel);
        held.basic = second.is_ok();
        second
    }

    fn ask(
        &self,
        oauth2: &OAuth2,
        held: &Held,
        client: &Client,
        cancel: &Cancel,
    ) -> Result<Answer, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        if let Some(secret) = oauth2.client_secret.as_ref().filter(|_| held.basic) {
            let pair = STANDARD.encode(format!("{}:{secret}", oauth2.client_id));
            client.hide(&pair);
            headers.insert(AUTHORIZATION, sensitive(&format!("Basic {pair}"))?);
        }
        let form = oauth2.form(held);
        let request = Request {
            method: Method::POST,
            url: self.token_url.clone(),
            headers,
            body: Bytes::from(encoded(&form)),
        };
        answered(request, client, cancel)
    }

    /// Creates a session of the Tripletex API.
    fn session(
        &self,
        held: &mut Held,
        client: &Client,
        cancel: &Cancel,
        (consumer, employee, hours): (&str, &str, i64),
    ) -> Result<(), Failure> {
        let until = self.clock.now() + SignedDuration::from_hours(hours);
        let date = until.to_zoned(jiff::tz::TimeZone::UTC).date();
        let mut url = self.token_url.clone();
        add_parameter(&mut url, "consumerToken", consumer);
        add_parameter(&mut url, "employeeToken", employee);
        add_parameter(&mut url, "expirationDate", &date.to_string());
        let request = Request {
            method: Method::PUT,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        let answer = answered(request, client, cancel)?;
        let value = answer.0.get("value").and_then(Json::as_object);
        let token = value.and_then(|value| value.get("token")?.as_str());
        let token = token.ok_or_else(|| {
            Failure::transient(format!(
                "expected value.token in the answer of the token endpoint, found {}",
                answer.names()
            ))
        })?;
        client.hide(token);
        held.access = Some(token.to_owned());
        let midnight = date.to_zoned(jiff::tz::TimeZone::UTC);
        held.expires = midnight.ok().map(|at| at.timestamp());
        Ok(())
    }
}

impl OAuth2 {
    fn form(&self, held: &Held) -> Vec<(String, String)> {
        let mut form: Vec<(String, String)> = Vec::new();
        let mut set = |name: &str, value: &str| {
            form.retain(|(known, _)| known != name);
            form.push((name.to_owned(), value.to_owned()));
        };
        match (&held.refresh, &self.user) {
            (Some(refresh), _) => {
                set("grant_type", "refresh_token");
                set("refresh_token", refresh);
            }
            (None, Some((name, password))) => {
                set("grant_type", "password");
                set("username", name);
                set("password", password);
            }
            (None, None) => set("grant_type", "client_credentials"),
        }
        if !held.basic {
            set("client_id", &self.client_id);
            if let Some(secret) = &self.client_secret {
                set("client_secret", secret);
            }
        }
        if let Some(scope) = self.scope.as_ref().filter(|_| held.refresh.is_none()) {
            set("scope", scope);
        }
        for (name, value) in &self.extra {
            match value {
                Json::String(text) => set(name, text),
                Json::Null => {}
                other => set(name, &other.to_string()),
            }
        }
        form
    }

    /// Under which name a refresh token is kept that goes back to the configured one.
    fn kept_as(&self) -> Option<String> {
        let configured = self.configured.as_ref()?;
        let digest = Sha256::digest(format!("{}\n{configured}", self.client_id).as_bytes());
        Some(format!("{KEPT}:{}", URL_SAFE_NO_PAD.encode(&digest[..12])))
    }

    fn kept(&self) -> Option<String> {
        self.secrets.get(Some(&self.system), &self.kept_as()?)
    }

    fn keep(&self, refresh: &str) -> Result<(), Failure> {
        let Some(name) = self.kept_as() else {
            return Ok(());
        };
        keep(&*self.secrets, &self.system, &name, refresh)
    }
}

/// What threads share, for one of them at a time.
///
/// # Errors
/// Cancelled, at most a moment after the run of the thread that waits was stopped.
pub(crate) fn locked<'a, T>(
    shared: &'a Mutex<T>,
    cancel: &Cancel,
) -> Result<MutexGuard<'a, T>, Failure> {
    loop {
        match shared.try_lock() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(guard)) => return Ok(guard.into_inner()),
            Err(TryLockError::WouldBlock) => cancel.sleep(CANCEL_POLL)?,
        }
    }
}

/// Keeps a refresh token of a system under `name`, or says that it lives in memory only.
///
/// # Errors
/// Those of keeping it.
pub(crate) fn keep(
    secrets: &dyn SecretSource,
    system: &str,
    name: &str,
    text: &str,
) -> Result<(), Failure> {
    if !secrets.keep(system, name, text)? {
        tracing::warn!(
            system,
            "a new refresh token lives in memory only: this process keeps no secrets, so that the \
             next one begins with the token of the configuration"
        );
    }
    Ok(())
}

impl Answer {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// A whole number, also one that is written as text.
    fn number(&self, name: &str) -> Option<i64> {
        match self.0.get(name)? {
            Json::Number(number) => number.as_f64().map(|number| number as i64),
            Json::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// The names in it, for messages.
    fn names(&self) -> String {
        let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        match names.is_empty() {
            true => "nothing".to_owned(),
            false => names.join(", "),
        }
    }
}

fn answered(request: Request, client: &Client, cancel: &Cancel) -> Result<Answer, Failure> {
    let response = client.send(request, cancel)?;
    let mut body = response.body;
    let what = body.request().to_owned();
    let bytes = body.read_up_to(ANSWER_BYTES)?;
    match serde_json::from_slice(&bytes) {
        Ok(Json::Object(map)) => Ok(Answer(map)),
        _ => Err(Failure::transient(format!(
            "{what}: expected a JSON object, found {} bytes of something else",
            bytes.len()
        ))),
    }
}

fn section<'a>(props: Props<'a>, name: &str) -> Result<(String, &'a Map<String, Json>), Failure> {
    let map = props
        .opt_object(name)?
        .ok_or_else(|| props.wrong(name, "an object", None))?;
    Ok((format!("{}.{name}", props.path()), map))
}

fn is_secret(name: &str) -> bool {
    ["secret", "password", "token", "assertion", "key"]
        .iter()
        .any(|word| name.contains(word))
}

/// The pairs as an HTML form sends them.
pub(crate) fn encoded(form: &[(String, String)]) -> String {
    let mut url = Url::parse("http://h/").expect("a constant address");
    for (name, value) in form {
        add_parameter(&mut url, name, value);
    }
    url.query().unwrap_or_default().to_owned()
}

/// When a token that is a JSON Web Token says that it expires.
fn expiry(token: &str) -> Option<Timestamp> {
    let payload = token.split('.').nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Json = serde_json::from_slice(&bytes).ok()?;
    Timestamp::from_second(claims["exp"].as_i64()?).ok()
}
