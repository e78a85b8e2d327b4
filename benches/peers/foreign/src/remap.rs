//! The Vector Remap Language.

use std::collections::BTreeMap;

use vrl::compiler::{Program, TargetValue, TimeZone, runtime::Runtime};
use vrl::value::{Secrets, Value};

const RULES: &str = include_str!("../../rules/people.vrl");

/// The compiled program and what it runs in.
pub struct Remap {
    program: Program,
    runtime: Runtime,
    zone: TimeZone,
}

impl Remap {
    pub fn new() -> Remap {
        let compiled = vrl::compiler::compile(RULES, &vrl::stdlib::all());
        Remap {
            program: compiled.expect("the rules compile").program,
            runtime: Runtime::default(),
            zone: TimeZone::default(),
        }
    }

    /// One entity's line to the line of its result, or to nothing.
    pub fn transform(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let mut target = parse(line);
        if self.evaluate(&mut target) {
            serde_json::to_writer(&mut *out, &target.value).expect("a value is JSON");
            out.push(b'\n');
        }
    }

    /// Changes one entity; whether it is still wanted.
    pub fn evaluate(&mut self, target: &mut TargetValue) -> bool {
        self.runtime.clear();
        self.runtime.resolve(target, &self.program, &self.zone).is_ok()
    }
}

pub fn parse(line: &[u8]) -> TargetValue {
    TargetValue {
        value: serde_json::from_slice::<Value>(line).expect("a line is JSON"),
        metadata: Value::Object(BTreeMap::new()),
        secrets: Secrets::default(),
    }
}
