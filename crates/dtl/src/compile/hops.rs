//! `hops`: from datasets and conditions to an order in which entities are found.

use serde_json::{Map, Value as Json};

use super::{Compiler, Given, describe, way_back};
use crate::dependencies::{Origin, Side};
use crate::expr::Expr;
use crate::hops::{Access, Filter, Hops, Recursion, Returns, Spec, Step};
use crate::limits::MAX_HOPS_DATASETS;

/// The properties of a spec.
const PROPERTIES: [&str; 9] = [
    "datasets",
    "where",
    "recurse",
    "exclude_root",
    "max_depth",
    "return",
    "track-dependencies",
    "trace",
    "subsets",
];
/// What `subsets` was called once.
const PREFILTERS: &str = "prefilters";

/// How many levels a recursion goes unless `max_depth` says otherwise.
const DEFAULT_DEPTH: u64 = 10;

/// A condition of `where` and what it refers to.
struct Condition<'j> {
    json: &'j Json,
    path: Vec<usize>,
    /// The aliases in it, by their place in the row.
    aliases: Vec<usize>,
    /// Both sides, when it is an `eq` that may join.
    sides: Option<[End<'j>; 2]>,
    used: bool,
}

struct End<'j> {
    json: &'j Json,
    aliases: Vec<usize>,
    /// It refers to the context outside the datasets.
    outer: bool,
}

/// A dataset and its alias.
struct Aliased {
    dataset: String,
    alias: String,
}

