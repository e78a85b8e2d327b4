//! `tahini test`: a project's tests, in this process.

use std::fs::File;
use std::sync::Arc;

use anyhow::Context;
use serde_json::json;
use tahini_hub::check::{Checked, check};
use tahini_hub::receiver::{Push, receive};
use tahini_hub::settle::{self, Options, Rest};
use tahini_store::{Backend, Memory};

use super::run::{assemble, stop_runs_on};
use crate::assembly::{Assembly, Loaded, print_problems, read_objects};
use crate::cli::{FAILED, INTERRUPTED, INVALID, OK, Test};
use crate::say;

/// Runs the project to rest in memory, then its tests.
pub fn test(options: &Test) -> anyhow::Result<u8> {
    let mut loaded = Loaded::read(
        std::slice::from_ref(&options.project),
        &options.setting.profile,
    )?;
    loaded.env.extend(read_objects(&options.setting.env)?);
    let configuration = loaded.configure();
    let problems = loaded.problems(&configuration);
    let (errors, _) = crate::assembly::count(&problems);
    if errors > 0 {
        print_problems(&problems);
        return Ok(INVALID);
    }
    let store: Arc<dyn Backend> = Arc::new(Memory::new());
    let assembly = assemble(store, &options.setting)?;
    let cancel = super::until_interrupted();
    stop_runs_on(&cancel, &assembly);
    for problem in assembly.apply(configuration)? {
        say::error_line(&problem.to_string());
    }
    let outcome = post_testdata(&loaded, &assembly).and_then(|()| {
        // Pipes that write to the outside are looked at, never run.
        let what = Options {
            outputs: false,
            ..Options::default()
        };
        Ok(settle::settle(&assembly.hub, &what, &cancel, |ran| {
            say::progress(&format!("pass {}: {} …", ran.pass, ran.pipe));
            if let Some(failure) = &ran.summary.failure {
                say::progress_end();
                say::error_line(&format!("pipe {:?} failed: {failure}", ran.pipe));
            }
        })?)
    });
    say::progress_end();
    let checked = outcome.map(|rest| (rest, run_tests(&loaded, &assembly, options.update)));
    assembly.close();
    let (rest, checked) = checked?;
    if rest == Rest::Stopped {
        return Ok(INTERRUPTED);
    }
    print(&checked, options.json);
    let restless = !matches!(rest, Rest::Settled);
    if restless {
        say::error_line(&format!("the project did not come to rest: {rest:?}"));
    }
    let failed = restless || checked.iter().any(|one| !one.passed);
    Ok(if failed { FAILED } else { OK })
}

fn post_testdata(loaded: &Loaded, assembly: &Assembly) -> anyhow::Result<()> {
    for (pipe, file) in loaded.projects.iter().flat_map(|project| &project.testdata) {
        let live = assembly
            .hub
            .pipe(pipe)
            .with_context(|| file.display().to_string())?;
        let body = File::open(file).with_context(|| file.display().to_string())?;
        receive(&assembly.hub, &live, &Push::default(), body)
            .with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn run_tests(loaded: &Loaded, assembly: &Assembly, update: bool) -> Vec<Checked> {
    let tests = loaded.projects.iter().flat_map(|project| &project.tests);
    tests
        .filter(|spec| !spec.ignore)
        .map(|spec| check(spec, &assembly.hub, update))
        .collect()
}

fn print(checked: &[Checked], as_json: bool) {
    if as_json {
        let tests: Vec<_> = checked
            .iter()
            .map(|one| json!({"name": one.name, "passed": one.passed, "message": one.message}))
            .collect();
        say::line(&json!({ "tests": tests }).to_string());
        return;
    }
    for one in checked {
        let word = if one.passed { "ok    " } else { "FAILED" };
        say::line(&format!("{word} {}", one.name));
        one.message
            .lines()
            .for_each(|line| say::line(&format!("       {line}")));
    }
    let failed = checked.iter().filter(|one| !one.passed).count();
    say::line(&format!(
        "{} passed, {failed} failed",
        checked.len() - failed
    ));
    if checked.is_empty() {
        say::error_line("no tests found: a test is a file expected/<pipe>.test.json");
    }
}
