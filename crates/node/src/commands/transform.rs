//! `tahini transform`: entities through rules, from stdin to stdout.

use std::path::Path;
use std::sync::Arc;

use tahini_hub::Pipe;
use tahini_store::{Backend, Memory};

use super::rules::Rules;
use crate::assembly::{Assembly, REGISTRY, read_objects};
use crate::cli::{INVALID, OK, Setting, Transform};

/// Reads NDJSON or an array, writes a line an entity.
pub fn transform(options: &Transform) -> anyhow::Result<u8> {
    let Some(opened) = open(&options.rules, &options.setting)? else {
        return Ok(INVALID);
    };
    let looks = options.explain
        || options.now.is_some()
        || !options.datasets.is_empty()
        || super::look::joins(&opened)?;
    let code = match looks {
        true => super::look::look(&opened, options),
        false => super::stream::pump(&opened.pipe, &opened.assembly.hub.world, &opened.rules)
            .map(|()| OK),
    };
    let code = code?;
    opened.assembly.close();
    Ok(code)
}

/// Rules as a pipe, ready to be opened.
pub(super) struct Opened {
    pub(super) pipe: Pipe,
    pub(super) assembly: Assembly,
    pub(super) rules: Rules,
}

/// Reads rules from a file; `None` when they have errors, which are printed.
pub(super) fn open(file: &Path, setting: &Setting) -> anyhow::Result<Option<Opened>> {
    let env = read_objects(&setting.env)?;
    let Some((component, rules)) = super::rules::read(file, &env)? else {
        return Ok(None);
    };
    let pipe = Pipe::of(&component, &REGISTRY)?;
    let store: Arc<dyn Backend> = Arc::new(Memory::new());
    let assembly = super::run::assemble(store, setting)?;
    Ok(Some(Opened {
        pipe,
        assembly,
        rules,
    }))
}
