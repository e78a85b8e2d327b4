"""The check is shown houses with one fault each, and must name that fault and its line."""

import tempfile
import unittest
from pathlib import Path

import check


class House(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        for crate, below in check.BELOW.items():
            self.write(f"crates/{crate}/Cargo.toml", "[dependencies]\n" + "".join(f'tahini-{b} = "1"\n' for b in sorted(below)))
            self.write(f"crates/{crate}/src/lib.rs", "pub fn nothing() {}\n")

    def write(self, path, text):
        full = self.root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_text(text)

    def finds(self, *parts):
        found = check.check(self.root)
        self.assertEqual(len(found), 1, found)
        for part in parts:
            self.assertIn(part, found[0])

    def test_a_sound_house(self):
        self.assertEqual(check.check(self.root), [])

    def test_an_arrow_that_points_up(self):
        self.write("crates/store/Cargo.toml", '[dev-dependencies]\ntahini-hub = "1"\n')
        self.finds("store leans on hub")

    def test_the_language_may_not_know_the_store(self):
        self.write("crates/dtl/Cargo.toml", '[dependencies]\ntahini-store = "1"\n')
        self.finds("dtl leans on store")

    def test_an_arrow_for_one_platform_only(self):
        self.write("crates/entity/Cargo.toml", "[target.'cfg(unix)'.dependencies]\ntahini-dtl = \"1\"\n")
        self.finds("entity leans on dtl")

    def test_a_seventh_crate(self):
        self.write("crates/common/Cargo.toml", "")
        self.finds("crates/common", "new")

    def test_the_runtime_in_the_core(self):
        self.write("crates/hub/Cargo.toml", '[dependencies]\ntokio = "1"\n')
        self.finds("hub depends on tokio")

    def test_async_in_the_core(self):
        self.write("crates/hub/src/lib.rs", "// async fn in a comment\nconst A: &str = \"async fn\";\npub async fn run() {}\n")
        self.finds("crates/hub/src/lib.rs:3", "async")

    def test_async_at_the_rim(self):
        self.write("crates/node/src/lib.rs", "pub async fn run() {}\n")
        self.assertEqual(check.check(self.root), [])

    def test_files_and_clocks_in_pure_crates(self):
        for line, name in [("use std::fs;", "std::fs"), ("use std::{io, net::IpAddr};", "std::net"), ("fn f() { std::time::SystemTime::now(); }", "SystemTime"), ("fn f() { jiff::Timestamp::now(); }", "Timestamp::now")]:
            with self.subTest(line=line):
                self.write("crates/dtl/src/lib.rs", f"\n{line}\n")
                self.finds("crates/dtl/src/lib.rs:2", name)

    def test_tests_of_pure_crates_may_read_files(self):
        self.write("crates/dtl/src/lib.rs", "#[cfg(test)]\nmod tests { use std::fs; fn f() { if true {} } }\n")
        self.assertEqual(check.check(self.root), [])
        self.write("crates/dtl/src/lib.rs", "#[cfg(test)]\nmod tests;\nuse std::fs;\n")
        self.finds("crates/dtl/src/lib.rs:3")

    def test_a_file_too_long(self):
        self.write("crates/hub/src/lib.rs", "//\n" * 800)
        self.assertEqual(check.check(self.root), [])
        self.write("crates/hub/src/lib.rs", "//\n" * 801)
        self.finds("801 lines")

    def test_a_function_too_long(self):
        body = "    call(\"}\", '}', b'{', r#\"}\"#); // }\n"
        self.write("crates/hub/src/lib.rs", f"fn small<'a>(x: [u8; 2]) -> &'a str {{\n{body * 68}}}\ntrait T {{ fn only(&self); }}\n")
        self.assertEqual(check.check(self.root), [])
        self.write("crates/hub/src/lib.rs", f"\nfn large() {{\n{body * 69}}}\n")
        self.finds("crates/hub/src/lib.rs:2", "fn large has 71 lines")

    def test_a_test_that_is_one_table_may_be_longer(self):
        inner = "    call();\n"
        self.write("crates/hub/src/lib.rs", f"#[cfg(test)]\nmod tests {{\nfn table() {{\n{inner * 98}}}\n}}\n")
        self.write("crates/hub/tests/it/main.rs", f"fn table() {{\n{inner * 98}}}\n")
        self.assertEqual(check.check(self.root), [])
        self.write("crates/hub/tests/it/main.rs", f"fn table() {{\n{inner * 99}}}\n")
        self.finds("tests/it/main.rs:1", "at most 100")

    def test_a_doc_example_that_nobody_runs(self):
        self.write("crates/hub/src/lib.rs", "//! ```text\n//! picture\n//! ```\n")
        self.assertEqual(check.check(self.root), [])
        self.write("crates/hub/src/lib.rs", "/// ```\n/// assert!(true);\n/// ```\nfn f() {}\n")
        self.finds("crates/hub/src/lib.rs:1", "not run")

    def test_an_exception_nobody_needs(self):
        check.ALLOWED["crates/hub/src/lib.rs"] = "a reason"
        self.addCleanup(check.ALLOWED.clear)
        self.finds("no longer needed")


if __name__ == "__main__":
    unittest.main()
