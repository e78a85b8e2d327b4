"""Writes people to a CRM, as the node pushes them.

    POST /people    a JSON array of people (or a single one); 200 `{}` when all are written
    GET  /batches   what has arrived since the start, for people to look at

Writing is by id, so a batch that comes twice does no harm: the node sends again
what it has no answer for.
"""

import logging
import os
import sys
import threading
import time
from urllib.parse import quote

import requests
from flask import Flask, jsonify, request
from werkzeug.serving import WSGIRequestHandler

BASE_URL = os.environ["base_url"].rstrip("/")

ATTEMPTS = 5
LONGEST_WAIT_SECONDS = 30
TIMEOUT_SECONDS = (10, 60)
BATCHES_KEPT = 1000

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
logger = logging.getLogger("crm")
app = Flask(__name__)
session = requests.Session()
session.headers["Authorization"] = f"Bearer {os.environ['token']}"
batches = []
batches_lock = threading.Lock()


class WriteFailure(Exception):
    """One person could not be written. The text names the person and says why."""


def call(method, identity, accepted, body=None):
    """One request to the CRM. Waits as long as a 429 says, a few times over."""
    url = f"{BASE_URL}/people/{quote(identity, safe='')}"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            answer = session.request(method, url, json=body, timeout=TIMEOUT_SECONDS)
        except requests.RequestException as error:
            raise WriteFailure(f"{identity}: {method} {url}: {error}") from error
        if answer.status_code in accepted:
            return
        if answer.status_code != 429 or attempt == ATTEMPTS:
            raise WriteFailure(f"{identity}: the CRM answered {answer.status_code}: {answer.text[:500]}")
        wait = min(float(answer.headers.get("Retry-After", 1)), LONGEST_WAIT_SECONDS)
        logger.warning("the CRM asks for fewer requests; waiting %g s", wait)
        time.sleep(wait)


def write(person):
    """Writes or deletes one person. What the node adds, named with `_`, is not the CRM's."""
    identity = person.get("_id")
    if not isinstance(identity, str) or not identity:
        raise WriteFailure(f"expected a person with a string _id, found {identity!r}")
    if person.get("_deleted"):
        # One that is gone already is as good as deleted.
        call("DELETE", identity, (204, 404))
        return
    call("PUT", identity, (200, 201), {name: value for name, value in person.items() if not name.startswith("_")})


@app.post("/people")
def people():
    pushed = request.get_json()
    if isinstance(pushed, dict):
        pushed = [pushed]
    if not isinstance(pushed, list) or not all(isinstance(person, dict) for person in pushed):
        return jsonify(message="expected a JSON array of people"), 400
    batch = {
        "size": len(pushed),
        "deleted": sum(person.get("_deleted") is True for person in pushed),
        **{name: request.args[name] for name in ("is_full", "is_first", "is_last") if name in request.args},
    }
    with batches_lock:
        batches.append(batch)
        del batches[:-BATCHES_KEPT]
    logger.info("batch of %d, %d of them deleted", batch["size"], batch["deleted"])
    for person in pushed:
        write(person)
    return jsonify({})


@app.get("/batches")
def seen():
    with batches_lock:
        return jsonify(batches)


@app.errorhandler(WriteFailure)
def failed(failure):
    logger.error("%s", failure)
    return jsonify(message=str(failure)), 500


if __name__ == "__main__":
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    app.run(
        host=os.environ.get("HOST", "127.0.0.1"),
        port=int(os.environ.get("port") or os.environ.get("PORT") or 5000),
        threaded=True,
        debug=False,
    )
