//! Performing operations: sending, waiting where requests come too fast, reading answers.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use minijinja::Value as Seen;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use serde_json::{Map, Value as Json};
use tahini_entity::json::{Numbers, parse_plain};
use tahini_entity::{Dict, Value};
use tahini_hub::config::Props;
use tahini_hub::{Cancel, Class, Clock, Ctx, Failure};

use super::operation::{Operation, Rates};
use super::request::{Made, Rendered, render};
use super::status::Statuses;
use super::system::RestPart;
use super::values::seen;
use crate::http::{Came, HttpSystem, Request, Trace, retry_after};

/// The most bytes that one answer may have; it is held in memory as a whole.
const MAX_ANSWER_BYTES: usize = 512 * 1024 * 1024;
/// The longest that a request waits because the server says that it came too fast.
const MAX_RATE_DELAY: Duration = Duration::from_secs(3600);
/// `rate_limiting_delay` where the configuration says nothing.
const RATE_DELAY: u64 = 1;
/// The status with which a server says that requests come too fast.
const TOO_MANY: u16 = 429;
/// The status with which a server refuses credentials.
const UNAUTHORIZED: u16 = 401;

/// A component that performs operations of a `rest` system.
pub(super) struct Caller {
    pub(super) system: HttpSystem,
    rest: Arc<RestPart>,
    /// The component's configuration.
    map: Map<String, Json>,
    path: String,
    operations: RefCell<HashMap<String, Arc<Operation>>>,
    /// Whether `allowed_status_codes` and `ignored_status_codes` count; they do in transforms.
    judges: bool,
    trace: Option<Arc<Trace>>,
    clock: Arc<dyn Clock>,
    cancel: Cancel,
}

/// An answer that was read to its end.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) content: Content,
    /// The request, as messages name it.
    pub(super) what: String,
    pub(super) bytes: Arc<Vec<u8>>,
}

/// What an answer says.
#[derive(Clone)]
pub(super) enum Content {
    /// JSON.
    Json(Value),
    /// Text, or bytes where it is none.
    Other(Value),
    /// Nothing.
    Nothing,
}

impl Caller {
    /// The caller of a component.
    ///
    /// # Errors
    /// Config, where its system is no `rest` system.
    pub(super) fn of(ctx: &Ctx<'_>, judges: bool) -> Result<Caller, Failure> {
        let system = HttpSystem::of(ctx)?;
        let Some(rest) = system.rest().cloned() else {
            let found = ctx.props.get("system");
            let expected = "a system of type system:rest";
            return Err(ctx.props.wrong("system", expected, found));
        };
        // A component that names its operation learns here whether it is there.
        let caller = Caller {
            system,
            rest,
            map: ctx.props.map().clone(),
            path: ctx.props.path().to_owned(),
            operations: RefCell::default(),
            judges,
            trace: Trace::of(ctx)?.map(Arc::new),
            clock: Arc::clone(ctx.clock),
            cancel: ctx.cancel.clone(),
        };
        if let Some(name) = ctx.props.opt_str("operation")? {
            caller.operation(name)?;
        }
        Ok(caller)
    }

    /// The operation `name`, compiled when it is asked for first.
    ///
    /// # Errors
    /// Config, where there is none or it cannot be compiled.
    pub(super) fn operation(&self, name: &str) -> Result<Arc<Operation>, Failure> {
        if let Some(known) = self.operations.borrow().get(name) {
            return Ok(Arc::clone(known));
        }
        let component = Props::new(&self.path, &self.map);
        let mut operation = self.rest.operation(name, component)?;
        if !self.judges {
            operation.statuses = Statuses::usual();
        }
        let operation = Arc::new(operation);
        let mut operations = self.operations.borrow_mut();
        operations.insert(name.to_owned(), Arc::clone(&operation));
        Ok(operation)
    }

