//! `custom_auth`: tokens that operations of the system fetch.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value as Json};
use sha2::{Digest as _, Sha256};
use tahini_entity::json::{Numbers, from_config, to_config};
use tahini_entity::{Dict, Value};
use tahini_hub::config::{Kind, Property, Props};
use tahini_hub::secrets::SecretSource;
use tahini_hub::{Cancel, Clock, Ctx, Failure};

use super::call::{Content, exchange};
use super::filters::{World, parse_moment};
use super::request::{Made, render};
use super::template::{Scope, Templates, Text};
use super::values::seen;
use crate::http::{HttpSystem, keep, locked};

/// The properties of `custom_auth`.
pub(super) const PROPERTIES: &[Property] = &[
    Property::required(
        "get_token_operation",
        Kind::String,
        "The operation that fetches an access token.",
    ),
    Property::new(
        "expires_at_expression",
        Kind::Template,
        "A template that gives the date at which the token expires.",
    ),
    Property::new(
        "expires_in_expression",
        Kind::Template,
        "A template that gives the number of seconds until the token expires.",
    ),
    Property::new(
        "refresh_window",
        Kind::Integer(0),
        "How many seconds before it expires a token is fetched again.",
    )
    .or("30"),
    Property::new(
        "initial_refresh_token",
        Kind::Object,
        "What `token` holds to begin with; what a new token brings of it is kept, encrypted.",
    ),
    Property::new(
        "get_refresh_token_operation",
        Kind::String,
        "An operation to perform before get_token_operation.",
    ),
    Property::new(
        "refresh_token_expires_at_expression",
        Kind::Template,
        "As expires_at_expression, for the outcome of get_refresh_token_operation.",
    ),
    Property::new(
        "refresh_token_expires_in_expression",
        Kind::Template,
        "As expires_in_expression, for the outcome of get_refresh_token_operation.",
    ),
    Property::new(
        "access_token_property",
        Kind::String,
        "Deprecated: the property of `token` that is bound to `access_token`, too.",
    ),
    Property::new(
        "refresh_token_property",
        Kind::String,
        "Deprecated: the property of `token` that is bound to `refresh_token`, too.",
    ),
];

/// `refresh_window` where the configuration says nothing, in seconds.
const REFRESH_WINDOW: i64 = 30;
/// What parts of a token are kept under, with the fingerprint of what the configuration begins with.
const KEPT: &str = "~token";
/// Shorter parts of a token are no secrets.
const SHORTEST: usize = 8;

