"""The examples' services as containers: an engine to run them, and their images.

The machine's own engine is taken where there is one. Else the tests' rig brings one up, in a network of its own.
"""

import ipaddress
import json
import os
import subprocess
import sys

from processes import EXAMPLES, ROOT, Trouble

RIG = ROOT / "tests" / "rig"


def docker(*words, **options):
    """What the engine's client said."""
    done = subprocess.run(["docker", *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        raise Trouble(f"docker {' '.join(map(str, words))}: expected success, found code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def beside_an_engine():
    """Goes on where an engine answers: here, or in the rig, which runs this program again."""
    try:
        docker("version", "--format", "{{.Server.Version}}")
        return
    except (Trouble, FileNotFoundError) as error:
        if os.environ.get("TAHINI_ENGINE") == "1":
            raise Trouble(f"expected the engine of the rig, found: {error}") from error
    print("No container engine answers here; the tests' rig brings one up.", flush=True)
    if subprocess.run([RIG / "prepare.sh", "engine"]).returncode != 0:
        raise Trouble("expected a container engine, and the rig cannot bring one up (it needs root)")
    again = [sys.executable, *sys.argv]
    os.execv(RIG / "with-engine.sh", [str(RIG / "with-engine.sh"), *again])


def in_the_rig():
    """Whether the engine is the rig's."""
    return os.environ.get("TAHINI_ENGINE") == "1"


def gateway():
    """The address under which containers reach this machine."""
    found = json.loads(docker("network", "inspect", "bridge"))[0]["IPAM"]["Config"]
    for config in found:
        address = config.get("Gateway")
        if address and ipaddress.ip_address(address).version == 4:
            return address
    raise Trouble(f"expected a gateway of the network bridge, found {found}")


def images():
    """Builds the image of every example."""
    # The rig has no network: its own image has what the services import, and no BuildKit either.
    base = ["--build-arg", f"BASE={os.environ['TEST_IMAGE']}"] if in_the_rig() else []
    environment = {**os.environ, **({"DOCKER_BUILDKIT": "0"} if in_the_rig() else {})}
    for example in EXAMPLES:
        for file in sorted((ROOT / "examples" / example / "systems").glob("*.conf.json")):
            image = json.loads(file.read_text("utf-8"))["docker"]["image"]
            docker("build", "--quiet", *base, "--tag", image, ROOT / "examples" / example / "service", env=environment)
            print(f"Built {image}.", flush=True)
