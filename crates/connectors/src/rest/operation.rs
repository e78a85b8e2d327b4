//! A named operation: a request to be, and what becomes of its answer.

use reqwest::Method;
use serde_json::{Map, Value as Json};
use tahini_entity::json::{Numbers, from_config};
use tahini_entity::{Dict, Value};
use tahini_hub::Failure;
use tahini_hub::config::Props;

use super::filters::World;
use super::payload::{PayloadType, Shape, pairs};
use super::rows::METHODS;
use super::status::Statuses;
use super::template::{Templates, Text};

/// Properties of an operation that a source, transform or sink may set itself.
const OVERRIDABLE: &[&str] = &[
    "payload",
    "properties",
    "response_property",
    "response_headers_property",
    "response_status_property",
    "payload_property",
    "id_expression",
    "updated_expression",
    "since_property_name",
    "since_property_location",
    "allowed_status_codes",
    "ignored_status_codes",
    "rate_limiting_retries",
    "rate_limiting_delay",
];

/// The property for an answer where nothing else is said.
const RESPONSE: &str = "response";

/// The most requests of one operation that may be under way at once.
const MAX_PARALLEL: i64 = 32;

/// When paging is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Termination {
    EmptyResult,
    SameNextPageLink,
    NextPageLinkEmpty,
    SameNextPageRequest,
    SameResponse,
    NotFullPage,
}

/// How often a request is sent again that came too fast, and how long that waits, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rates {
    pub(super) retries: Option<u64>,
    pub(super) delay: Option<u64>,
}

impl Rates {
    /// `rate_limiting_retries` and `rate_limiting_delay`.
    ///
    /// # Errors
    /// Config, where one is no whole number of at least 0.
    pub(super) fn of(props: Props<'_>) -> Result<Rates, Failure> {
        let count = |name: &str| -> Result<Option<u64>, Failure> {
            let wrong = || props.wrong(name, "a whole number of at least 0", props.get(name));
            let number = props.opt_int(name)?;
            number
                .map(|number| u64::try_from(number).map_err(|_| wrong()))
                .transpose()
        };
        Ok(Rates {
            retries: count("rate_limiting_retries")?,
            delay: count("rate_limiting_delay")?,
        })
    }

    /// These, and the others where these say nothing.
    pub(super) fn or(self, other: Rates) -> Rates {
        Rates {
            retries: self.retries.or(other.retries),
            delay: self.delay.or(other.delay),
        }
    }
}

/// Where requests of a source carry its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SinceLocation {
    Query,
    Header,
    Manual,
}

/// A compiled operation, with what the component that uses it says itself.
pub(super) struct Operation {
    pub(super) name: String,
    pub(super) templates: Templates,
    pub(super) method: Method,
    pub(super) url: Text,
    /// The system's headers, then the operation's.
    pub(super) headers: Vec<(Text, Shape)>,
    pub(super) params: Vec<(Text, Shape)>,
    /// The parameters look at the request's headers, or the headers at the parameters.
    pub(super) params_first: bool,
    pub(super) payload: Option<Shape>,
    pub(super) payload_type: PayloadType,
    pub(super) properties: Option<Dict>,
    pub(super) response_property: Option<String>,
    pub(super) response_headers_property: Option<String>,
    pub(super) response_status_property: Option<String>,
    pub(super) payload_property: Option<String>,
    pub(super) next_page_link: Option<Text>,
    pub(super) terminations: Vec<Termination>,
    pub(super) page_size: Option<u64>,
    pub(super) statuses: Statuses,
    pub(super) id_expression: Option<Text>,
    pub(super) updated_expression: Option<Text>,
    pub(super) error_expression: Option<Text>,
    pub(super) since_name: String,
    pub(super) since_location: SinceLocation,
    pub(super) rates: Rates,
    /// How many of its requests a sink may have under way at once, for different entities.
    pub(super) parallel: usize,
}