/// Tokens of one system, fetched by one thread at a time.
pub(super) struct Custom {
    token_operation: String,
    refresh_operation: Option<String>,
    templates: Templates,
    expires: Expiry,
    refresh_expires: Expiry,
    window: SignedDuration,
    access_property: Option<String>,
    refresh_property: Option<String>,
    /// The names of `initial_refresh_token`.
    initial: Vec<String>,
    kept_as: String,
    system: String,
    secrets: Arc<dyn SecretSource>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

/// The expressions that say when something expires.
struct Expiry {
    at: Option<Text>,
    within: Option<Text>,
}

#[derive(Default)]
struct State {
    token: Dict,
    /// How many were fetched.
    number: u64,
    fetched: bool,
    expires: Option<Timestamp>,
    refreshed: bool,
    refresh_expires: Option<Timestamp>,
}

impl Custom {
    /// What a system's `custom_auth` says, if it has one.
    ///
    /// # Errors
    /// Config, where something is missing or no well-formed template.
    pub(super) fn of(ctx: &Ctx<'_>) -> Result<Option<Custom>, Failure> {
        let Some(map) = ctx.props.opt_object("custom_auth")? else {
            return Ok(None);
        };
        let path = format!("{}.custom_auth", ctx.props.path());
        let props = Props::new(&path, map);
        let mut templates = Templates::new(World {
            clock: Some(Arc::clone(ctx.clock)),
            secrets: Some((Arc::clone(ctx.secrets), ctx.owner.to_owned())),
        });
        let mut text = |name: &str| -> Result<Option<Text>, Failure> {
            let source = props.opt_str(name)?;
            source
                .map(|source| templates.text(source, &format!("{path}.{name}")))
                .transpose()
        };
        let expires = Expiry {
            at: text("expires_at_expression")?,
            within: text("expires_in_expression")?,
        };
        let refresh_expires = Expiry {
            at: text("refresh_token_expires_at_expression")?,
            within: text("refresh_token_expires_in_expression")?,
        };
        if expires.at.is_none() && expires.within.is_none() {
            let expected = "a template here or in expires_at_expression";
            return Err(props.wrong("expires_in_expression", expected, None));
        }
        let opt = |name: &str| -> Result<Option<String>, Failure> {
            Ok(props.opt_str(name)?.map(str::to_owned))
        };
        let initial = props.opt_object("initial_refresh_token")?;
        let initial = initial.cloned().unwrap_or_default();
        let digest = Sha256::digest(Json::Object(initial.clone()).to_string().as_bytes());
        let kept_as = format!("{KEPT}:{}", URL_SAFE_NO_PAD.encode(&digest[..12]));
        let kept = ctx.secrets.get(Some(ctx.owner), &kept_as);
        let kept = kept.and_then(|text| serde_json::from_str::<Map<String, Json>>(&text).ok());
        let mut begin = initial.clone();
        begin.extend(kept.unwrap_or_default());
        let token = match from_config(&Json::Object(begin), Numbers::FLOATS) {
            Value::Dict(dict) => dict,
            _ => Dict::new(),
        };
        Ok(Some(Custom {
            token_operation: props.str("get_token_operation")?.to_owned(),
            refresh_operation: opt("get_refresh_token_operation")?,
            templates,
            expires,
            refresh_expires,
            window: SignedDuration::from_secs(props.int("refresh_window", REFRESH_WINDOW)?),
            access_property: opt("access_token_property")?,
            refresh_property: opt("refresh_token_property")?,
            initial: initial.keys().cloned().collect(),
            kept_as,
            system: ctx.owner.to_owned(),
            secrets: Arc::clone(ctx.secrets),
            clock: Arc::clone(ctx.clock),
            state: Mutex::new(State {
                token,
                ..State::default()
            }),
        }))
    }

    /// Binds `token`, fetched if there is none that lasts, and returns its number.
    ///
    /// # Errors
    /// Those of the operations; cancelled, also while another run fetches the token.
    pub(super) fn bind(
        &self,
        scope: &mut Scope,
        system: &HttpSystem,
        cancel: &Cancel,
    ) -> Result<u64, Failure> {
        let mut state = locked(&self.state, cancel)?;
        if !state.fetched || !self.lasts(state.expires) {
            self.fetch(&mut state, system, cancel)
                .map_err(|failure| failure.context("an access token was not given"))?;
        }
        self.bound(scope, &state.token);
        Ok(state.number)
    }

    /// The token of that number was refused: the next request fetches another, unless there is
    /// one already.
    pub(super) fn refused(&self, number: u64) {
        if let Ok(mut state) = self.state.lock()
            && state.number == number
        {
            state.fetched = false;
        }
    }

    fn lasts(&self, until: Option<Timestamp>) -> bool {
        until.is_none_or(|until| self.clock.now() + self.window < until)
    }

    fn bound(&self, scope: &mut Scope, token: &Dict) {
        scope.set("token", seen(&Value::Dict(token.clone())));
        for (name, property) in [
            ("access_token", &self.access_property),
            ("refresh_token", &self.refresh_property),
        ] {
            if let Some(value) = property.as_ref().and_then(|property| token.get(property)) {
                scope.set(name, seen(value));
            }
        }
    }

