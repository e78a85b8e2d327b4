//! A transform that does what a test tells it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tahini_entity::{Batch, Value};
use tahini_hub::registry::TransformDef;
use tahini_hub::{Cancel, Failure, Transform};

use crate::script::{Gate, Meanwhile, Script, WORLDS};

/// What a scripted transform does with entities; those that it does not know pass as they are.
#[derive(Default)]
pub struct Middle {
    pub refuses: BTreeSet<String>,
    /// It refuses versions whose property `v` is this.
    pub refuses_v: Option<i64>,
    /// How many batches of several entities fail from now on.
    pub failing_batches: usize,
    /// What a refusal is; without one it is an entity failure of status 422.
    pub failure: Option<Failure>,
    pub discards: BTreeSet<String>,
    /// Entities that lose their ids.
    pub nameless: BTreeSet<String>,
    /// What stands before the ids of all others afterwards.
    pub prefix: String,
    /// Before this entity it waits.
    pub gate: Option<(String, Gate)>,
    /// What happens before this entity comes through, once.
    pub meanwhile: Option<(String, Meanwhile)>,
    /// What it was given, and whether that came through.
    pub attempts: Vec<(Vec<String>, bool)>,
}

pub const DEF: TransformDef = TransformDef {
    name: "scripted",
    summary: "Does what the test says.",
    properties: &[],
    stands_for: None,
    open: |ctx| {
        let key = ctx.whole.map()["source"]["world"].as_str().unwrap();
        Ok(Box::new(ScriptedTransform {
            script: Arc::clone(&WORLDS.lock().unwrap()[key]),
            pipe: ctx.owner.to_owned(),
            cancel: ctx.cancel.clone(),
        }))
    },
};

struct ScriptedTransform {
    script: Arc<Script>,
    pipe: String,
    cancel: Cancel,
}

impl Transform for ScriptedTransform {
    fn apply(
        &mut self,
        input: &Batch,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), Failure> {
        let mut transforms = self.script.transforms.lock().unwrap();
        let middle = transforms.entry(self.pipe.clone()).or_default();
        if let Some((id, gate)) = middle.gate.clone()
            && input.iter().any(|record| record.id == Some(&id))
        {
            drop(transforms);
            gate.pass(&self.cancel)?;
            transforms = self.script.transforms.lock().unwrap();
        }
        let middle = transforms.entry(self.pipe.clone()).or_default();
        let is_due = |id: &str| input.iter().any(|record| record.id == Some(id));
        if let Some((_, happens)) = middle.meanwhile.take_if(|(id, _)| is_due(id)) {
            drop(transforms);
            happens();
            transforms = self.script.transforms.lock().unwrap();
        }
        let middle = transforms.entry(self.pipe.clone()).or_default();
        let mut ids = Vec::new();
        let mut refused = None;
        for record in input.iter() {
            let id = record.id.unwrap_or("?").to_owned();
            let v = record.value("v");
            let wrong = middle
                .refuses_v
                .is_some_and(|v1| matches!(v, Some(Value::Int(v2)) if v1 == v2));
            if wrong || middle.refuses.contains(&id) {
                refused.get_or_insert(id.clone());
            }
            ids.push(id);
        }
        let fails = ids.len() > 1 && middle.failing_batches > 0;
        middle.failing_batches -= usize::from(fails);
        middle
            .attempts
            .push((ids.clone(), refused.is_none() && !fails));
        if refused.is_some() || fails {
            let words = format!("the transform refused {}", refused.unwrap_or_default());
            let failure = middle.failure.clone();
            return Err(failure.unwrap_or_else(|| Failure::entity(words).with_status(422)));
        }
        for (at, (record, id)) in input.iter().zip(&ids).enumerate() {
            if middle.discards.contains(id) {
                continue;
            }
            let mut entity = record.to_entity();
            entity.id = match middle.nameless.contains(id) {
                true => None,
                false => Some(format!("{}{id}", middle.prefix).as_str().into()),
            };
            entity.properties.set("through", Value::Bool(true));
            out.push_entity(&entity).unwrap();
            origins.push(u32::try_from(at).unwrap());
        }
        Ok(())
    }
}
