"""docs/performance.md: what each bench writes stands between marks of its own, and stays until that bench runs again."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/performance.md"
PART = r"<!-- (?P<name>[a-z]+): begin -->\n.*?<!-- (?P=name): end -->\n"


def git(*args):
    return subprocess.run(["git", *args], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def commit():
    """The commit that is measured. The page itself may have changed: other measurements write it as well."""
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", f":!{PAGE.relative_to(ROOT)}")
    return git("describe", "--always") + ("-dirty" if changed else "")


def demand_clean(parser):
    """Ends the program where the tree has changes: the page names the commit that was measured."""
    if commit().endswith("-dirty"):
        parser.error("expected every change to be committed: the page names the commit that it measured")


def parts(text):
    """Every part of the page with its marks, in order."""
    return [found.group() for found in re.finditer(PART, text, flags=re.DOTALL)]


def write_page(head):
    """Replaces what stands before the parts; all of those stay."""
    kept = parts(PAGE.read_text()) if PAGE.exists() else []
    PAGE.write_text("\n".join([head, *kept]))


def write_part(name, text):
    """Replaces one part of the page where it stands, or adds it at the end."""
    part = f"<!-- {name}: begin -->\n{text.strip()}\n<!-- {name}: end -->\n"
    page = PAGE.read_text()
    for old in parts(page):
        if old.startswith(f"<!-- {name}: begin -->"):
            PAGE.write_text(page.replace(old, part))
            return
    PAGE.write_text(page.rstrip("\n") + "\n\n" + part)