impl Compiler<'_> {
    /// The specs of a call's parameter.
    pub(crate) fn hops(&mut self, given: &Given<'_>, parameter: usize) -> Hops {
        self.chain(given, parameter).0
    }

    /// The same, where a rule is applied to what they return.
    pub(crate) fn applied_hops(&mut self, given: &Given<'_>, parameter: usize, rule: u32) -> Hops {
        let (hops, returned) = self.chain(given, parameter);
        let around = self.around();
        self.joins.apply(rule as usize, returned, around);
        hops
    }

    /// The specs, and where what they return comes from.
    fn chain(&mut self, given: &Given<'_>, parameter: usize) -> (Hops, Vec<Origin>) {
        let rule = self.scope.rule;
        if let Some(found) = self.hops_in.get_mut(rule) {
            *found = true;
        }
        let specs: Vec<(usize, &Json)> = given.all(parameter).collect();
        let count = specs.len();
        let traced = self.traced(&specs);
        let mut compiled = Vec::with_capacity(count);
        let mut input = None;
        for (nth, (at, json)) in specs.into_iter().enumerate() {
            let last = nth + 1 == count;
            let spec = self.at(at, |compiler| compiler.spec(json, last, input.take()));
            input = Some(Vec::new());
            if let Some((spec, returned)) = spec {
                compiled.push(Spec { traced, ..spec });
                input = Some(returned);
            }
        }
        let hops = Hops {
            specs: compiled.into(),
        };
        (hops, input.unwrap_or_default())
    }

    /// The place of a call's `trace` among the program's; its last spec says it.
    fn traced(&mut self, specs: &[(usize, &Json)]) -> Option<u32> {
        let ((_, last), earlier) = specs.split_last()?;
        for (at, _) in earlier
            .iter()
            .filter(|(_, spec)| spec.get("trace").is_some())
        {
            self.at(*at, |compiler| {
                compiler.under("trace", |compiler| {
                    compiler.warning(
                        "expected \"trace\" on the last spec only, found it earlier, where it \
                         counts nothing",
                    );
                });
            });
        }
        let name = last.get("trace")?.as_str()?;
        let all = &mut self.program.traced_hops;
        all.push(name.to_owned());
        u32::try_from(all.len() - 1).ok()
    }

    /// One spec, and where what it returns comes from. `input` is what the spec before it in the
    /// chain returns.
    fn spec(
        &mut self,
        json: &Json,
        last: bool,
        input: Option<Vec<Origin>>,
    ) -> Option<(Spec, Vec<Origin>)> {
        let Json::Object(spec) = json else {
            let found = describe(json);
            self.error(format!(
                "expected an object with \"datasets\" and \"where\", found {found}"
            ));
            return None;
        };
        self.kinds(spec);
        let base = self.scope.aliases.len();
        let tracked = spec.get("track-dependencies") != Some(&Json::Bool(false));
        let aliased = self.under("datasets", |compiler| {
            compiler.aliased(spec.get("datasets"))
        })?;
        for alias in &aliased {
            self.dataset(&alias.dataset, tracked, true);
        }
        let names: Vec<String> = aliased.iter().map(|alias| alias.alias.clone()).collect();
        let recursion = self.recursion(spec, last);
        let places: Vec<usize> = aliased
            .iter()
            .map(|alias| self.joins.add(&alias.dataset, tracked))
            .collect();
        let roots = match &recursion {
            None => input,
            Some(_) => Some(input.unwrap_or_else(|| self.around().source(0))),
        };
        let own = places.last().map(|place| Origin::Place(*place));
        let frame = roots.clone().map(|mut all| {
            all.extend(own.filter(|_| recursion.is_some()));
            all
        });
        let entered = places.clone();
        let spec = self.scoped(
            |scope| {
                scope.aliases.extend(names);
                scope.places.extend(entered);
                scope.frames.extend(frame);
            },
            |compiler| {
                let returns = compiler.returns(spec, &aliased, base, last, recursion.is_some());
                let mut plan = compiler.plan(spec, &aliased, base)?;
                compiler.subsets(spec, &aliased, base, &mut plan);
                let (before, steps) = plan;
                Some(Spec {
                    aliases: aliased.len(),
                    before: before.into(),
                    steps: steps.into(),
                    recursion,
                    returns,
                    traced: None,
                })
            },
        )?;
        let returned = returned(&spec, base, &places, roots);
        Some((spec, returned))
    }

    /// Checks the names of a spec's properties, and what they are as far as nobody else does.
    fn kinds(&mut self, spec: &Map<String, Json>) {
        for name in spec
            .keys()
            .filter(|name| !PROPERTIES.contains(&name.as_str()) && *name != PREFILTERS)
        {
            let help = self.nearest(name, PROPERTIES.into_iter());
            self.under(name, |compiler| {
                compiler.warning(format!(
                    "expected a property of hops, found \"{name}\"{help}"
                ));
            });
        }
        type Fits = fn(&Json) -> bool;
        let kinds: [(&str, &str, Fits); 6] = [
            ("recurse", "true or false", Json::is_boolean),
            ("exclude_root", "true or false", Json::is_boolean),
            ("track-dependencies", "true or false", Json::is_boolean),
            ("trace", "a name for the statistics", Json::is_string),
            (
                "subsets",
                "an object of conditions by alias",
                Json::is_object,
            ),
            (
                PREFILTERS,
                "an object of conditions by alias",
                Json::is_object,
            ),
        ];
        for (name, expected, fits) in kinds {
            if let Some(json) = spec.get(name).filter(|json| !fits(json)) {
                let found = describe(json);
                self.under(name, |compiler| {
                    compiler.error(format!("expected {expected}, found {found}"));
                });
            }
        }
        if spec.contains_key(PREFILTERS) {
            let both = spec.contains_key("subsets");
            self.under(PREFILTERS, |compiler| match both {
                true => compiler.error(
                    "expected \"subsets\" alone, found its old name \"prefilters\" beside it",
                ),
                false => compiler.warning(
                    "expected \"subsets\", found its old name \"prefilters\", which means the same \
                     here",
                ),
            });
        }
    }

    fn aliased(&mut self, json: Option<&Json>) -> Option<Vec<Aliased>> {
        let items = match json {
            Some(Json::Array(items)) if !items.is_empty() => items,
            other => {
                let found = other.map_or_else(|| "nothing".to_owned(), describe);
                self.error(format!(
                    "expected a list of datasets, each \"DATASET ALIAS\", found {found}"
                ));
                return None;
            }
        };
        if items.len() > MAX_HOPS_DATASETS {
            let found = items.len();
            self.error(format!(
                "expected at most {MAX_HOPS_DATASETS} datasets in one hops, found {found}"
            ));
            return None;
        }
        let mut aliased: Vec<Aliased> = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let words: Vec<&str> = item.as_str().unwrap_or("").split_whitespace().collect();
            let message = match words.as_slice() {
                [dataset, alias] if !alias.starts_with('_') && !alias.contains('.') => {
                    if !aliased.iter().any(|known| known.alias == *alias) {
                        let (dataset, alias) = ((*dataset).to_owned(), (*alias).to_owned());
                        aliased.push(Aliased { dataset, alias });
                        continue;
                    }
                    format!("expected each alias once, found \"{alias}\" again")
                }
                _ => format!(
                    "expected \"DATASET ALIAS\" with an alias that does not start with _, found {}",
                    describe(item)
                ),
            };
            self.at(at, |compiler| compiler.error(message));
        }
        Some(aliased)
    }

    fn recursion(&mut self, spec: &Map<String, Json>, last: bool) -> Option<Recursion> {
        if spec.get("recurse") != Some(&Json::Bool(true)) {
            return None;
        }
        if spec.contains_key("return") && last {
            self.under("return", |compiler| {
                compiler.error("expected no \"return\" beside \"recurse\", found both");
            });
        }
        let max_depth = match spec.get("max_depth") {
            None => Some(DEFAULT_DEPTH),
            Some(Json::Null) => None,
            Some(json) => match json.as_u64() {
                Some(depth) => Some(depth),
                None => {
                    let found = describe(json);
                    self.under("max_depth", |compiler| {
                        compiler.error(format!("expected a whole number or null, found {found}"));
                    });
                    None
                }
            },
        };
        let exclude_root = spec.get("exclude_root") == Some(&Json::Bool(true));
        Some(Recursion {
            exclude_root,
            max_depth,
        })
    }

    fn returns(
        &mut self,
        spec: &Map<String, Json>,
        aliased: &[Aliased],
        base: usize,
        last: bool,
        recursive: bool,
    ) -> Returns {
        let default = Returns::Aliases([(base + aliased.len()).saturating_sub(1)].into());
        let Some(json) = spec.get("return").filter(|_| !recursive) else {
            return default;
        };
        self.under("return", |compiler| {
            if !last {
                compiler.error("expected \"return\" on the last spec only, found it earlier");
            }
            if let Json::String(text) = json {
                let names: Vec<&str> = text.split(',').map(str::trim).collect();
                let place = |name: &str| aliased.iter().position(|alias| alias.alias == name);
                let places: Option<Vec<usize>> = names.iter().map(|name| place(name)).collect();
                if let Some(places) = places {
                    return Returns::Aliases(places.into_iter().map(|at| base + at).collect());
                }
                if !text.contains('.') {
                    let known = aliased.iter().map(|alias| alias.alias.as_str());
                    let help = compiler.nearest(text, known);
                    compiler.error(format!("expected an alias, found \"{text}\"{help}"));
                    return default;
                }
            }
            Returns::Template(compiler.expression(json))
        })
    }

    /// Orders the conditions: what needs no alias first, then one step for each alias.
    fn plan(
        &mut self,
        spec: &Map<String, Json>,
        aliased: &[Aliased],
        base: usize,
    ) -> Option<(Vec<Expr>, Vec<Step>)> {
        let mut conditions = Vec::new();
        match spec.get("where") {
            Some(json) => self.conditions(json, Vec::new(), &mut conditions),
            None => {
                self.error("expected \"where\" with a join for each dataset, found none");
                return None;
            }
        }
        let mut before = Vec::new();
        let mut steps: Vec<Step> = Vec::new();
        let mut bound: Vec<usize> = (0..base).collect();
        let mut joined: Vec<(usize, Option<usize>)> = Vec::new();
        for condition in conditions
            .iter_mut()
            .filter(|condition| condition.aliases.is_empty())
        {
            condition.used = true;
            before.push(self.condition(condition));
        }
        while steps.len() < aliased.len() {
            let Some((at, side)) = next_join(&conditions, &bound) else {
                self.not_joined(aliased, base, &bound);
                // What is wrong with them may be why.
                for condition in conditions.iter().filter(|condition| !condition.used) {
                    self.condition(condition);
                }
                return None;
            };
            conditions[at].used = true;
            let sides = conditions[at]
                .sides
                .as_ref()
                .expect("only joins are chosen");
            let alias = sides[side].aliases[0];
            let other = sides[1 - side].aliases.first().copied();
            joined.push((alias, other));
            let path = conditions[at].path.clone();
            let (index_side, key_side) = (sides[side].json, sides[1 - side].json);
            let access = self.at_all(&path, |compiler| {
                let aliased = &aliased[alias - base];
                let key = compiler.at(2 - side, |compiler| compiler.expression(key_side));
                compiler.at(1 + side, |compiler| {
                    compiler.access(aliased, index_side, key)
                })
            });
            self.note_join((alias, other), &access, key_side, &path);
            bound.push(alias);
            let filters = self.filters(&mut conditions, &bound, &mut joined);
            steps.push(Step {
                alias,
                access,
                filters,
            });
        }
        Some((before, steps))
    }

    /// Notes how the entities of an alias lead back to what they are joined with.
    fn note_join(
        &mut self,
        (alias, other): (usize, Option<usize>),
        access: &Access,
        key: &Json,
        path: &[usize],
    ) {
        let own = match access {
            Access::Id(..) => Side::Id,
            Access::Index(index, _) => match self.program.indexes.get(*index as usize) {
                Some(index) => Side::Index(index.clone()),
                // It is wrong, which was noted.
                None => return,
            },
        };
        let other = way_back::of(self, other, key);
        let path = self.at_all(path, |compiler| compiler.here());
        if let Some(place) = self.scope.places.get(alias).copied() {
            self.joins.join(place, path, own, other);
        }
    }

    fn not_joined(&mut self, aliased: &[Aliased], base: usize, bound: &[usize]) {
        let missing: Vec<String> = aliased
            .iter()
            .enumerate()
            .filter(|(at, _)| !bound.contains(&(base + at)))
            .map(|(_, alias)| format!("\"{}\"", alias.alias))
            .collect();
        self.under("where", |compiler| {
            compiler.error(format!(
                "expected an \"eq\" that joins every alias with the source entity or with a \
                 joined alias, found none for {}; each side of the \"eq\" names one of the two",
                missing.join(", ")
            ));
        });
    }

    /// The conditions that can be decided once `bound` are.
    fn filters(
        &mut self,
        conditions: &mut [Condition<'_>],
        bound: &[usize],
        joined: &mut Vec<(usize, Option<usize>)>,
    ) -> Box<[Filter]> {
        let mut filters = Vec::new();
        for condition in conditions.iter_mut() {
            if condition.used || !condition.aliases.iter().all(|alias| bound.contains(alias)) {
                continue;
            }
            condition.used = true;
            let pair = condition.sides.as_ref().and_then(|[a, b]| pair_of(a, b));
            let Some(pair) = pair else {
                filters.push(Filter::True(self.condition(condition)));
                continue;
            };
            let same = |known: &(usize, Option<usize>)| {
                *known == pair || (pair.1 == Some(known.0) && known.1 == Some(pair.0))
            };
            if joined.iter().any(same) {
                self.at_all(&condition.path, |compiler| {
                    compiler.warning(
                        "expected one join between two datasets, found another one, which is an \
                         exact comparison here; write one join of [\"tuples\", … ] on both sides",
                    );
                });
                filters.push(Filter::True(self.condition(condition)));
                continue;
            }
            joined.push(pair);
            let [a, b] = condition.sides.as_ref().expect("it has a pair");
            let (a, b) = (a.json, b.json);
            let filter = self.at_all(&condition.path, |compiler| {
                let a = compiler.at(1, |compiler| compiler.expression(a));
                Filter::Overlap(a, compiler.at(2, |compiler| compiler.expression(b)))
            });
            filters.push(filter);
        }
        filters.into()
    }

    fn condition(&mut self, condition: &Condition<'_>) -> Expr {
        self.at_all(&condition.path, |compiler| {
            compiler.expression(condition.json)
        })
    }

    /// Does something at a place below `where`.
    fn at_all<T>(&mut self, path: &[usize], work: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.path.len();
        self.path.push(super::Segment::Name("where".to_owned()));
        self.path
            .extend(path.iter().map(|at| super::Segment::Position(*at)));
        let result = work(self);
        self.path.truncate(before);
        result
    }

    /// Collects conditions: a list of them, `and`s taken apart.
    fn conditions<'j>(&self, json: &'j Json, path: Vec<usize>, all: &mut Vec<Condition<'j>>) {
        let Json::Array(items) = json else {
            all.push(self.one_condition(json, path));
            return;
        };
        let skip = match items.first() {
            Some(Json::String(name)) if name == "and" => 1,
            Some(Json::String(_)) => {
                all.push(self.one_condition(json, path));
                return;
            }
            _ => 0,
        };
        for (at, item) in items.iter().enumerate().skip(skip) {
            let mut path = path.clone();
            path.push(at);
            self.conditions(item, path, all);
        }
    }

    fn one_condition<'j>(&self, json: &'j Json, path: Vec<usize>) -> Condition<'j> {
        let (aliases, _) = self.references(json);
        let sides = match json {
            Json::Array(items) if items.len() == 3 && items[0] == "eq" => {
                let side = |json: &'j Json| {
                    let (aliases, outer) = self.references(json);
                    End {
                        json,
                        aliases,
                        outer,
                    }
                };
                Some([side(&items[1]), side(&items[2])])
            }
            _ => None,
        };
        let sides = sides.filter(|[a, b]| pair_of(a, b).is_some());
        Condition {
            json,
            path,
            aliases,
            sides,
            used: false,
        }
    }

    /// The aliases in an expression, and whether it refers to anything outside the datasets.
    fn references(&self, json: &Json) -> (Vec<usize>, bool) {
        let mut aliases = Vec::new();
        let mut outer = false;
        self.collect(json, &mut aliases, &mut outer);
        aliases.sort_unstable();
        aliases.dedup();
        (aliases, outer)
    }

    fn collect(&self, json: &Json, aliases: &mut Vec<usize>, outer: &mut bool) {
        match json {
            Json::String(text) => {
                let head = text.split_once('.').map(|(head, _)| head);
                match head {
                    Some("_S" | "_T" | "_P" | "_R" | "_B") => *outer = true,
                    Some(head) => {
                        aliases.extend(self.scope.aliases.iter().rposition(|alias| alias == head));
                    }
                    None => {}
                }
            }
            Json::Array(items) => {
                items
                    .iter()
                    .for_each(|item| self.collect(item, aliases, outer));
            }
            Json::Object(pairs) => {
                pairs
                    .values()
                    .for_each(|item| self.collect(item, aliases, outer));
            }
            _ => {}
        }
    }

    /// How the entities of an alias are found by a key.
    fn access(&mut self, aliased: &Aliased, index: &Json, key: Expr) -> Access {
        if index.as_str() == Some(&format!("{}._id", aliased.alias)) {
            return Access::Id(self.dataset(&aliased.dataset, false, false), key);
        }
        match self.make_index(&aliased.dataset, &aliased.alias, index) {
            Some(index) => Access::Index(self.index(index), key),
            None => Access::Index(0, key),
        }
    }

    /// Adds the conditions of `subsets` to the steps of their aliases.
    fn subsets(
        &mut self,
        spec: &Map<String, Json>,
        aliased: &[Aliased],
        base: usize,
        plan: &mut (Vec<Expr>, Vec<Step>),
    ) {
        let given = ["subsets", PREFILTERS].into_iter();
        let mut given = given.filter_map(|name| Some((name, spec.get(name)?.as_object()?)));
        let Some((property, subsets)) = given.next() else {
            return;
        };
        for (name, json) in subsets {
            let filter = self.under(property, |compiler| {
                compiler.under(name, |compiler| compiler.subset(name, json, aliased, base))
            });
            let Some((alias, filter)) = filter else {
                continue;
            };
            if let Some(step) = plan.1.iter_mut().find(|step| step.alias == alias) {
                let mut filters = vec![filter];
                filters.extend(std::mem::take(&mut step.filters));
                step.filters = filters.into();
            }
        }
    }

    fn subset(
        &mut self,
        name: &str,
        json: &Json,
        aliased: &[Aliased],
        base: usize,
    ) -> Option<(usize, Filter)> {
        let Some(at) = aliased.iter().position(|alias| alias.alias == name) else {
            let help = self.nearest(name, aliased.iter().map(|alias| alias.alias.as_str()));
            self.error(format!(
                "expected an alias of \"datasets\", found \"{name}\"{help}"
            ));
            return None;
        };
        let sides = match json {
            Json::Array(items) if items.len() == 3 && items[0] == "eq" => &items[1..],
            other => {
                let found = describe(other);
                self.error(format!("expected [\"eq\", INDEX, VALUE], found {found}"));
                return None;
            }
        };
        let alias = base + at;
        let place = u16::try_from(alias).expect("aliases are few");
        let index = self.at(1, |compiler| {
            compiler.scoped(
                |scope| scope.source_alias = Some(place),
                |compiler| compiler.expression(&sides[0]),
            )
        });
        let value = self.at(2, |compiler| compiler.expression(&sides[1]));
        Some((alias, Filter::Overlap(index, value)))
    }
}

