//! The pages of an operation: one answer after another until paging is over.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use minijinja::Value as Seen;
use reqwest::Url;
use tahini_entity::{Dict, Value};
use tahini_hub::Failure;

use super::call::{Answer, Caller, Content, UnderWay};
use super::operation::{Operation, Termination};
use super::request::{Made, Rendered};
use super::template::{Scope, Templates, Text};
use super::values::{Headers, seen};

/// The most pages of one operation.
const MAX_PAGES: u64 = 1_000_000;

/// An operation in the middle of its pages.
pub(super) struct Pages {
    made: Made,
    page: u64,
    before: Option<Before>,
    /// Requests with their answers: the same pair again means that paging goes in a circle.
    seen: HashSet<(u64, u64)>,
    done: bool,
    /// Whether the next page is asked for while this one is made use of.
    reads_ahead: bool,
    ahead: Option<Result<Option<Asked>, Failure>>,
}

/// A page that was asked for.
struct Asked {
    rendered: Rendered,
    foreign: bool,
    under_way: Option<UnderWay>,
}

/// The page before.
struct Before {
    rendered: Rendered,
    headers: reqwest::header::HeaderMap,
    body: Option<Value>,
    answered: u64,
    link: String,
}

/// A page that was read.
pub(super) struct Page {
    pub(super) answer: Answer,
    /// Its status is one that is left out.
    pub(super) ignored: bool,
    /// The variables of the expressions that look at the answer.
    pub(super) scope: Scope,
}

impl Pages {
    /// The pages of an operation, none read yet.
    pub(super) fn new(made: Made) -> Pages {
        Pages {
            made,
            page: 0,
            before: None,
            seen: HashSet::new(),
            done: false,
            reads_ahead: false,
            ahead: None,
        }
    }

    /// The same, of which the next one is asked for as soon as its request is known.
    pub(super) fn reading_ahead(made: Made) -> Pages {
        Pages {
            reads_ahead: true,
            ..Pages::new(made)
        }
    }

    /// Reads the next page; `None` when there is none.
    ///
    /// # Errors
    /// Those of the request; entity, with a status that is not allowed or where the operation's
    /// `error_expression` says something.
    pub(super) fn next(
        &mut self,
        caller: &Caller,
        operation: &Operation,
    ) -> Result<Option<Page>, Failure> {
        if self.done {
            return Ok(None);
        }
        let asked = match self.ahead.take() {
            Some(asked) => asked?,
            None => self.ask(caller, operation, false)?,
        };
        let Some(Asked {
            rendered,
            foreign,
            under_way,
        }) = asked
        else {
            self.done = true;
            return Ok(None);
        };
        let answer = match under_way {
            Some(under_way) => {
                caller.end(under_way, (operation, &self.made, &rendered), foreign)?
            }
            None => caller.send(operation, &self.made, &rendered, foreign)?,
        };
        let stops = |how: Termination| operation.terminations.contains(&how);
        if operation.statuses.ignores(answer.status) {
            self.done = true;
            let scope = self.made.scope.clone();
            return Ok(Some(Page {
                answer,
                ignored: true,
                scope,
            }));
        }
        if !operation.statuses.allows(answer.status) {
            return Err(caller.refused(operation, &answer, foreign));
        }
        let scope = self.answer_scope(&rendered, &answer);
        check_error(operation, &scope, &answer)?;
        // Of what has one page nobody compares another one.
        let answered = match operation.is_paged() {
            true => fingerprint(&answer),
            false => 0,
        };
        if self.page > 0
            && stops(Termination::SameResponse)
            && self
                .before
                .as_ref()
                .is_some_and(|before| before.answered == answered)
        {
            self.done = true;
            return Ok(None);
        }
        self.check_circle(operation, &rendered, answered, &answer)?;
        self.turn(operation, rendered, &answer, answered, &scope)?;
        if self.reads_ahead && !self.done {
            // What is wrong with it is told when it is its turn.
            self.ahead = Some(self.ask(caller, operation, true));
        }
        Ok(Some(Page {
            answer,
            ignored: false,
            scope,
        }))
    }

    /// Renders the request for the next page, and begins it if that is wanted; `None` where the
    /// strategies end paging there.
    fn ask(
        &mut self,
        caller: &Caller,
        operation: &Operation,
        begins: bool,
    ) -> Result<Option<Asked>, Failure> {
        self.bind(operation);
        let rendered = caller.render(operation, &self.made)?;
        let same = Termination::SameNextPageRequest;
        let before = self.before.as_ref();
        if operation.terminations.contains(&same)
            && before.is_some_and(|before| before.rendered.is(&rendered))
        {
            return Ok(None);
        }
        let foreign = self.is_foreign(caller, operation, &rendered);
        let under_way = match begins {
            true => Some(caller.begin(operation, &rendered, foreign)?),
            false => None,
        };
        Ok(Some(Asked {
            rendered,
            foreign,
            under_way,
        }))
    }

