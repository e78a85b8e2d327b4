//! `tahini validate`: everything that is wrong with a project, at once.

use crate::assembly::{Loaded, read_objects, report};
use crate::cli::Validate;

/// Prints every problem; only errors make the exit code.
pub fn validate(options: &Validate) -> anyhow::Result<u8> {
    let mut loaded = Loaded::read(
        std::slice::from_ref(&options.project),
        &options.setting.profile,
    )?;
    loaded.env.extend(read_objects(&options.setting.env)?);
    let configuration = loaded.configure();
    let problems = loaded.problems(&configuration);
    Ok(report(&configuration, &problems, options.json))
}
