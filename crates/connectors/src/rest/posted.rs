//! `validation_expression`: a template that judges what is posted to a pipe, so that senders which
//! know nothing of our tokens can prove who they are.

use std::sync::Arc;

use minijinja::Value as Seen;
use reqwest::header::HeaderMap;
use tahini_hub::secrets::SecretSource;
use tahini_hub::{Clock, Failure};

use super::filters::World;
use super::template::{Scope, Templates, Text};
use super::values::Headers;

/// The most characters of a template's text that the sender is told.
const MAX_WORDS: usize = 200;

/// A request as it was posted.
pub struct Posted<'a> {
    /// The address that was asked for, with its query.
    pub url: &'a str,
    /// The parameters of the query, in order.
    pub params: &'a [(String, String)],
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body, byte for byte.
    pub body: &'a [u8],
}

/// Where a template's secrets and its time come from.
pub struct Judge {
    /// The secrets.
    pub secrets: Arc<dyn SecretSource>,
    /// The system whose own ones come first.
    pub system: Option<String>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// What a template says of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is taken.
    Taken,
    /// It is refused, for this reason.
    Refused(String),
}

/// A `validation_expression`, compiled.
pub struct Validation {
    templates: Templates,
    text: Text,
}

impl Validation {
    /// Compiles the template.
    ///
    /// # Errors
    /// Config, where the text is no template.
    pub fn of(expression: &str, judge: Judge) -> Result<Validation, Failure> {
        let mut templates = Templates::new(World {
            clock: Some(judge.clock),
            secrets: Some((judge.secrets, judge.system.unwrap_or_default())),
        });
        let text = templates.text(expression, "$.source.validation_expression")?;
        Ok(Validation { templates, text })
    }

    /// Whether the template looks at that variable, or calls the function of that name.
    pub fn looks_at(&self, name: &str) -> bool {
        self.text.uses(name)
    }

    /// Judges a request. A template that cannot be rendered for it refuses it, in words that tell
    /// the sender nothing; `Failure` tells the log what was wrong.
    ///
    /// # Errors
    /// Entity, where it cannot be rendered.
    pub fn judge(&self, posted: &Posted<'_>) -> Result<Judgement, Failure> {
        let mut scope = Scope::default();
        scope.set("url", Seen::from(posted.url));
        let params = posted.params.iter();
        scope.set(
            "request_params",
            Seen::from_pairs(params.map(|(name, value)| (name.clone(), value.clone()))),
        );
        scope.set(
            "request_headers",
            Seen::from_object(Headers::each(posted.headers)),
        );
        scope.set("request_body", Seen::from_bytes(posted.body.to_vec()));
        let said = self.templates.render(&self.text, &scope)?;
        let said = said.trim();
        Ok(match said.is_empty() {
            true => Judgement::Taken,
            false => Judgement::Refused(said.chars().take(MAX_WORDS).collect()),
        })
    }
}