    /// The operation that an entity asks for, or else the component's own.
    ///
    /// # Errors
    /// Entity, where there is none of that name; config, where that is the component's fault.
    pub(super) fn operation_of(&self, entity: &Dict) -> Result<Arc<Operation>, Failure> {
        if let Some(Value::String(name)) = entity.get("operation") {
            return self.operation(name).map_err(|failure| {
                let entity = Failure::entity(failure.message);
                entity.context("the entity's operation")
            });
        }
        match self.map.get("operation").and_then(Json::as_str) {
            Some(name) => self.operation(name),
            None => Err(Failure::entity(format!(
                "expected the name of an operation in the entity's property operation, or in \
                 {}.operation, found neither",
                self.path
            ))),
        }
    }

    /// The variables of an entity's templates, and its payload.
    pub(super) fn made(&self, operation: &Operation, entity: Option<&Dict>) -> Made {
        let mut made = Made::default();
        let own = entity.and_then(|entity| entity.get("properties"));
        let own = own.filter(|own| matches!(own, Value::Dict(_)));
        let properties = operation.properties.clone().unwrap_or_default();
        let properties = own.cloned().unwrap_or(Value::Dict(properties));
        made.scope.set("properties", seen(&properties));
        if let Some(size) = operation.page_size {
            made.scope.set("page_size", Seen::from(size));
        }
        if let Some(entity) = entity {
            made.scope = made.scope.with_entity(entity);
            // What is sent in a request that asks for something is the operation's alone.
            let sends = !matches!(operation.method.as_str(), "GET" | "HEAD" | "OPTIONS");
            let payload = entity
                .get("payload")
                .filter(|payload| sends && !payload.is_null());
            made.payload = payload.cloned();
        }
        made
    }

    /// Renders a request of the operation, with the token that counts now.
    ///
    /// # Errors
    /// Entity, where a template cannot be rendered; those of fetching a token.
    pub(super) fn render(&self, operation: &Operation, made: &Made) -> Result<Rendered, Failure> {
        let mut made = made.clone();
        let token = match &self.rest.custom {
            Some(custom) => custom.bind(&mut made.scope, &self.system, &self.cancel)?,
            None => 0,
        };
        let rendered = render(operation, &made, |url| {
            self.system.address(url, &self.cancel)
        });
        match rendered {
            Ok(rendered) => Ok(Rendered { token, ..rendered }),
            Err(failure) => Err(named(operation, failure)),
        }
    }

    /// Sends a rendered request and reads the answer, whatever its status. `foreign` keeps the
    /// system's credentials back.
    ///
    /// # Errors
    /// Transient, where there is no answer or it breaks off; cancelled.
    pub(super) fn send(
        &self,
        operation: &Operation,
        made: &Made,
        rendered: &Rendered,
        foreign: bool,
    ) -> Result<Answer, Failure> {
        let rates = self.rates(operation);
        let answer = self.pace().send(&rendered.request, rates, foreign);
        self.settled(answer, (operation, made, rendered), foreign)
    }

    /// What a request came to: a failure is named by its operation, and of an answer that refuses
    /// the token of its request that to the same request counts, with a token that was fetched
    /// since. One that is refused, too, is the answer.
    fn settled(
        &self,
        answer: Result<Answer, Failure>,
        (operation, made, rendered): (&Operation, &Made, &Rendered),
        foreign: bool,
    ) -> Result<Answer, Failure> {
        let answer = answer.map_err(|failure| named(operation, failure))?;
        let refuses = !foreign && answer.status == UNAUTHORIZED;
        let Some(custom) = self.rest.custom.as_ref().filter(|_| refuses) else {
            return Ok(answer);
        };
        custom.refused(rendered.token);
        let again = self.render(operation, made)?;
        let rates = self.rates(operation);
        let answer = self.pace().send(&again.request, rates, false);
        answer.map_err(|failure| named(operation, failure))
    }

    /// The operation's rates, and the system's where it says nothing.
    fn rates(&self, operation: &Operation) -> Rates {
        operation.rates.or(self.rest.rates)
    }

