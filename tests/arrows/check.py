#!/usr/bin/env python3
"""Holds the shape of the house: which crate may lean on which, where the world is let in, how big
a file and a function may grow. Prints every finding as `path:line: what`, exits 1 when there is one.
"""

import re
import sys
import tomllib
from pathlib import Path

# node → connectors → hub → {dtl, store} → entity. A crate may lean on any crate below it.
BELOW = {
    "entity": set(),
    "dtl": {"entity"},
    "store": {"entity"},
    "hub": {"entity", "dtl", "store"},
    "connectors": {"entity", "dtl", "store", "hub"},
    "node": {"entity", "dtl", "store", "hub", "connectors"},
}
PREFIX = "tahini-"

# The core is blocking code: sockets and the runtime stay at the rim.
ASYNC_CRATES = {"connectors", "node"}
RIM_ONLY = {"tokio", "tokio-util", "futures-util", "async-trait", "reqwest", "hyper", "axum", "tower-http", "bollard"}
# Parts register in a sorted slice that a reader can grep for, never behind the linker's back.
NOWHERE = {"inventory", "ctor", "typetag", "linkme"}

# Crates that do no I/O and know no clock, and what gives a breach away.
PURE_CRATES = {"entity", "dtl"}
WORLD = [
    (re.compile(r"\bstd\s*::\s*(fs|net|env|process)\b"), "std::{0}"),
    (re.compile(r"\bstd\s*::\s*\{[^;]*?\b(fs|net|env|process)\b"), "std::{0}"),
    (re.compile(r"\b(SystemTime)\b"), "{0}"),
    (re.compile(r"\b(Instant|Timestamp|Zoned|Utc|Local)\s*::\s*now\b"), "{0}::now"),
    (re.compile(r"\b(tokio|reqwest)\s*::"), "{0}"),
]
ASYNC = re.compile(r"\basync\s+(?:unsafe\s+)?(?:move\b|fn\b|\{)")

MAX_FILE_LINES = 800
MAX_FUNCTION_LINES = 70
MAX_TEST_LINES = 100  # a test is often one table, and a row of it is data
# path or path::function → why it may be bigger. An entry that is no longer needed is a finding.
ALLOWED: dict[str, str] = {}

FUNCTION = re.compile(r"\bfn\s+([A-Za-z_][A-Za-z0-9_]*)")
TOKEN = re.compile(
    r'//[^\n]*|/\*|(?:b|c)?r(?P<hashes>#*)"|(?:b|c)?"|'
    r"b?'(?:\\(?:u\{[^}]*\}|x..|.)|[^\\'\n])'",
    re.S,
)


def code_only(text: str) -> str:
    """Rust source with comments and literals blanked out; lines and columns stay in place."""
    out, at = [], 0
    while found := TOKEN.search(text, at):
        start, end = found.span()
        if found.group() == "/*":
            end = _end_of_comment(text, end)
        elif found.group("hashes") is not None:
            close = text.find('"' + found.group("hashes"), end)
            end = len(text) if close < 0 else close + 1 + len(found.group("hashes"))
        elif found.group().endswith('"'):
            end = _end_of_string(text, end)
        out += [text[at:start], re.sub(r"[^\n]", " ", text[start:end])]
        at = end
    return "".join([*out, text[at:]])


def _end_of_comment(text: str, at: int) -> int:
    depth = 1
    while depth and (found := re.compile(r"/\*|\*/").search(text, at)):
        depth += 1 if found.group() == "/*" else -1
        at = found.end()
    return at if depth == 0 else len(text)


def _end_of_string(text: str, at: int) -> int:
    while at < len(text) and text[at] != '"':
        at += 2 if text[at] == "\\" else 1
    return at + 1


def end_of_block(code: str, at: int) -> int | None:
    """The offset behind the block that opens first after `at`; None where a `;` comes first."""
    depth, nested = 0, 0  # `;` inside [u8; 4] or a parenthesis ends nothing
    for i in range(at, len(code)):
        c = code[i]
        if c in "([":
            nested += 1
        elif c in ")]":
            nested -= 1
        elif c == "{":
            depth += 1
        elif c == "}":
            depth -= 1
            if depth == 0:
                return i + 1
        elif c == ";" and depth == 0 and nested == 0:
            return None
    return len(code)


