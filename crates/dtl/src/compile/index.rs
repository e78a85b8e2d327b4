//! Index expressions: one side of a join, standing alone.

use std::sync::Arc;

use serde_json::{Map, Value as Json};
use tahini_entity::Str;

use super::{Compiler, deeper};
use crate::error::{Problem, Segment};
use crate::expr::Expr;
use crate::limits::MAX_NESTING;
use crate::options::Options;
use crate::program::{Index, Program};

/// Compiles an index expression over the entities (`_S`) of a dataset, which stands at position 1
/// of whatever holds it.
///
/// # Errors
/// All problems at once.
pub(crate) fn compile_index(
    dataset: &str,
    json: &Json,
    options: &Options,
) -> Result<Index, Vec<Problem>> {
    let mut compiler = Compiler::new(options);
    compiler.path.push(Segment::Position(1));
    finish(compiler, dataset, "_S", json)
}

/// Compiles one side of an equality between datasets, over the entities of `dataset`, which the
/// expression calls `alias`; `others` are the aliases that it must not mention.
///
/// # Errors
/// All problems at once, with paths from the expression's own root.
pub(crate) fn compile_side(
    dataset: &str,
    alias: &str,
    others: &[String],
    json: &Json,
    options: &Options,
) -> Result<Index, Vec<Problem>> {
    let mut compiler = Compiler::new(options);
    compiler.scope.aliases = others.to_vec();
    finish(compiler, dataset, alias, json).map(Index::with_own_ids)
}

fn finish(
    mut compiler: Compiler<'_>,
    dataset: &str,
    alias: &str,
    json: &Json,
) -> Result<Index, Vec<Problem>> {
    let index = match deeper(json, MAX_NESTING) {
        Some(path) => {
            compiler.path.extend(path);
            compiler.error(format!(
                "expected an expression nested at most {MAX_NESTING} levels deep, found a deeper \
                 one"
            ));
            None
        }
        None => compiler.make_index(dataset, alias, json),
    };
    index.ok_or(compiler.problems)
}

/// The root property that an expression reads and nothing else, where no namespaces are at work.
fn plain(alias: &str, json: &Json, options: &Options) -> Option<Str> {
    let path = json.as_str()?.strip_prefix(alias)?.strip_prefix('.')?;
    let simple = !path.is_empty() && !path.contains(['.', ':', '*', '\'']);
    let simple = simple && !path.starts_with(['_', '$']);
    (simple && !options.namespaced_identifiers).then(|| path.into())
}

impl<'c> Compiler<'c> {
    /// The index over a dataset's entities that a join wants. `None` when the expression is
    /// wrong, which is noted.
    pub(crate) fn make_index(&mut self, dataset: &str, alias: &str, json: &Json) -> Option<Index> {
        let (mut alone, expr) = self.alone(alias, json);
        let failed = alone.failed();
        self.errors += alone.errors;
        self.warnings += alone.warnings;
        self.problems.append(&mut alone.problems);
        if failed || !alone.program.causes.is_empty() {
            if !failed {
                self.error(
                    "expected a join whose dataset side always gives the same keys, found now, \
                     uuid or other datasets in it",
                );
            }
            return None;
        }
        Some(self.index_of(dataset, alias, json, (expr, alone.program.slots)))
    }

    /// The index over what is on the other side of a join, if that can have one.
    pub(super) fn index_there(&self, alias: &str, json: &Json) -> Option<Index> {
        let (alone, expr) = self.alone(alias, json);
        let fits = !alone.failed() && alone.program.causes.is_empty();
        fits.then(|| self.index_of("", alias, json, (expr, alone.program.slots)))
    }

    /// An expression that knows one alias and nothing else.
    fn alone(&self, alias: &str, json: &Json) -> (Compiler<'c>, Expr) {
        let mut alone = Compiler::new(self.options);
        alone.path = self.path.clone();
        alone.scope.aliases = vec![alias.to_owned()];
        let others = self.scope.aliases.iter().filter(|other| *other != alias);
        alone.scope.others = others.cloned().collect();
        let expr = alone.expression(json);
        (alone, expr)
    }

    fn index_of(
        &self,
        dataset: &str,
        alias: &str,
        json: &Json,
        (expr, slots): (Expr, u32),
    ) -> Index {
        let mut program = Program::bare(self.options);
        program.slots = slots;
        Index {
            dataset: dataset.to_owned(),
            fingerprint: self.fingerprint(alias, json),
            own_ids: false,
            by_item: false,
            items: Vec::new(),
            plain: plain(alias, json, self.options),
            expr: Arc::new((expr, program)),
        }
    }

    /// The expression without the alias's name; with what namespaces make of it, when they are on.
    fn fingerprint(&self, alias: &str, json: &Json) -> String {
        let text = anonymous(alias, json).to_string();
        // What is made of URIs goes by the pipe's prefixes.
        let uris = ["ni", "ni-collapse", "ni-expand"]
            .iter()
            .any(|name| text.contains(&format!("\"{name}\"")));
        let spaces = uris.then(|| {
            let namespaces = &self.options.namespaces;
            let symmetric = if namespaces.symmetric {
                " both ways"
            } else {
                ""
            };
            format!(
                " by {} {:?}{symmetric}",
                self.options.pipe, namespaces.expansions
            )
        });
        let spaces = spaces.unwrap_or_default();
        if self.options.namespaced_identifiers {
            let property = Json::from(self.options.property());
            // What is not there has a default that is the pipe's own.
            let ids = text.contains("$ids");
            let identity = ids.then(|| format!(" of {}", Json::from(self.options.identity())));
            let identity = identity.unwrap_or_default();
            format!("{text} in {property}{identity}{spaces}")
        } else {
            format!("{text}{spaces}")
        }
    }
}

fn anonymous(alias: &str, json: &Json) -> Json {
    match json {
        Json::String(text) => match text.strip_prefix(alias).and_then(|t| t.strip_prefix('.')) {
            Some(path) => Json::from(format!("_.{path}")),
            None => json.clone(),
        },
        Json::Array(items) => items.iter().map(|item| anonymous(alias, item)).collect(),
        Json::Object(pairs) => {
            let pairs = pairs
                .iter()
                .map(|(name, item)| (name.clone(), anonymous(alias, item)));
            Json::Object(pairs.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}