impl Operation {
    /// Compiles the operation `name` of this configuration at `path`, under what a component says
    /// itself; `headers` are the system's.
    ///
    /// # Errors
    /// Config, naming the property that is missing, of a wrong type or no well-formed template.
    pub(super) fn compile(
        name: &str,
        (path, written): (&str, &Map<String, Json>),
        component: &Map<String, Json>,
        headers: &Map<String, Json>,
        world: &World,
    ) -> Result<Operation, Failure> {
        let map = overridden(written, component);
        let props = Props::new(path, &map);
        let mut templates = Templates::new(world.clone());
        let empty = Map::new();
        let own = props.opt_object("headers")?.unwrap_or(&empty);
        let headers = pairs(
            &merged(headers, own),
            &mut templates,
            &format!("{path}.headers"),
        )?;
        let params = props.opt_object("params")?.unwrap_or(&empty);
        let params = pairs(params, &mut templates, &format!("{path}.params"))?;
        let payload = props
            .get("payload")
            .map(|payload| Shape::of(payload, &mut templates, &format!("{path}.payload")));
        let mut text = |name: &str| -> Result<Option<Text>, Failure> {
            let source = props.opt_str(name)?;
            source
                .map(|source| templates.text(source, &format!("{path}.{name}")))
                .transpose()
        };
        let url = text("url")?.ok_or_else(|| props.wrong("url", "text", None))?;
        let next_page_link = text("next_page_link")?;
        let id_expression = text("id_expression")?;
        let updated_expression = text("updated_expression")?;
        let error_expression = text("error_expression")?;
        let (page_size, terminations) = (page_size(props)?, terminations(props)?);
        if terminations.contains(&Termination::NotFullPage) && page_size.is_none() {
            return Err(props.wrong("page_size", "a number, for \"not-full-page\"", None));
        }
        let opt = |name: &str| -> Result<Option<String>, Failure> {
            Ok(props.opt_str(name)?.map(str::to_owned))
        };
        Ok(Operation {
            name: name.to_owned(),
            method: method(props)?,
            params_first: headers
                .iter()
                .any(|(_, value)| uses(value, &["params", "request_params"])),
            url,
            headers,
            params,
            payload: payload.transpose()?,
            payload_type: payload_type(props)?,
            properties: properties(props)?,
            response_property: opt("response_property")?,
            response_headers_property: opt("response_headers_property")?,
            response_status_property: opt("response_status_property")?,
            payload_property: opt("payload_property")?.filter(|name| !name.is_empty()),
            next_page_link,
            terminations,
            page_size,
            statuses: Statuses::of(props)?,
            id_expression,
            updated_expression,
            error_expression,
            since_name: opt("since_property_name")?.unwrap_or_else(|| "since".to_owned()),
            since_location: since_location(props)?,
            rates: Rates::of(props)?,
            parallel: parallel(props)?,
            templates,
        })
    }

    /// Whether there is more than one page.
    pub(super) fn is_paged(&self) -> bool {
        self.next_page_link.is_some()
    }

    /// The property for an answer, or for the part of one that is no JSON object.
    pub(super) fn response(&self) -> &str {
        self.response_property.as_deref().unwrap_or(RESPONSE)
    }
}

/// The operation as it was written, under what a component says itself.
fn overridden(written: &Map<String, Json>, component: &Map<String, Json>) -> Map<String, Json> {
    let mut map = written.clone();
    for (key, value) in component {
        if OVERRIDABLE.contains(&key.as_str()) && !value.is_null() {
            map.insert(key.clone(), value.clone());
        }
    }
    map
}

/// The system's headers, and the operation's in their place where both have the same name.
fn merged(system: &Map<String, Json>, own: &Map<String, Json>) -> Map<String, Json> {
    let mut all = system.clone();
    for (name, value) in own {
        all.retain(|known, _| !known.eq_ignore_ascii_case(name));
        all.insert(name.clone(), value.clone());
    }
    all
}

fn method(props: Props<'_>) -> Result<Method, Failure> {
    let wrong = || {
        let expected = format!("one of {}", METHODS.join(", "));
        props.wrong("method", &expected, props.get("method"))
    };
    let name = props.str("method")?;
    let known = METHODS.contains(&name);
    let method = known.then(|| Method::from_bytes(name.as_bytes()).ok());
    method.flatten().ok_or_else(wrong)
}

