//! Tells the binary which commit it is built from, by reading what git keeps; no git is needed,
//! and without a repository the version says nothing of it.
#![allow(
    clippy::print_stdout,
    reason = "printing is how a build script talks to cargo"
)]

use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=TAHINI_BUILD_REVISION");
    let told = std::env::var("TAHINI_BUILD_REVISION");
    let told = told.ok().filter(|text| !text.is_empty());
    let commit = told.or_else(|| {
        let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from)?;
        let (commit, files) = commit_of(here.parent()?.parent()?)?;
        // A build for development does not follow every commit: that would build it again.
        let files = &files[..if is_release() { files.len() } else { 1 }];
        for file in files {
            println!("cargo:rerun-if-changed={}", file.display());
        }
        Some(commit)
    });
    let short = |commit: String| commit.chars().take(12).collect::<String>();
    let built = match commit.map(short) {
        Some(commit) if is_release() => format!(" ({commit})"),
        Some(commit) => format!(" (development, {commit} or later)"),
        None => String::new(),
    };
    println!("cargo:rustc-env=TAHINI_BUILT_FROM={built}");
}

fn is_release() -> bool {
    std::env::var("PROFILE").is_ok_and(|profile| profile == "release")
}

/// The commit that is checked out in a folder, and the files that say so, the one that changes
/// least first. `None` where the folder is not the top of a repository.
pub fn commit_of(folder: &Path) -> Option<(String, Vec<PathBuf>)> {
    let dot_git = folder.join(".git");
    // In a further work tree there is a file that says where its own part of the repository is.
    let own = match fs::read_to_string(&dot_git) {
        Ok(text) => folder.join(text.trim().strip_prefix("gitdir:")?.trim()),
        Err(_) => dot_git,
    };
    let shared = match fs::read_to_string(own.join("commondir")) {
        Ok(text) => own.join(text.trim()),
        Err(_) => own.clone(),
    };
    let head = own.join("HEAD");
    let text = fs::read_to_string(&head).ok()?;
    let Some(name) = text.trim().strip_prefix("ref:").map(str::trim) else {
        return Some((is_commit(text.trim())?, vec![head]));
    };
    let loose = shared.join(name);
    if let Ok(text) = fs::read_to_string(&loose) {
        return Some((is_commit(text.trim())?, vec![head, loose]));
    }
    let packed = shared.join("packed-refs");
    let text = fs::read_to_string(&packed).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_suffix(name)?.strip_suffix(' '));
    Some((is_commit(line?)?, vec![head, packed]))
}

fn is_commit(text: &str) -> Option<String> {
    let is_hex = text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| text.to_owned())
}
