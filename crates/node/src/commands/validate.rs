//! `tahini validate`: everything that is wrong with a project, at once.

use serde_json::json;

use crate::assembly::{Loaded, count, print_problems, read_objects};
use crate::cli::{INVALID, OK, Validate};
use crate::say;

/// Prints every problem; only errors make the exit code.
pub fn validate(options: &Validate) -> anyhow::Result<u8> {
    let mut loaded = Loaded::read(
        std::slice::from_ref(&options.project),
        &options.setting.profile,
    )?;
    loaded.env.extend(read_objects(&options.setting.env)?);
    let configuration = loaded.configure();
    let problems = loaded.problems(&configuration);
    let (errors, warnings) = count(&problems);
    if options.json {
        let all: Vec<_> = problems.iter().map(|problem| problem.to_report()).collect();
        say::line(&json!({"problems": all, "errors": errors, "warnings": warnings}).to_string());
    } else {
        print_problems(&problems);
        let (pipes, systems) = (
            configuration.pipes().count(),
            configuration.systems().count(),
        );
        say::line(&format!(
            "{pipes} pipes, {systems} systems: {errors} errors, {warnings} warnings"
        ));
    }
    Ok(if errors > 0 { INVALID } else { OK })
}