fn parallel(props: Props<'_>) -> Result<usize, Failure> {
    let name = "parallel_requests";
    let expected = format!("a whole number from 1 to {MAX_PARALLEL}");
    let wrong = || props.wrong(name, &expected, props.get(name));
    match props.opt_int(name)? {
        None => Ok(1),
        Some(number @ 1..=MAX_PARALLEL) => usize::try_from(number).map_err(|_| wrong()),
        Some(_) => Err(wrong()),
    }
}

fn uses(shape: &Shape, variables: &[&str]) -> bool {
    match shape {
        Shape::Scalar(_) => false,
        Shape::Text(text) => variables.iter().any(|variable| text.uses(variable)),
        Shape::List(items) => items.iter().any(|item| uses(item, variables)),
        Shape::Dict(pairs) => pairs.iter().any(|(_, value)| uses(value, variables)),
    }
}

fn page_size(props: Props<'_>) -> Result<Option<u64>, Failure> {
    let number = match props.get("page_size") {
        None => return Ok(None),
        // Templates of connectors make text of it.
        Some(Json::String(text)) => text.trim().parse().ok(),
        Some(other) => other.as_u64(),
    };
    let positive = number.filter(|number| *number > 0);
    let wrong = || {
        props.wrong(
            "page_size",
            "a whole number of at least 1",
            props.get("page_size"),
        )
    };
    positive.map(Some).ok_or_else(wrong)
}

fn terminations(props: Props<'_>) -> Result<Vec<Termination>, Failure> {
    let name = "next_page_termination_strategy";
    let expected = "empty-result, same-next-page-link, next-page-link-empty, \
                    same-next-page-request, same-response or not-full-page, or a list of them";
    let names: Vec<&Json> = match props.get(name) {
        None => {
            return Ok(vec![
                Termination::NextPageLinkEmpty,
                Termination::SameNextPageRequest,
                Termination::SameResponse,
            ]);
        }
        Some(Json::Array(all)) => all.iter().collect(),
        Some(one) => vec![one],
    };
    let named = names.into_iter().map(|one| {
        Ok(match one.as_str() {
            Some("empty-result") => Termination::EmptyResult,
            Some("same-next-page-link") => Termination::SameNextPageLink,
            Some("next-page-link-empty") => Termination::NextPageLinkEmpty,
            Some("same-next-page-request") => Termination::SameNextPageRequest,
            Some("same-response") => Termination::SameResponse,
            Some("not-full-page") => Termination::NotFullPage,
            _ => return Err(props.wrong(name, expected, Some(one))),
        })
    });
    named.collect()
}

fn payload_type(props: Props<'_>) -> Result<PayloadType, Failure> {
    let name = match props.get("payload_type") {
        Some(_) => "payload_type",
        None => "payload-type",
    };
    let Some(text) = props.opt_str(name)? else {
        return Ok(PayloadType::Json);
    };
    PayloadType::of(text).ok_or_else(|| {
        props.wrong(
            name,
            "text, json, json-transit, form or multipart-form",
            props.get(name),
        )
    })
}

fn properties(props: Props<'_>) -> Result<Option<Dict>, Failure> {
    let Some(map) = props.opt_object("properties")? else {
        return Ok(None);
    };
    match from_config(&Json::Object(map.clone()), Numbers::FLOATS) {
        Value::Dict(dict) => Ok(Some(dict)),
        _ => Ok(None),
    }
}

fn since_location(props: Props<'_>) -> Result<SinceLocation, Failure> {
    match props.opt_str("since_property_location")? {
        None | Some("query") => Ok(SinceLocation::Query),
        Some("header") => Ok(SinceLocation::Header),
        Some("manual") => Ok(SinceLocation::Manual),
        Some(_) => {
            let name = "since_property_location";
            Err(props.wrong(name, "query, header or manual", props.get(name)))
        }
    }
}
