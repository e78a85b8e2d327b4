//! `tahini test`: a project's tests, in this process.

mod published;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tahini_hub::check::{Checked, check};
use tahini_hub::receiver::{Push, receive};
use tahini_hub::settle::{self, Ending, Options, Rest};
use tahini_hub::{Cancel, Configuration, Problem};
use tahini_store::{Backend, Memory};

use super::run::{assemble, explain, stop_runs_on};
use crate::assembly::{Assembly, Loaded, print_problems, read_objects};
use crate::cli::{FAILED, INTERRUPTED, INVALID, OK, Test};
use crate::say;

const STOPPED: &str = "stopped before all tests were run";

/// What came of a project's tests.
#[derive(Default)]
struct Verdict {
    checked: Vec<Checked>,
    /// What is wrong beside single tests; with any of it, passed tests do not make a success.
    problems: Vec<String>,
    code: u8,
}

/// Runs the project to rest in memory, then its tests. What is wrong with one pipe fails the
/// tests that need it, and no others.
pub fn test(options: &Test) -> anyhow::Result<u8> {
    let mut verdict = match try_test(options) {
        Ok(verdict) => verdict,
        Err(error) if options.json => {
            print_json(&[], &[format!("{error:#}")]);
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    if verdict.code == INTERRUPTED {
        say::error_line(STOPPED);
        verdict.problems.push(STOPPED.to_owned());
    }
    if options.json {
        print_json(&verdict.checked, &verdict.problems);
    } else if verdict.code != INTERRUPTED {
        print(&verdict.checked);
    }
    Ok(verdict.code)
}

fn try_test(options: &Test) -> anyhow::Result<Verdict> {
    let mut loaded = Loaded::read(
        std::slice::from_ref(&options.project),
        &options.setting.profile,
    )?;
    loaded.env.extend(read_objects(&options.setting.env)?);
    let configuration = loaded.configure();
    let mut verdict = Verdict::default();
    let invalid = {
        let problems = loaded.problems(&configuration);
        let errors = problems.iter().filter(|problem| problem.is_error());
        verdict.problems.extend(errors.map(ToString::to_string));
        print_problems(&problems)
    };
    let store: Arc<dyn Backend> = Arc::new(Memory::new());
    let assembly = assemble(store, &options.setting)?;
    let cancel = super::until_interrupted();
    stop_runs_on(&cancel, &assembly);
    let rest = settle_in_memory(&loaded, &assembly, configuration, &cancel, &mut verdict);
    if rest
        .as_ref()
        .is_ok_and(|rest| rest.ending != Ending::Stopped)
    {
        verdict.checked = run_tests(&loaded, &assembly, options.update, &cancel);
    }
    assembly.close();
    let rest = rest?;
    let failed = verdict.checked.iter().any(|one| !one.passed);
    verdict.code = match rest.ending {
        Ending::Stopped => INTERRUPTED,
        _ if cancel.is_cancelled() => INTERRUPTED,
        _ if invalid => INVALID,
        _ if failed || !rest.is_settled() || !verdict.problems.is_empty() => FAILED,
        _ => OK,
    };
    Ok(verdict)
}

/// Brings the project into the state that its tests look at.
fn settle_in_memory(
    loaded: &Loaded,
    assembly: &Assembly,
    configuration: Configuration,
    cancel: &Cancel,
    verdict: &mut Verdict,
) -> anyhow::Result<Rest> {
    let mut complain = |words: String| {
        say::progress_end();
        say::error_line(&words);
        verdict.problems.push(words);
    };
    for problem in assembly.apply(configuration)? {
        complain(problem.to_string());
    }
    for (pipe, file) in loaded.projects.iter().flat_map(|project| &project.testdata) {
        if let Err(error) = post(assembly, pipe, file) {
            complain(format!("{}: {error:#}", file.display()));
        }
    }
    // Pipes that write to the outside are looked at, never run.
    let what = Options {
        outputs: false,
        ..Options::default()
    };
    let rest = settle::settle(&assembly.hub, &what, cancel, |ran| {
        say::progress(&format!("pass {}: {} …", ran.pass, ran.pipe));
        // What is wrong with a configuration was told before.
        let usable = |pipe: &str| {
            assembly
                .hub
                .pipe(pipe)
                .is_ok_and(|live| live.usable().is_ok())
        };
        if let Some(failure) = ran.summary.failure.as_ref().filter(|_| usable(&ran.pipe)) {
            complain(format!("pipe {:?} failed: {failure}", ran.pipe));
        }
    });
    say::progress_end();
    let rest = rest?;
    if rest.ending != Ending::Stopped {
        explain(&rest);
    }
    let restless = rest.restless.iter();
    verdict.problems.extend(
        restless.map(|(pipe, ids)| format!("pipe {pipe:?} keeps changing {}", ids.join(", "))),
    );
    verdict.problems.extend(rest.waits.iter().cloned());
    Ok(rest)
}

/// Posts a file of test data to the pipe that it is named after.
fn post(assembly: &Assembly, pipe: &str, file: &Path) -> anyhow::Result<()> {
    let live = assembly.hub.pipe(pipe)?;
    receive(&assembly.hub, &live, &Push::default(), File::open(file)?)?;
    Ok(())
}

fn run_tests(loaded: &Loaded, assembly: &Assembly, update: bool, cancel: &Cancel) -> Vec<Checked> {
    let tests = loaded.projects.iter().flat_map(|project| &project.tests);
    let mut all = Vec::new();
    for spec in tests.filter(|spec| !spec.ignore) {
        let hub = &assembly.hub;
        let mut checked = match published::publication(spec) {
            Some(one) => published::check(one, spec, hub, update, cancel),
            None => check(spec, hub, update, cancel),
        };
        if cancel.is_cancelled() {
            // What a test says that was stopped on its way is not worth telling.
            return all;
        }
        if assembly.hub.pipe(&spec.pipe).is_err() {
            // A file that cannot be read has no pipe; then it is the file that is to blame.
            for why in unread(loaded, &spec.pipe) {
                checked.message.push_str(&format!("\n{why}"));
            }
        }
        all.push(checked);
    }
    all
}

/// What is wrong with the file that is named after a pipe.
fn unread<'a>(loaded: &'a Loaded, pipe: &str) -> impl Iterator<Item = &'a Problem> {
    let name = format!("{pipe}.conf.json");
    let problems = loaded.projects.iter().flat_map(|project| &project.problems);
    problems.filter(move |problem| {
        let file = problem.file.as_ref().and_then(|file| file.file_name());
        file.is_some_and(|file| *file == *name)
    })
}

/// The tests, and beside them what no test tells.
fn print_json(checked: &[Checked], problems: &[String]) {
    let tests: Vec<_> = checked
        .iter()
        .map(|one| json!({"name": one.name, "passed": one.passed, "message": one.message}))
        .collect();
    say::line(&json!({ "tests": tests, "problems": problems }).to_string());
}

fn print(checked: &[Checked]) {
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
