//! From JSON to a program, or to everything that is wrong with the JSON.

mod call;
mod expression;
mod hops;
mod index;
mod statement;
pub(crate) mod suggest;
mod way_back;

pub(crate) use call::{Given, assign};
pub(crate) use index::{compile_index, compile_side};

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use crate::analysis::{Cause, Why};
use crate::dependencies::{Around, Joins, Origin};
use crate::error::{JsonPath, Problem, Segment, Severity};
use crate::expr::Block;
use crate::limits::{MAX_NESTING, MAX_PROBLEMS};
use crate::options::Options;
use crate::program::{Index, Program};

/// The rule that entities start with.
const DEFAULT: &str = "default";

/// Compiles the `rules` object of a dtl transform.
///
/// # Errors
/// All problems at once; warnings are among them when there is an error too.
pub fn compile(rules: &Json, options: &Options) -> Result<Program, Vec<Problem>> {
    compile_as(rules, options, false)
}

/// Compiles rules into a program that [explains](Program::explain) itself, and is slower for it.
///
/// # Errors
/// All problems at once, as [`compile`] gives them.
pub fn compile_traced(rules: &Json, options: &Options) -> Result<Program, Vec<Problem>> {
    compile_as(rules, options, true)
}

fn compile_as(rules: &Json, options: &Options, traces: bool) -> Result<Program, Vec<Problem>> {
    let mut compiler = Compiler::new(options);
    compiler.traces = traces;
    compiler.path.push(Segment::Name("rules".to_owned()));
    let compiled = match deeper(rules, MAX_NESTING) {
        Some(path) => {
            compiler.path.extend(path);
            compiler.error(format!(
                "expected rules nested at most {MAX_NESTING} levels deep, found deeper ones"
            ));
            None
        }
        None => compiler.rules(rules),
    };
    match compiled {
        Some((rules, default)) if !compiler.failed() => Ok(compiler.finish(rules, default)),
        _ => Err(compiler.problems),
    }
}

/// The path of the first part of a document that begins a level beyond `most`; looks no deeper.
fn deeper(json: &Json, most: usize) -> Option<Vec<Segment>> {
    let mut inside: Box<dyn Iterator<Item = (Segment, &Json)>> = match json {
        Json::Array(items) => {
            Box::new((items.iter().enumerate()).map(|(at, item)| (Segment::Position(at), item)))
        }
        Json::Object(pairs) => {
            Box::new((pairs.iter()).map(|(name, item)| (Segment::Name(name.clone()), item)))
        }
        _ => return None,
    };
    if most == 0 {
        return Some(Vec::new());
    }
    inside.find_map(|(segment, item)| {
        let mut path = deeper(item, most - 1)?;
        path.insert(0, segment);
        Some(path)
    })
}

/// One compilation.
pub(crate) struct Compiler<'c> {
    pub(crate) options: &'c Options,
    pub(crate) program: Program,
    problems: Vec<Problem>,
    errors: usize,
    warnings: usize,
    /// How many names were compared with misspelt ones.
    compared: Cell<usize>,
    path: Vec<Segment>,
    scope: Scope,
    /// Every expression and statement notes what it does.
    traces: bool,
    /// The place of the rule that entities start with.
    default: Option<usize>,
    names: Vec<String>,
    /// The rules' places by their names.
    places: HashMap<String, usize>,
    /// Which rules a rule applies, and from where.
    applied: Vec<Vec<(usize, JsonPath, bool)>>,
    /// Whether a rule looks something up by itself.
    hops_in: Vec<bool>,
    /// Where `_P` is read, by rule.
    parents: Vec<(usize, JsonPath)>,
    indexes: HashMap<(String, String), u32>,
    /// What joins what.
    joins: Joins,
    /// The causes that were noted.
    noted: HashSet<Cause>,
}

/// How many names are compared with misspelt ones in one compilation.
const MAX_COMPARED: usize = 100_000;

/// What is in sight where the compiler stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// The rule at work.
    rule: usize,
    /// Inside a function expression, where `_` is known.
    function: bool,
    /// `_` is a version of the source entity (in `is-changed`).
    entity: bool,
    /// Dataset aliases, by their place in the row.
    aliases: Vec<String>,
    /// Their places among all aliases of the rules.
    places: Vec<usize>,
    /// What `_S` is in the specs of chains around.
    frames: Vec<Vec<Origin>>,
    /// Aliases that cannot be read here, and may be meant all the same.
    others: Vec<String>,
    /// `_S` means this alias (in `subsets`).
    source_alias: Option<u16>,
}

impl Scope {
    /// The aliases that somebody who writes here knows.
    fn known_aliases(&self) -> impl Iterator<Item = &str> {
        let all = self.aliases.iter().chain(&self.others);
        // In the expression of a subset, entities go by the name of a variable.
        all.map(String::as_str)
            .filter(|alias| !alias.starts_with('_'))
    }
}

