#!/usr/bin/env python3
"""with-standins.py COMMAND…: runs COMMAND while the stand-ins of the outside APIs are up, with the
rig's Python first on PATH; ends with COMMAND's code."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".cache/venv/bin"


def main():
    # They end when their standard input does: even when this script is killed.
    standins = subprocess.Popen([VENV / "python", ROOT / "demo/standins/run.py", "--until-eof"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for line in standins.stdout:
        if line.strip() == "ready":
            break
    else:
        return f"the stand-ins did not start: code {standins.wait()}"
    try:
        return subprocess.run(sys.argv[1:], env={**os.environ, "PATH": f"{VENV}:{os.environ['PATH']}"}).returncode
    finally:
        standins.stdin.close()
        standins.wait(60)


if __name__ == "__main__":
    sys.exit(main())