    /// Binds what the templates of this page's request look at.
    fn bind(&mut self, operation: &Operation) {
        let scope = &mut self.made.scope;
        if operation.is_paged() {
            scope.set("page", Seen::from(self.page));
            scope.set("is_first_page", Seen::from(self.page == 0));
        }
        let Some(before) = &self.before else {
            return;
        };
        match &before.body {
            Some(body) => scope.set("previous_body", seen(body)),
            None => scope.unset("previous_body"),
        }
        let headers = Seen::from_object(Headers::of(&before.headers));
        scope.set("previous_headers", headers);
        let headers = Seen::from_object(Headers::rendered(&before.rendered.headers));
        scope.set("previous_request_headers", headers);
        let params = Value::Dict(before.rendered.params.clone());
        scope.set("previous_params", seen(&params));
    }

    /// Whether an answer led to another server, which must not learn our credentials.
    fn is_foreign(&self, caller: &Caller, operation: &Operation, rendered: &Rendered) -> bool {
        let Some(link) = &operation.next_page_link else {
            return false;
        };
        let told = ["body", "headers", "response_headers"]
            .iter()
            .any(|name| link.uses(name));
        let home = self
            .before
            .as_ref()
            .map(|before| before.rendered.base.origin());
        let foreign = told && home.is_some_and(|home| home != rendered.base.origin());
        if foreign {
            let (here, there) = (
                caller.system.name(),
                rendered.base.host_str().unwrap_or_default(),
            );
            tracing::warn!(
                system = here,
                operation = operation.name,
                "the next page is at another server, {there}: it is asked without credentials"
            );
        }
        foreign
    }

    /// The variables of expressions that look at the answer.
    fn answer_scope(&self, rendered: &Rendered, answer: &Answer) -> Scope {
        let mut scope = self.made.scope.clone();
        rendered.bind(&mut scope);
        match &answer.content {
            Content::Json(body) | Content::Other(body) => scope.set("body", seen(body)),
            Content::Nothing => scope.unset("body"),
        }
        for name in ["headers", "response_headers"] {
            scope.set(name, Seen::from_object(Headers::of(&answer.headers)));
        }
        scope.set("status", Seen::from(answer.status));
        scope
    }

    fn check_circle(
        &mut self,
        operation: &Operation,
        rendered: &Rendered,
        answered: u64,
        answer: &Answer,
    ) -> Result<(), Failure> {
        if !operation.is_paged() {
            return Ok(());
        }
        let mut hasher = DefaultHasher::new();
        rendered.request.url.as_str().hash(&mut hasher);
        rendered.request.body.hash(&mut hasher);
        rendered.headers.hash(&mut hasher);
        if self.seen.insert((hasher.finish(), answered)) && self.page < MAX_PAGES {
            return Ok(());
        }
        let found = if self.page < MAX_PAGES {
            "one that was asked for and answered before"
        } else {
            "the one after the last that may be"
        };
        Err(Failure::fatal(format!(
            "{}: expected a page that is new, found {found}, the {}th; \
             next_page_termination_strategy says when paging is over",
            answer.what,
            self.page + 1
        )))
    }

    /// Goes on behind a page that was read, or ends.
    fn turn(
        &mut self,
        operation: &Operation,
        rendered: Rendered,
        answer: &Answer,
        answered: u64,
        scope: &Scope,
    ) -> Result<(), Failure> {
        let Some(template) = &operation.next_page_link else {
            self.done = true;
            return Ok(());
        };
        let stops = |how: Termination| operation.terminations.contains(&how);
        let found = elements(answer.result(operation.payload_property.as_deref()));
        if stops(Termination::EmptyResult) && found == 0 {
            self.done = true;
        }
        if stops(Termination::NotFullPage) && operation.page_size.is_some_and(|size| found < size) {
            self.done = true;
        }
        if self.done {
            return Ok(());
        }
        let link = operation.templates.render_or_empty(template, scope)?;
        let link = link.trim().to_owned();
        let same = self
            .before
            .as_ref()
            .is_some_and(|before| before.link == link);
        if (link.is_empty() && stops(Termination::NextPageLinkEmpty))
            || (same && stops(Termination::SameNextPageLink))
        {
            self.done = true;
            return Ok(());
        }
        self.made.link = match link.is_empty() {
            true => None,
            false => Some(joined(&rendered.base, &link)?),
        };
        let body = match &answer.content {
            Content::Json(body) | Content::Other(body) => Some(body.clone()),
            Content::Nothing => None,
        };
        self.before = Some(Before {
            rendered,
            headers: answer.headers.clone(),
            body,
            answered,
            link,
        });
        self.page += 1;
        Ok(())
    }
}

