//! The commit that the version names, read from repositories of each kind.

#[path = "../../../build.rs"]
#[allow(dead_code, unreachable_pub, reason = "the script's main is for cargo")]
mod script;

use std::fs;
use std::path::Path;

use script::commit_of;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn write(folder: &Path, name: &str, text: &str) {
    let file = folder.join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

fn found(folder: &Path) -> Option<String> {
    commit_of(folder).map(|(commit, _)| commit)
}

#[test]
fn the_commit_is_found_wherever_git_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path();
    assert_eq!(
        found(top),
        None,
        "what is unpacked from an archive has none"
    );

    write(top, ".git/HEAD", &format!("{COMMIT}\n"));
    assert_eq!(found(top).as_deref(), Some(COMMIT));

    write(top, ".git/HEAD", "ref: refs/heads/main\n");
    assert_eq!(found(top), None, "a branch without a commit");
    let other = COMMIT.replace('0', "f");
    let packed = format!(
        "# pack-refs\n{other} refs/heads/old/refs/heads/main\n{COMMIT} refs/heads/main\n^{other}\n"
    );
    write(top, ".git/packed-refs", &packed);
    assert_eq!(found(top).as_deref(), Some(COMMIT));
    write(top, ".git/refs/heads/main", &format!("{other}\n"));
    assert_eq!(found(top), Some(other), "a loose one is newer");
}

#[test]
fn a_further_work_tree_has_a_commit_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path();
    write(top, "tree/.git", "gitdir: ../main/.git/worktrees/tree\n");
    write(
        top,
        "main/.git/worktrees/tree/HEAD",
        "ref: refs/heads/tree\n",
    );
    write(top, "main/.git/worktrees/tree/commondir", "../..\n");
    write(top, "main/.git/refs/heads/tree", COMMIT);
    let (commit, files) = commit_of(&top.join("tree")).unwrap();
    assert_eq!((commit.as_str(), files.len()), (COMMIT, 2));
}
