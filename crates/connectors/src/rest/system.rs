//! The `rest` system: a web server with named operations.

use std::sync::Arc;

use reqwest::header::HeaderMap;
use serde_json::{Map, Value as Json};
use tahini_hub::config::{Kind, Property, Props};
use tahini_hub::registry::SystemDef;
use tahini_hub::{Ctx, Failure, System};

use super::filters::World;
use super::operation::{Operation, Rates};
use super::token::{self, Custom};
use crate::http::{HttpSystem, Place, headers, url as rows};

/// The row of `system:rest`.
pub const SYSTEM: SystemDef = SystemDef {
    name: "system:rest",
    summary: "A web server with a REST API: named operations that sources, transforms and sinks \
              perform.",
    properties: &[
        rows::URL_PATTERN,
        rows::BASE_URL,
        rows::VERIFY_SSL,
        rows::CUSTOM_CA,
        rows::CLIENT_CERTIFICATE,
        rows::USERNAME,
        rows::PASSWORD,
        rows::AUTHENTICATION,
        rows::JWT_TOKEN,
        Property::new(
            "headers",
            Kind::Object,
            "Headers of every request, name to text, which may be a template; those of an \
             operation win.",
        ),
        rows::OAUTH2,
        rows::TRIPLETEX,
        Property::new(
            "custom_auth",
            Kind::Nested(token::PROPERTIES),
            "Tokens that operations of this system fetch; templates find them in `token`.",
        ),
        Property::new(
            "operations",
            Kind::Each(super::rows::OPERATION_ROWS),
            "The operations by name.",
        ),
        super::rows::RATE_LIMITING_RETRIES,
        super::rows::RATE_LIMITING_DELAY,
        Property::new(
            "json_content_types",
            Kind::Strings,
            "Content types of answers that are JSON beside application/json.",
        ),
        rows::PROXIES,
        rows::CONNECT_TIMEOUT,
        rows::READ_TIMEOUT,
        rows::CONTENT_LENGTH,
        rows::RETRY_STRATEGY,
    ],
    open,
};

/// What a `rest` system has beside a `url` system.
pub struct RestPart {
    id: String,
    operations: Map<String, Json>,
    /// The system's headers as they were written.
    headers: Map<String, Json>,
    pub(super) rates: Rates,
    json_types: Vec<String>,
    pub(super) custom: Option<Custom>,
    pub(super) world: World,
}

fn open(ctx: &Ctx<'_>) -> Result<Arc<dyn System>, Failure> {
    let props = ctx.props;
    let written = props.opt_object("headers")?.cloned().unwrap_or_default();
    let is_template = |value: &Json| {
        let text = value.as_str().unwrap_or_default();
        text.contains("{{") || text.contains("{%")
    };
    // Requests that are no operations have those that need no template.
    let mut still = Map::new();
    let plain = written.iter().filter(|(_, value)| !is_template(value));
    still.insert(
        "headers".to_owned(),
        Json::Object(
            plain
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        ),
    );
    let sent: HeaderMap = headers(Props::new(props.path(), &still))?;
    let types = props.opt_list("json_content_types")?.into_iter().flatten();
    let part = RestPart {
        id: ctx.owner.to_owned(),
        operations: props.opt_object("operations")?.cloned().unwrap_or_default(),
        headers: written,
        rates: Rates::of(props)?,
        json_types: types
            .filter_map(Json::as_str)
            .map(str::to_ascii_lowercase)
            .collect(),
        custom: Custom::of(ctx)?,
        world: World {
            clock: Some(Arc::clone(ctx.clock)),
            secrets: Some((Arc::clone(ctx.secrets), ctx.owner.to_owned())),
        },
    };
    let system = HttpSystem::with(ctx, Place::of(props)?, sent, Some(Arc::new(part)))?;
    Ok(Arc::new(system))
}

impl RestPart {
    /// The operation `name` for a component: of its own `operations`, or of the system's.
    ///
    /// # Errors
    /// Config, where there is none or it cannot be compiled.
    pub(super) fn operation(&self, name: &str, component: Props<'_>) -> Result<Operation, Failure> {
        let own = component.opt_object("operations")?;
        let own = own.and_then(|own| own.get(name));
        let (path, found) = match own {
            Some(found) => (format!("{}.operations.{name}", component.path()), found),
            None => {
                let found = self
                    .operations
                    .get(name)
                    .ok_or_else(|| self.unknown(name, component))?;
                (format!("system {:?}: $.operations.{name}", self.id), found)
            }
        };
        let map = found.as_object().ok_or_else(|| {
            Failure::config(format!("{path}: expected an object, found something else"))
        })?;
        Operation::compile(
            name,
            (&path, map),
            component.map(),
            &self.headers,
            &self.world,
        )
    }

    /// The operation `name` of the system, for fetching a token: of the system's headers it has
    /// those that need none.
    ///
    /// # Errors
    /// Config, where there is none or it cannot be compiled.
    pub(super) fn token_operation(&self, name: &str) -> Result<Operation, Failure> {
        let path = format!("system {:?}: $.operations.{name}", self.id);
        let none = Map::new();
        let found = self.operations.get(name).and_then(Json::as_object);
        let map = found.ok_or_else(|| self.unknown(name, Props::new("$", &none)))?;
        let mut headers = self.headers.clone();
        headers.retain(|_, value| !value.as_str().is_some_and(|text| text.contains("token")));
        Operation::compile(name, (&path, map), &none, &headers, &self.world)
    }

    fn unknown(&self, name: &str, component: Props<'_>) -> Failure {
        let own = component.opt_object("operations").ok().flatten();
        let names = own
            .into_iter()
            .flat_map(Map::keys)
            .chain(self.operations.keys());
        let names: Vec<&str> = names.map(String::as_str).collect();
        let near = tahini_hub::config::nearest(name, names.iter().copied());
        let help = match (near, names.is_empty()) {
            (Some(near), _) => format!("; did you mean {near:?}?"),
            (None, true) => "; it has no operations".to_owned(),
            (None, false) => format!("; there are {}", names.join(", ")),
        };
        Failure::config(format!(
            "expected an operation of the system {:?}, found {name:?}{help}",
            self.id
        ))
    }

    /// Whether an answer of that `Content-Type` is JSON.
    pub(super) fn is_json(&self, content_type: &str) -> bool {
        let kind = content_type.split(';').next().unwrap_or_default();
        let kind = kind.trim().to_ascii_lowercase();
        kind == "application/json" || self.json_types.contains(&kind)
    }
}