/// How many entities a result holds.
fn elements(result: Option<&Value>) -> u64 {
    match result {
        None | Some(Value::Null) => 0,
        Some(Value::List(items)) => items.len() as u64,
        Some(Value::Dict(dict)) => u64::from(!dict.is_empty()),
        Some(Value::String(text)) => u64::from(!text.is_empty()),
        Some(_) => 1,
    }
}

fn joined(base: &Url, link: &str) -> Result<Url, Failure> {
    let next = base.join(link).map_err(|error| {
        Failure::entity(format!(
            "expected next_page_link to give an address, found {link:?}: {error}"
        ))
    })?;
    match next.scheme() {
        "http" | "https" => Ok(next),
        other => Err(Failure::entity(format!(
            "expected next_page_link to give an http or https address, found one of scheme {other}"
        ))),
    }
}

fn fingerprint(answer: &Answer) -> u64 {
    let mut hasher = DefaultHasher::new();
    answer.status.hash(&mut hasher);
    answer.bytes.hash(&mut hasher);
    hasher.finish()
}

/// Fails where `error_expression` says something about a JSON answer.
fn check_error(operation: &Operation, scope: &Scope, answer: &Answer) -> Result<(), Failure> {
    let (Some(expression), Content::Json(_)) = (&operation.error_expression, &answer.content)
    else {
        return Ok(());
    };
    let text = operation.templates.render(expression, scope)?;
    if text.trim().is_empty() {
        return Ok(());
    }
    let mut failure = Failure::entity(format!(
        "operation {:?}: {}: expected an answer that is no error, found: {}",
        operation.name,
        answer.what,
        text.trim()
    ));
    failure.status = Some(answer.status);
    Err(failure)
}

/// What `id_expression` and `updated_expression` say about an element of a page.
pub(super) struct Said {
    pub(super) id: Option<String>,
    pub(super) updated: Option<String>,
}

impl Page {
    /// What the expressions say about an element; `wants_updated` asks for the second.
    ///
    /// # Errors
    /// Entity, where an expression cannot be rendered.
    pub(super) fn say(
        &self,
        operation: &Operation,
        element: &Dict,
        wants_updated: bool,
    ) -> Result<Said, Failure> {
        let missing = |name: &str| element.get(name).is_none_or(Value::is_null);
        let id = operation.id_expression.as_ref().filter(|_| missing("_id"));
        let updated = operation.updated_expression.as_ref();
        let updated = updated.filter(|_| wants_updated && missing("_updated"));
        if id.is_none() && updated.is_none() {
            return Ok(Said {
                id: None,
                updated: None,
            });
        }
        let say = |text: &Text| -> Result<Option<String>, Failure> {
            let said = match Templates::at_once(text, &self.scope, element) {
                Some(said) => said,
                None => {
                    let scope = self.scope.with_entity(element);
                    operation.templates.render(text, &scope)?
                }
            };
            Ok(Some(said.trim().to_owned()).filter(|said| !said.is_empty()))
        };
        Ok(Said {
            id: id.map(say).transpose()?.flatten(),
            updated: updated.map(say).transpose()?.flatten(),
        })
    }

    /// Adds to an entity what the operation says of headers and status, and the `Content-Type` if
    /// that is wanted.
    pub(super) fn note(&self, operation: &Operation, content_type: bool, into: &mut Dict) {
        if let Some(name) = &operation.response_headers_property {
            into.set(name.as_str(), self.headers());
        }
        if let Some(name) = &operation.response_status_property {
            into.set(name.as_str(), Value::Int(i64::from(self.answer.status)));
        }
        if content_type {
            into.set("content-type", self.content_type());
        }
    }

    /// The answer's headers as a value.
    fn headers(&self) -> Value {
        let mut dict = Dict::new();
        for (name, value) in &self.answer.headers {
            let text = String::from_utf8_lossy(value.as_bytes());
            dict.set(name.as_str(), Value::string(text.as_ref()));
        }
        Value::Dict(dict)
    }

    /// The answer's `Content-Type`, empty where it has none.
    pub(super) fn content_type(&self) -> Value {
        let kind = self.answer.headers.get(reqwest::header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok());
        Value::string(kind.unwrap_or_default())
    }
}