impl<'c> Compiler<'c> {
    pub(crate) fn new(options: &'c Options) -> Compiler<'c> {
        Compiler {
            options,
            program: Program::bare(options),
            problems: Vec::new(),
            errors: 0,
            warnings: 0,
            compared: Cell::new(0),
            path: Vec::new(),
            scope: Scope::default(),
            traces: false,
            default: None,
            names: Vec::new(),
            places: HashMap::new(),
            applied: Vec::new(),
            hops_in: Vec::new(),
            parents: Vec::new(),
            indexes: HashMap::new(),
            joins: Joins::default(),
            noted: HashSet::new(),
        }
    }

    fn failed(&self) -> bool {
        self.errors() > 0
    }

    /// How many errors were noted so far.
    fn errors(&self) -> usize {
        self.errors
    }

    /// Whether so much is wrong that nobody wants to know more.
    pub(crate) fn has_enough(&self) -> bool {
        self.errors >= MAX_PROBLEMS
    }

    /// Help that names the nearest of the known names; none once many names were compared.
    pub(crate) fn nearest<'a>(&self, found: &str, known: impl Iterator<Item = &'a str>) -> String {
        let left = MAX_COMPARED.saturating_sub(self.compared.get());
        if left == 0 {
            return String::new();
        }
        let counted = known.take(left).inspect(|_| {
            self.compared.set(self.compared.get() + 1);
        });
        suggest::nearest(found, counted)
    }

    fn finish(mut self, rules: Vec<Block>, default: usize) -> Program {
        self.program.rules = rules;
        self.program.default = default;
        self.program.dependencies = self.joins.resolve(default);
        if let Some(trigger) = &self.options.trigger_on {
            let first = trigger.key.split('.').next().unwrap_or_default();
            self.program.properties.add(first);
        }
        self.program.warnings = self.problems;
        self.program
    }

    /// The place where the compiler stands.
    pub(crate) fn here(&self) -> JsonPath {
        JsonPath(self.path.clone())
    }

    /// Notes an error at the place where the compiler stands.
    pub(crate) fn error(&mut self, message: impl Into<String>) {
        self.note(Severity::Error, message.into());
    }

    /// Notes a warning at the place where the compiler stands.
    pub(crate) fn warning(&mut self, message: impl Into<String>) {
        self.note(Severity::Warning, message.into());
    }

    fn note(&mut self, severity: Severity, message: String) {
        self.note_at(self.here(), severity, message);
    }

    fn note_at(&mut self, path: JsonPath, severity: Severity, message: String) {
        let noted = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *noted += 1;
        if *noted > MAX_PROBLEMS {
            return;
        }
        self.problems.push(Problem {
            path,
            severity,
            message,
        });
    }

    /// Does something one element deeper.
    pub(crate) fn at<T>(&mut self, position: usize, work: impl FnOnce(&mut Self) -> T) -> T {
        self.within(Segment::Position(position), work)
    }

