#!/usr/bin/env python3
"""Holds deny.toml's licences and sources: every crate of the lock file that goes into the binary or
its tests is under a licence that we allow, and comes from a registry that we allow.
Prints every finding, exits 1 when there is one.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# With a target named, cargo needs no crate that only other platforms use.
TARGET = "x86_64-unknown-linux-gnu"


def allowed(expression: str, licences: set[str]) -> bool:
    """Whether an SPDX expression can be met with these licences alone; `/` is the old `OR`."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    at = 0

    def one() -> bool:
        nonlocal at
        if at >= len(tokens) or tokens[at] in {")", "AND", "OR", "WITH"}:
            raise ValueError(f"expected a licence in {expression!r}")
        word = tokens[at]
        at += 1
        if word == "(":
            met = either()
            if at >= len(tokens) or tokens[at] != ")":
                raise ValueError(f"expected a closing bracket in {expression!r}")
            at += 1
            return met
        if at + 1 < len(tokens) and tokens[at] == "WITH":
            word = f"{word} WITH {tokens[at + 1]}"
            at += 2
        return word in licences

    def both() -> bool:
        nonlocal at
        met = one()
        while at < len(tokens) and tokens[at] == "AND":
            at += 1
            met = one() and met
        return met

    def either() -> bool:
        nonlocal at
        met = both()
        while at < len(tokens) and tokens[at] == "OR":
            at += 1
            met = both() or met
        return met

    met = either()
    if at != len(tokens):
        raise ValueError(f"expected an end after {' '.join(tokens[:at])!r} in {expression!r}")
    return met


def findings(packages: list[dict], licences: set[str], registries: set[str]) -> list[str]:
    """What is not allowed, as `crate version: why`."""
    found = []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        try:
            if not allowed(package["license"] or "", licences):
                found.append(f"{name}: {package['license']} is not among the licences of deny.toml")
        except ValueError as error:
            found.append(f"{name}: {error}")
        source = package["source"]
        if source and source.removeprefix("registry+") not in registries:
            found.append(f"{name}: comes from {source}, which deny.toml does not allow")
    return found


def main() -> int:
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET]
    told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    packages = json.loads(told)["packages"]
    found = findings(packages, set(rules["licenses"]["allow"]), set(rules["sources"]["allow-registry"]))
    print("\n".join([*found, f"{len(packages)} crates, {len(found)} findings"]))
    return 1 if found or not packages else 0


if __name__ == "__main__":
    sys.exit(main())
