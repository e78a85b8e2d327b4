//! What several entities become: one, by the strategy of the merge source.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tahini_entity::encoding::{self, EncodeError, Token};
use tahini_entity::{Batch, Dict, Meta, Offset, Record, Shape, Str, Value, order};

use super::rules::{Merging, Strategy};

/// Names the entities that were merged.
const IDS: &str = "$ids";
const MERGED: &str = "$merged";
const REPLACED: &str = "$replaced";

/// Puts entities together; remembers what it worked out for the shapes that it met.
pub(super) struct Blend {
    strategy: Strategy,
    internal: bool,
    namespace: Option<Str>,
    plans: Vec<(Vec<Arc<Shape>>, Arc<Plan>)>,
    scratch: Vec<u8>,
}

/// Where the properties of a merged entity come from.
struct Plan {
    shape: Arc<Shape>,
    /// For each property, `$ids` left out: members and the places of its values there.
    from: Vec<Vec<(usize, usize)>>,
}

/// Shapes that are remembered.
const MOST_PLANS: usize = 64;

impl Blend {
    pub(super) fn new(merging: &Merging) -> Blend {
        Blend {
            strategy: merging.strategy,
            internal: merging.internal,
            namespace: merging.namespace.clone(),
            plans: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Appends what `members` become under `id`.
    ///
    /// # Errors
    /// Where values would nest too deep.
    pub(super) fn put(
        &mut self,
        id: &str,
        members: &[Record<'_>],
        meta: Meta,
        out: &mut Batch,
    ) -> Result<(), EncodeError> {
        self.scratch.clear();
        encoding::encode(&self.ids(members), &mut self.scratch)?;
        let mut body = std::mem::take(&mut self.scratch);
        let shape = match self.strategy {
            Strategy::List => {
                let merged = members.iter().map(|member| self.listed(member));
                encoding::encode(&Value::List(merged.collect()), &mut body)?;
                Arc::new(Shape::new([IDS.into(), MERGED.into()]))
            }
            Strategy::Union => {
                let plan = self.plan(members);
                union(&plan, members, &mut body)?;
                Arc::clone(&plan.shape)
            }
            Strategy::Compact => compact(&self.plan(members), members, &mut body)?,
        };
        out.push_encoded(Some(id), &shape, &body, meta);
        self.scratch = body;
        Ok(())
    }

    /// `$ids`: those that the members have, or their own.
    fn ids(&self, members: &[Record<'_>]) -> Value {
        let mut ids: Vec<Value> = Vec::with_capacity(members.len());
        for member in members {
            match member.value(IDS) {
                Some(Value::List(own)) => ids.extend(own.iter().cloned()),
                Some(Value::Null) | None => ids.extend(member.id.map(|id| self.own(id))),
                Some(one) => ids.push(one),
            }
        }
        if ids.len() > 1 {
            let mut seen = HashSet::new();
            ids.retain(|id| seen.insert(order::key(id)));
        }
        Value::List(ids.into_iter().collect())
    }

    fn own(&self, id: &str) -> Value {
        match &self.namespace {
            None => Value::string(id),
            Some(_) if id.contains(':') => Value::Ni(id.into()),
            Some(namespace) => Value::Ni(format!("{namespace}:{id}").into()),
        }
    }

    /// A member of `$merged`.
    fn listed(&self, member: &Record<'_>) -> Value {
        let entity = member.to_entity();
        let mut dict = Dict::new();
        dict.push_new("_id", entity.id.map_or(Value::Null, Value::String));
        if self.internal {
            if let Some(Offset::Int(updated)) = entity.updated {
                dict.push_new("_updated", Value::Int(updated));
            }
            let previous = entity.previous.and_then(|seq| i64::try_from(seq).ok());
            dict.push_new("_previous", previous.map_or(Value::Null, Value::Int));
            dict.push_new("_deleted", Value::Bool(entity.deleted));
            dict.push_new("_ts", entity.ts.map_or(Value::Null, Value::Int));
            dict.push_new("_hash", Value::string(format!("{:032x}", member.hash())));
        }
        for (name, value) in entity.properties.iter() {
            dict.set(name.clone(), value.clone());
        }
        Value::Dict(dict)
    }

    /// Where what comes of entities of these shapes is found.
    fn plan(&mut self, members: &[Record<'_>]) -> Arc<Plan> {
        let fits = |(shapes, _): &&(Vec<Arc<Shape>>, Arc<Plan>)| {
            let members = members.iter().map(|member| member.shape);
            shapes.len() == members.len()
                && shapes
                    .iter()
                    .zip(members)
                    .all(|(one, two)| Arc::ptr_eq(one, two) || one == two)
        };
        if let Some((_, plan)) = self.plans.iter().find(fits) {
            return Arc::clone(plan);
        }
        let plan = Arc::new(Plan::of(members));
        let shapes = members.iter().map(|member| Arc::clone(member.shape));
        if self.plans.len() >= MOST_PLANS {
            self.plans.clear();
        }
        // Many members are seldom met again in just these shapes.
        if members.len() <= 8 {
            self.plans.push((shapes.collect(), Arc::clone(&plan)));
        }
        plan
    }
}

impl Plan {
    fn of(members: &[Record<'_>]) -> Plan {
        let mut names: Vec<Str> = vec![IDS.into()];
        let mut from: Vec<Vec<(usize, usize)>> = Vec::new();
        let mut places = HashMap::new();
        for (at, member) in members.iter().enumerate() {
            for (place, name) in member.shape.names().iter().enumerate() {
                if name == IDS || name.starts_with('_') {
                    continue;
                }
                let known = *places.entry(name.clone()).or_insert_with(|| {
                    names.push(name.clone());
                    from.push(Vec::new());
                    from.len() - 1
                });
                from[known].push((at, place));
            }
        }
        Plan {
            shape: Arc::new(Shape::new(names)),
            from,
        }
    }
}

/// The encoded values of each member.
fn opened<'r>(members: &[Record<'r>]) -> Vec<Vec<&'r [u8]>> {
    let values = |member: &Record<'r>| {
        let mut rest = member.body;
        let names = member.shape.names().iter();
        names.map(|_| encoding::take(&mut rest)).collect()
    };
    members.iter().map(values).collect()
}

/// All values of every property; what only one member has stays as it is.
fn union(plan: &Plan, members: &[Record<'_>], body: &mut Vec<u8>) -> Result<(), EncodeError> {
    let values = opened(members);
    for from in &plan.from {
        match from.as_slice() {
            [(member, place)] => body.extend_from_slice(values[*member][*place]),
            several => {
                let mut all = Vec::new();
                for (member, place) in several {
                    all.extend(items(values[*member][*place]));
                }
                encoding::encode(&Value::List(all.into_iter().collect()), body)?;
            }
        }
    }
    Ok(())
}

/// Every value once; empty lists are left out, and lists of one value are that value.
fn compact(
    plan: &Plan,
    members: &[Record<'_>],
    body: &mut Vec<u8>,
) -> Result<Arc<Shape>, EncodeError> {
    let values = opened(members);
    let mut left_out = Vec::new();
    for (at, from) in plan.from.iter().enumerate() {
        let (member, place) = from[0];
        let first = values[member][place];
        // What all members say alike and is no list is what most properties are.
        if !is_list(first) && from[1..].iter().all(|(m, p)| values[*m][*p] == first) {
            body.extend_from_slice(first);
            continue;
        }
        let mut all: Vec<Value> = Vec::new();
        for (member, place) in from {
            all.extend(items(values[*member][*place]));
        }
        let mut seen: HashSet<u128> = HashSet::new();
        all.retain(|value| seen.insert(order::key(value)));
        match all.len() {
            0 => left_out.push(at),
            1 => encoding::encode(&all[0], body)?,
            _ => encoding::encode(&Value::List(all.into_iter().collect()), body)?,
        }
    }
    if left_out.is_empty() {
        return Ok(Arc::clone(&plan.shape));
    }
    let names = plan.shape.names().iter().enumerate();
    // The first name is that of the ids.
    let names = names.filter(|(at, _)| *at == 0 || !left_out.contains(&(at - 1)));
    Ok(Arc::new(Shape::new(names.map(|(_, name)| name.clone()))))
}

fn is_list(mut value: &[u8]) -> bool {
    matches!(encoding::token(&mut value), Ok(Token::List(_)))
}

/// The items of a list, or the value alone.
fn items(mut value: &[u8]) -> Vec<Value> {
    match encoding::decode(&mut value) {
        Value::List(items) => items.into_iter().collect(),
        one => vec![one],
    }
}

/// Appends a deletion of `id`, which was replaced by others or not.
pub(super) fn gone(id: &str, replaced: bool, out: &mut Batch) {
    let meta = Meta {
        deleted: true,
        ..Meta::default()
    };
    match replaced {
        false => out.push_encoded(Some(id), &Arc::new(Shape::new([])), &[], meta),
        true => {
            let mut body = Vec::new();
            let shape = Arc::new(Shape::new([REPLACED.into()]));
            if encoding::encode(&Value::Bool(true), &mut body).is_ok() {
                out.push_encoded(Some(id), &shape, &body, meta);
            }
        }
    }
}