    fn fetch(
        &self,
        state: &mut State,
        system: &HttpSystem,
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        let before = self.parts(&state.token);
        if let Some(name) = &self.refresh_operation
            && (!state.refreshed || !self.lasts(state.refresh_expires))
        {
            self.perform(name, &mut state.token, system, cancel)?;
            state.refresh_expires = self.expiry(&self.refresh_expires, &state.token)?;
            state.refreshed = true;
            tell_expiry(&mut state.token, "refresh_token_", state.refresh_expires);
        }
        self.perform(&self.token_operation, &mut state.token, system, cancel)?;
        state.expires = self.expiry(&self.expires, &state.token)?;
        state.fetched = true;
        state.number += 1;
        tell_expiry(&mut state.token, "", state.expires);
        let after = self.parts(&state.token);
        if after != before {
            let text = Json::Object(after).to_string();
            keep(&*self.secrets, &self.system, &self.kept_as, &text)?;
        }
        Ok(())
    }

    /// The parts of a token that the configuration gave first, as they are now.
    fn parts(&self, token: &Dict) -> Map<String, Json> {
        let parts = self.initial.iter();
        let parts = parts.filter_map(|name| Some((name.clone(), to_config(token.get(name)?))));
        parts.collect()
    }

    /// Performs an operation and takes its outcome into the token.
    fn perform(
        &self,
        name: &str,
        token: &mut Dict,
        system: &HttpSystem,
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        let rest = system
            .rest()
            .ok_or_else(|| Failure::config("expected a system of type system:rest"))?;
        let operation = rest.token_operation(name)?;
        let mut made = Made::default();
        let properties = operation.properties.clone().unwrap_or_default();
        made.scope.set("properties", seen(&Value::Dict(properties)));
        self.bound(&mut made.scope, token);
        let named = |failure: Failure| failure.context(format_args!("operation {name:?}"));
        let rendered = render(&operation, &made, |url| system.address(url, cancel));
        let request = rendered.map_err(named)?.request;
        let answer = exchange(system, &request, false, cancel).map_err(named)?;
        if !operation.statuses.allows(answer.status) {
            let (what, body) = (&answer.what, &answer.bytes);
            let failure = system.refused_with(what, answer.status, &answer.headers, body);
            return Err(named(failure));
        }
        let result = match &answer.content {
            Content::Json(_) => answer.result(operation.payload_property.as_deref()),
            Content::Other(value) => Some(value),
            Content::Nothing => None,
        };
        match result {
            Some(Value::Dict(dict)) => {
                for (name, value) in dict.iter() {
                    self.hide(value, system);
                    token.set(name.clone(), value.clone());
                }
            }
            Some(other) if !other.is_null() => {
                self.hide(other, system);
                token.set("value", other.clone());
            }
            _ => {
                let words = "expected a token in the answer, found nothing";
                return Err(named(Failure::transient(words)));
            }
        }
        Ok(())
    }

    fn hide(&self, value: &Value, system: &HttpSystem) {
        if let Some(text) = value.as_str().filter(|text| text.len() >= SHORTEST) {
            system.client().hide(text);
        }
    }

    fn expiry(&self, expiry: &Expiry, token: &Dict) -> Result<Option<Timestamp>, Failure> {
        let mut scope = Scope::default();
        self.bound(&mut scope, token);
        if let Some(at) = &expiry.at {
            let text = self.templates.render_or_empty(at, &scope)?;
            if let Some(at) = parse_moment(&text) {
                return Ok(Some(at));
            }
        }
        if let Some(within) = &expiry.within {
            let text = self.templates.render_or_empty(within, &scope)?;
            if let Ok(seconds) = text.trim().parse::<f64>() {
                let seconds = SignedDuration::from_secs(seconds as i64);
                return Ok(Some(self.clock.now() + seconds));
            }
        }
        Ok(None)
    }
}

fn tell_expiry(token: &mut Dict, prefix: &str, at: Option<Timestamp>) {
    let (seconds, date) = match prefix {
        "" => ("expires_at".to_owned(), "expiry_date".to_owned()),
        prefix => (
            format!("{prefix}expires_at"),
            format!("{prefix}expiry_date"),
        ),
    };
    if let Some(at) = at {
        token.set(seconds.as_str(), Value::Int(at.as_second()));
        let text = format!("{:.0}", at);
        token.set(date.as_str(), Value::string(text));
    }
}