/// Where what a spec returns comes from: its own aliases begin at `base` and stand for `places`, and
/// a recursion begins at `roots`.
fn returned(spec: &Spec, base: usize, places: &[usize], roots: Option<Vec<Origin>>) -> Vec<Origin> {
    let own = |place: &usize| Origin::Place(*place);
    match (&spec.recursion, &spec.returns) {
        (Some(recursion), _) => {
            let roots = roots.filter(|_| !recursion.exclude_root);
            let last = places.last().map(own);
            roots.into_iter().flatten().chain(last).collect()
        }
        (None, Returns::Aliases(all)) => {
            let places = all.iter().filter_map(|alias| places.get(alias - base));
            places.map(own).collect()
        }
        (None, Returns::Template(_)) => vec![Origin::Made],
    }
}

/// The two ends of a join: an alias, and another alias or the outside (`None`). Each side names
/// exactly one.
fn pair_of(a: &End<'_>, b: &End<'_>) -> Option<(usize, Option<usize>)> {
    let end = |side: &End<'_>| match (side.aliases.as_slice(), side.outer) {
        ([alias], false) => Some(Some(*alias)),
        ([], true) => Some(None),
        _ => None,
    };
    match (end(a)?, end(b)?) {
        (Some(a), other) if other != Some(a) => Some((a, other)),
        (None, Some(b)) => Some((b, None)),
        _ => None,
    }
}

/// The first join with one side bound and one side not: its place, and the unbound side.
fn next_join(conditions: &[Condition<'_>], bound: &[usize]) -> Option<(usize, usize)> {
    conditions
        .iter()
        .enumerate()
        .filter(|(_, condition)| !condition.used)
        .find_map(|(at, found)| {
            let sides = found.sides.as_ref()?;
            let is_bound = |side: &End<'_>| side.aliases.iter().all(|alias| bound.contains(alias));
            match (is_bound(&sides[0]), is_bound(&sides[1])) {
                (true, false) => Some((at, 1)),
                (false, true) => Some((at, 0)),
                _ => None,
            }
        })
}