    /// Sends several rendered requests at once and reads their answers, in the order of the
    /// requests. One that is refused for want of a token is sent again after the others.
    pub(super) fn send_all(
        &self,
        all: &[(Arc<Operation>, Made, Rendered)],
    ) -> Vec<Result<Answer, Failure>> {
        if let [(operation, made, rendered)] = all {
            return vec![self.send(operation, made, rendered, false)];
        }
        let pace = self.pace();
        let answers: Vec<Result<Answer, Failure>> = std::thread::scope(|scope| {
            let pace = &pace;
            let threads: Vec<_> = all
                .iter()
                .map(|(operation, _, rendered)| {
                    let rates = self.rates(operation);
                    scope.spawn(move || pace.send(&rendered.request, rates, false))
                })
                .collect();
            let joined = threads.into_iter().map(|thread| {
                let defect = |_| Err(Failure::fatal(DEFECT));
                thread.join().unwrap_or_else(defect)
            });
            joined.collect()
        });
        let answers = answers.into_iter().zip(all);
        answers
            .map(|(answer, (operation, made, rendered))| {
                self.settled(answer, (operation, made, rendered), false)
            })
            .collect()
    }

    fn pace(&self) -> Pace {
        Pace {
            system: self.system.clone(),
            trace: self.trace.clone(),
            clock: Arc::clone(&self.clock),
            cancel: self.cancel.clone(),
        }
    }

    /// Begins to send a rendered request; what else there is to do can be done meanwhile.
    pub(super) fn begin(
        &self,
        operation: &Operation,
        rendered: &Rendered,
        foreign: bool,
    ) -> Result<UnderWay, Failure> {
        let rates = self.rates(operation);
        let (pace, request) = (self.pace(), rendered.request.clone());
        let thread = Builder::new().name("next page".to_owned());
        let thread = thread.spawn(move || pace.send(&request, rates, foreign));
        thread.map(UnderWay).map_err(|error| {
            Failure::transient(format!(
                "expected a thread to read ahead on, found none: {error}"
            ))
        })
    }

    /// Waits for the answer to a request that was begun. One that was refused for want of a token
    /// is made again.
    pub(super) fn end(
        &self,
        under_way: UnderWay,
        asked: (&Operation, &Made, &Rendered),
        foreign: bool,
    ) -> Result<Answer, Failure> {
        let answer = under_way.0.join();
        let answer = answer.unwrap_or_else(|_| Err(Failure::fatal(DEFECT)));
        self.settled(answer, asked, foreign)
    }

    /// The failure that an answer is whose status is not allowed; a `foreign` one was asked for
    /// without credentials.
    pub(super) fn refused(&self, operation: &Operation, answer: &Answer, foreign: bool) -> Failure {
        let mut failure =
            self.system
                .refused_with(&answer.what, answer.status, &answer.headers, &answer.bytes);
        let renews = !foreign && (self.system.fetches_tokens() || self.rest.custom.is_some());
        if answer.status == UNAUTHORIZED && renews {
            failure
                .message
                .push_str("; a token that was fetched anew was refused, too");
        }
        named(operation, failure)
    }
}

/// The failure of an operation, by its name.
fn named(operation: &Operation, failure: Failure) -> Failure {
    match failure.class {
        Class::Cancelled => failure,
        _ => failure.context(format_args!("operation {:?}", operation.name)),
    }
}

/// A request that was begun.
pub(super) struct UnderWay(JoinHandle<Result<Answer, Failure>>);

/// What a thread tells that did not end as it should.
const DEFECT: &str = "a request met a defect in the program; the node's log has the panic";

/// What sending a request takes; any thread may have it.
struct Pace {
    system: HttpSystem,
    trace: Option<Arc<Trace>>,
    clock: Arc<dyn Clock>,
    cancel: Cancel,
}