    /// Does something one property deeper.
    pub(crate) fn under<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        self.within(Segment::Name(name.to_owned()), work)
    }

    fn within<T>(&mut self, segment: Segment, work: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(segment);
        let result = work(self);
        self.path.pop();
        result
    }

    /// Does something in another scope.
    pub(crate) fn scoped<T>(
        &mut self,
        change: impl FnOnce(&mut Scope),
        work: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let before = self.scope.clone();
        change(&mut self.scope);
        let result = work(self);
        self.scope = before;
        result
    }

    /// Whether the rule at work is the one that entities start with.
    pub(crate) fn in_default(&self) -> bool {
        self.default == Some(self.scope.rule)
    }

    /// Notes that results depend on more than the entity's content.
    pub(crate) fn depends_on(&mut self, why: Why) {
        let cause = Cause {
            why,
            path: self.here(),
        };
        if self.noted.insert(cause.clone()) {
            self.program.causes.push(cause);
        }
    }

    /// What `_S` stands for here and around.
    fn around(&self) -> Around {
        Around {
            rule: self.scope.rule,
            frames: self.scope.frames.clone(),
        }
    }

    /// A place for a cache.
    pub(crate) fn slot(&mut self) -> u32 {
        self.program.slots += 1;
        self.program.slots - 1
    }

    fn rules(&mut self, rules: &Json) -> Option<(Vec<Block>, usize)> {
        let Json::Object(rules) = rules else {
            self.error(format!(
                "expected an object of named rules, found {}; write {{\"default\": [ … ]}}",
                describe(rules)
            ));
            return None;
        };
        self.names = rules.keys().cloned().collect();
        let places = self.names.iter().cloned().enumerate();
        self.places = places.map(|(at, name)| (name, at)).collect();
        self.applied.resize(rules.len(), Vec::new());
        self.hops_in.resize(rules.len(), false);
        let default = self.names.iter().position(|name| name == DEFAULT);
        self.default = default;
        let mut blocks = Vec::with_capacity(rules.len());
        for (rule, (name, body)) in rules.iter().enumerate() {
            self.scope = Scope {
                rule,
                ..Scope::default()
            };
            blocks.push(self.under(name, |compiler| compiler.block(body)));
        }
        self.scope = Scope::default();
        let Some(default) = default else {
            self.error(format!(
                "expected a rule named \"default\", found {}; entities start with that rule",
                list_of(&self.names)
            ));
            return None;
        };
        self.check_rules(default);
        Some((blocks, default))
    }

    /// What can only be said when all rules are known.
    fn check_rules(&mut self, default: usize) {
        let mut reached = vec![false; self.names.len()];
        let mut todo = vec![default];
        while let Some(rule) = todo.pop() {
            if !std::mem::replace(&mut reached[rule], true) {
                todo.extend(self.applied[rule].iter().map(|(rule, ..)| *rule));
            }
        }
        for rule in (0..reached.len()).filter(|&rule| !reached[rule]) {
            let path = JsonPath::rules().name(&self.names[rule]);
            let message = format!(
                "expected every rule to be applied from \"default\", found \"{}\" applied from \
                 nowhere",
                self.names[rule]
            );
            self.note_at(path, Severity::Warning, message);
        }
        let mut applied = self.applied.iter().flatten();
        let is_applied = applied.any(|(rule, ..)| *rule == default);
        let mut wrong = Vec::new();
        for (_, path) in self.parents.iter().filter(|(rule, _)| *rule == default) {
            if !is_applied {
                let message =
                    "expected _P only in rules that are applied, found it in \"default\", \
                               which has no parent; write _S or _T"
                        .to_owned();
                wrong.push((path.clone(), message));
            }
        }
        for (rule, path, from_hops) in self.applied.iter().flatten() {
            if !from_hops && self.looks_up(*rule) {
                let message = format!(
                    "expected \"apply\" of a rule without hops, found hops in \"{}\"; write \
                     \"apply-hops\", so that dependencies can be tracked",
                    self.names[*rule]
                );
                wrong.push((path.clone(), message));
            }
        }
        for (path, message) in wrong {
            self.note_at(path, Severity::Error, message);
        }
    }

    fn looks_up(&self, rule: usize) -> bool {
        self.hops_in.get(rule).copied().unwrap_or(false)
    }

    /// The index of a rule's name, noting that the rule at work applies it.
    pub(crate) fn rule(&mut self, name: &Json, from_hops: bool) -> u32 {
        let Json::String(name) = name else {
            self.error(format!(
                "expected the name of a rule, found {}",
                describe(name)
            ));
            return 0;
        };
        let Some(&rule) = self.places.get(name) else {
            let help = self.nearest(name, self.names.iter().map(String::as_str));
            self.error(format!(
                "expected the name of a rule, found \"{name}\"{help}"
            ));
            return 0;
        };
        let here = self.here();
        let from = self.scope.rule;
        self.applied[from].push((rule, here, from_hops));
        u32::try_from(rule).expect("rules are few")
    }

    /// The place of a dataset that the rules read.
    pub(crate) fn dataset(&mut self, name: &str, tracked: bool, populated: bool) -> u32 {
        self.program.facts.lookups = true;
        self.depends_on(Why::Datasets);
        let reads = &mut self.program.reads;
        match reads.iter_mut().find(|read| read.dataset == name) {
            Some(read) => {
                read.tracked |= tracked;
                read.populated |= populated;
            }
            None => {
                let dataset = name.to_owned();
                reads.push(crate::program::Read {
                    dataset,
                    tracked,
                    populated,
                });
            }
        }
        let datasets = &mut self.program.datasets;
        let place = datasets
            .iter()
            .position(|known| known == name)
            .unwrap_or_else(|| {
                datasets.push(name.to_owned());
                datasets.len() - 1
            });
        u32::try_from(place).expect("datasets are few")
    }

    /// The place of an index, one for each dataset and fingerprint.
    pub(crate) fn index(&mut self, make: Index) -> u32 {
        let key = (make.dataset.clone(), make.fingerprint.clone());
        let next = u32::try_from(self.program.indexes.len()).expect("indexes are few");
        let place = *self.indexes.entry(key).or_insert(next);
        if place == next {
            self.program.indexes.push(make);
        }
        place
    }
}

/// What a JSON value is, as messages show it.
pub(crate) fn describe(json: &Json) -> String {
    match json {
        Json::Null => "null".to_owned(),
        Json::Bool(truth) => truth.to_string(),
        Json::Number(number) => format!("the number {}", cut(number.as_str())),
        Json::String(text) => format!("the string {}", Json::from(cut(text))),
        Json::Array(items) => format!("a list of {} items", items.len()),
        Json::Object(pairs) => format!("an object of {} properties", pairs.len()),
    }
}

/// The start of a text, short enough for a message.
pub(crate) fn cut(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn list_of(names: &[String]) -> String {
    if names.is_empty() {
        return "no rules".to_owned();
    }
    let shown: Vec<String> = names
        .iter()
        .take(10)
        .map(|name| format!("\"{}\"", cut(name)))
        .collect();
    shown.join(", ")
}