def without_tests(code: str) -> str:
    """Source without its `#[cfg(test)]` items: tests may read files."""
    while found := re.search(r"#\[cfg\(test\)\]", code):
        end = end_of_block(code, found.end()) or code.find(";", found.end()) + 1
        code = code[: found.start()] + re.sub(r"[^\n]", " ", code[found.start() : end]) + code[end:]
    return code


def line_of(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def check_manifest(crate: str, path: Path) -> list[str]:
    manifest, findings = tomllib.loads(path.read_text()), []
    tables = [manifest, *manifest.get("target", {}).values()]
    names = {n for t in tables for kind in ("", "dev-", "build-") for n in t.get(f"{kind}dependencies", {})}
    for name in sorted(names):
        inner = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and inner != crate and inner not in BELOW[crate]:
            allowed = ", ".join(sorted(BELOW[crate])) or "no other crate of ours"
            findings.append(f"{path}:1: {crate} leans on {inner}; it may lean on {allowed}")
        if name in NOWHERE:
            findings.append(f"{path}:1: {name} registers parts out of sight; use a sorted slice in lib.rs")
        if name in RIM_ONLY and crate not in ASYNC_CRATES:
            findings.append(f"{path}:1: {crate} depends on {name}, which belongs to connectors and node")
    if manifest.get("lib", {}).get("proc-macro"):
        findings.append(f"{path}:1: {crate} is a proc-macro crate; we have none")
    return findings


def check_borders(crate: str, path: Path, code: str) -> list[str]:
    findings = []
    if crate not in ASYNC_CRATES:
        for found in ASYNC.finditer(code):
            findings.append(f"{path}:{line_of(code, found.start())}: async code in {crate}; only connectors and node are async")
    if crate in PURE_CRATES and "src" in path.parts:
        plain = without_tests(code)
        for pattern, name in WORLD:
            for found in pattern.finditer(plain):
                findings.append(f"{path}:{line_of(plain, found.start())}: {name.format(found.group(1))} in {crate}, which does no I/O and knows no clock")
    return findings


def check_sizes(path: Path, text: str, code: str, used: set[str]) -> list[str]:
    findings, lines = [], text.count("\n") + (not text.endswith("\n"))
    plain = "" if "tests" in path.parts else without_tests(code)
    if lines > MAX_FILE_LINES:
        if str(path) in ALLOWED:
            used.add(str(path))
        else:
            findings.append(f"{path}:1: {lines} lines; a file has at most {MAX_FILE_LINES}")
    for found in FUNCTION.finditer(code):
        end = end_of_block(code, found.end())
        if end is None:
            continue
        first, last = line_of(code, found.start()), line_of(code, end)
        key = f"{path}::{found.group(1)}"
        limit = MAX_FUNCTION_LINES if plain[found.start() : found.end()].strip() else MAX_TEST_LINES
        if last - first + 1 > limit:
            if key in ALLOWED:
                used.add(key)
            else:
                findings.append(f"{path}:{first}: fn {found.group(1)} has {last - first + 1} lines; a function has at most {limit}")
    return findings


def check_fences(path: Path, text: str) -> list[str]:
    """Code in doc comments names its language: Rust there would be a test that nobody runs."""
    findings, within = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"\s*//[/!] ```(\w*)", line):
            if not within and found[1] in ("", "rust", "no_run", "ignore", "should_panic"):
                findings.append(f"{path}:{number}: a doc example that is not run; write a test, or name what it is (```text)")
            within = not within
    return findings


def check(root: Path) -> list[str]:
    """Every finding in the checkout at `root`, in a stable order."""
    findings, used = [], set()
    found = {p.parent.name for p in (root / "crates").glob("*/Cargo.toml")}
    for crate in sorted(found ^ set(BELOW)):
        findings.append(f"crates/{crate}:1: the house has the crates {', '.join(BELOW)}; this one is {'new' if crate in found else 'missing'}")
    for crate in [c for c in BELOW if c in found]:
        folder = root / "crates" / crate
        findings += [f.replace(f"{root}/", "") for f in check_manifest(crate, folder / "Cargo.toml")]
        for full in sorted(folder.rglob("*.rs")):
            path, text = full.relative_to(root), full.read_text()
            code = code_only(text)
            findings += check_borders(crate, path, code) + check_sizes(path, text, code, used) + check_fences(path, text)
    for key in sorted(set(ALLOWED) - used):
        findings.append(f"tests/arrows/check.py:1: the exception for {key} is no longer needed; remove it")
    return findings


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    findings = check(root)
    print("\n".join(findings) if findings else "the arrows point down, the borders hold, the sizes are right")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