impl Pace {
    fn send(&self, request: &Request, rates: Rates, foreign: bool) -> Result<Answer, Failure> {
        let mut left = rates.retries.unwrap_or(0);
        loop {
            let started = Instant::now();
            let outcome = exchange(&self.system, request, foreign, &self.cancel);
            if let Some(trace) = &self.trace {
                let came = match &outcome {
                    Ok(answer) => Came::Answer(answer.status, &answer.headers, &answer.bytes),
                    Err(failure) => Came::Failure(failure),
                };
                trace.tell(request, &came, started.elapsed(), self.system.client());
            }
            let answer = outcome?;
            if answer.status != TOO_MANY || left == 0 {
                return Ok(answer);
            }
            left -= 1;
            let asked = retry_after(&answer.headers, self.clock.now());
            let own = Duration::from_secs(rates.delay.unwrap_or(RATE_DELAY));
            let pause = asked.unwrap_or(own).min(MAX_RATE_DELAY);
            tracing::debug!(request = answer.what, ?pause, left, "too many requests");
            self.cancel.sleep(pause)?;
        }
    }
}

/// Sends a request once and reads the whole answer.
///
/// # Errors
/// Transient, where there is no answer, it breaks off or is no JSON; cancelled.
pub(super) fn exchange(
    system: &HttpSystem,
    request: &Request,
    foreign: bool,
    cancel: &Cancel,
) -> Result<Answer, Failure> {
    let response = if foreign {
        let mut bare = request.clone();
        let secret: Vec<_> = bare
            .headers
            .iter()
            .filter(|(name, value)| value.is_sensitive() || **name == AUTHORIZATION)
            .map(|(name, _)| name.clone())
            .collect();
        for name in secret {
            bare.headers.remove(name);
        }
        system.client().exchange(bare, cancel)?
    } else {
        system.exchange(request, cancel)?
    };
    let mut body = response.body;
    let what = body.request().to_owned();
    let bytes = body.read_up_to(MAX_ANSWER_BYTES + 1)?;
    if bytes.len() > MAX_ANSWER_BYTES {
        return Err(Failure::fatal(format!(
            "{what}: expected an answer of at most {MAX_ANSWER_BYTES} bytes, found more; ask for \
             smaller pages"
        )));
    }
    let kind = response.headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_json = system.rest().is_some_and(|rest| rest.is_json(kind));
    let content = content(&bytes, is_json, response.status, &what)?;
    Ok(Answer {
        status: response.status,
        headers: response.headers,
        content,
        what,
        bytes: Arc::new(bytes),
    })
}

fn content(bytes: &[u8], is_json: bool, status: u16, what: &str) -> Result<Content, Failure> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Content::Nothing);
    }
    if is_json {
        match parse_plain(bytes, Numbers::FLOATS) {
            Ok(value) => return Ok(Content::Json(value)),
            // What a refusal says explains it, whatever it calls itself.
            Err(_) if !(200..300).contains(&status) => {}
            Err(error) => {
                let mut failure = Failure::transient(format!(
                    "{what}: expected JSON, as its Content-Type says, found: {error}"
                ));
                failure.reached = true;
                return Err(failure);
            }
        }
    }
    let value = match std::str::from_utf8(bytes) {
        Ok(text) => Value::string(text),
        Err(_) => Value::Bytes(bytes.iter().copied().collect()),
    };
    Ok(Content::Other(value))
}

impl Answer {
    /// The elements of a JSON answer: those of the list that `payload_property` names, or else
    /// what is there alone. Empty where there is nothing, or the answer is no JSON.
    pub(super) fn elements(&self, payload_property: Option<&str>) -> Vec<Value> {
        match self.result(payload_property) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::List(items)) => items.iter().cloned().collect(),
            Some(one) => vec![one.clone()],
        }
    }

    /// The part of a JSON answer that `payload_property` names: the property of that name, or
    /// else what stands at that path. `None` where there is none, or the answer is no JSON.
    pub(super) fn result(&self, payload_property: Option<&str>) -> Option<&Value> {
        let Content::Json(value) = &self.content else {
            return None;
        };
        let Some(path) = payload_property else {
            return Some(value);
        };
        let Value::Dict(dict) = value else {
            return None;
        };
        if let Some(found) = dict.get(path) {
            return Some(found);
        }
        path.split('.').try_fold(value, |value, name| match value {
            Value::Dict(dict) => dict.get(name),
            _ => None,
        })
    }
}
