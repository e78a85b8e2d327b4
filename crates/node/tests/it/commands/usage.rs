//! What all commands have in common: help, codes, colours, and what they leave on disk.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Project, embedded};

#[test]
fn wrong_usage_has_a_code_of_its_own() {
    let project = Project::of(&[]);
    for args in [
        &["fly"][..],
        &[],
        &["run"],
        &["run", ".", "--max-passes", "many"],
        &["serve", "--listen", "9042"],
        &["token"],
        &["token", "create", "--role", "king"],
        &["entities"],
        &["transform", "rules.json", "--json"],
    ] {
        let said = project.call(args);
        assert_eq!(
            (said.code, said.out.as_str()),
            (2, ""),
            "{args:?}: {}",
            said.err
        );
        assert!(said.err.contains("--help"), "{args:?}: {}", said.err);
    }
}

#[test]
fn help_has_examples_and_the_version_its_commit() {
    let project = Project::of(&[]);
    for args in [
        &["--help"][..],
        &["trace", "--help"],
        &["token", "create", "--help"],
    ] {
        let said = project.call(args);
        assert_eq!(said.code, 0);
        assert!(
            said.out.contains("Examples:\n  tahini "),
            "{args:?}: {}",
            said.out
        );
    }
    let said = project.call(&["--version"]);
    let version = said.out.strip_prefix("tahini 0.1.0").unwrap().trim_end();
    assert!(version.is_empty() || version.starts_with(" ("), "{version}");
}

#[test]
fn a_token_is_made_under_a_key_that_only_its_owner_reads() {
    let project = Project::of(&[]);
    let file = project.0.path().join("keys/token.key");
    let key = [("TAHINI_TOKEN_KEY_FILE", file.to_str().unwrap())];
    let make = |args: &[&str]| project.call_with(args, "", &key);
    let said = make(&["token", "create", "--role", "reader", "--expires", "12h"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let claims = claims(said.out.trim_end());
    assert_eq!(claims["role"], "reader");
    let lasts = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(lasts, 12 * 60 * 60);
    assert!(claims.get("principals").is_none(), "{claims}");
    assert_eq!(mode(&file), 0o600);
    let kept = std::fs::read(&file).unwrap();
    assert_eq!(make(&["token", "create"]).code, 0);
    assert_eq!(std::fs::read(&file).unwrap(), kept, "the key is made once");
    let said = make(&["token", "create", "--expires", "soon"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(said.err.contains("soon"), "{}", said.err);
}

fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let middle = token.split('.').nth(1).unwrap();
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    serde_json::from_slice(&engine.decode(middle).unwrap()).unwrap()
}

#[test]
fn completions_are_printed_for_each_shell() {
    let project = Project::of(&[]);
    for (shell, words) in [
        ("bash", "_tahini()"),
        ("zsh", "#compdef tahini"),
        ("fish", "complete -c tahini"),
    ] {
        let said = project.call(&["completions", shell]);
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(said.out.contains(words), "{words} for {shell}");
        assert!(said.out.contains("validate"), "{shell} knows the commands");
    }
}

/// What a command prints on a terminal, whose own output is a pipe.
fn on_a_terminal(line: &str, folder: &Path, variable: Option<(&str, &str)>) -> String {
    let mut script = Command::new("script");
    // What the tests run under has no say: a CI's log, for example, takes colours.
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        script.env_remove(name);
    }
    let output = script
        .args(["-qec", line, "/dev/null"])
        .env("TERM", "xterm")
        .envs(variable)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let project = Project::of(&[]);
    let folder = project.0.path();
    // The help of a wrong command is coloured.
    let line = format!("{} fly", env!("CARGO_BIN_EXE_tahini"));
    assert!(on_a_terminal(&line, folder, None).contains("\x1b["));
    for refusal in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let said = on_a_terminal(&line, folder, Some(refusal));
        assert!(
            said.contains("fly") && !said.contains('\x1b'),
            "{refusal:?}: {said:?}"
        );
    }
    assert!(!project.call(&["fly"]).err.contains('\x1b'));
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The files and folders below a folder, and itself.
fn all_below(path: &Path) -> Vec<std::path::PathBuf> {
    let mut all = vec![path.to_owned()];
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            all.extend(all_below(&entry.unwrap().path()));
        }
    }
    all
}

#[test]
fn datasets_are_for_their_owner_only() {
    let project = Project::of(&[embedded("p", "x")]);
    assert_eq!(project.call(&["run", ".", "--data", "some/data"]).code, 0);
    let data = project.0.path().join("some/data");
    assert_eq!(mode(&data), 0o700);
    let all = all_below(&data);
    assert!(all.len() > 5, "{all:?}");
    for path in all {
        assert_eq!(
            mode(&path) & 0o077,
            0,
            "{}: {:o}",
            path.display(),
            mode(&path)
        );
    }
}

#[test]
fn problems_for_machines_have_their_places() {
    let project = Project::of(&[]);
    let text = "{\n  \"_id\": \"p\",\n  \"type\": \"pipe\",\n  \"source\": {\"type\": \"jsn\"}\n}";
    project.write("pipes/p.conf.json", text);
    let said = project.call(&["validate", ".", "--json"]);
    assert_eq!(said.code, 3, "{}", said.err);
    let report = said.json();
    assert_eq!(report["errors"], 1, "{report}");
    let problem = &report["problems"][0];
    for (name, value) in [
        ("level", json!("error")),
        ("component", json!("p")),
        ("line", json!(4)),
        ("column", json!(22)),
        ("path", json!("$.source.type")),
        ("elements", json!("$['source']['type']")),
    ] {
        assert_eq!(problem[name], value, "{name} in {problem}");
    }
    assert!(
        problem["file"]
            .as_str()
            .unwrap()
            .ends_with("pipes/p.conf.json"),
        "{problem}"
    );
    assert!(
        problem["msg"].as_str().unwrap().contains("\"jsn\""),
        "{problem}"
    );
    assert!(
        problem["help"].as_str().unwrap().contains("json"),
        "{problem}"
    );
}
