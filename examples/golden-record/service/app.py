"""Reads and writes people of one system, as the node asks for them.

    GET  /people?since=N   everybody who changed after N, as entities
    POST /lookup           entities with `target`, an id there; each comes back with the person as it is, in `current`
    POST /insert           entities with `want`; each comes back with `created`, the id that it got
    POST /update           entities with `target`, `want`, `version` and `send`; each comes back with its `outcome`

An update says which version it was made from. The system refuses it with 412 where that is another one by now.
"""

import os
import sys
from urllib.parse import quote

import requests
from flask import Flask, jsonify, request
from werkzeug.serving import WSGIRequestHandler

BASE_URL = os.environ["base_url"].rstrip("/")
# How the system wants to be told the version: `version` in the body, or `etag` in If-Match.
LOCK = os.environ.get("lock", "etag")
TIMEOUT_SECONDS = (10, 60)
FIELDS = ("name", "email", "phone", "title")

app = Flask(__name__)
session = requests.Session()
session.headers["Authorization"] = f"Bearer {os.environ['token']}"


class Failed(Exception):
    """The system said something that it should not have. The text says what was asked, and what it said."""


def call(method, path, accepted, **more):
    answer = session.request(method, f"{BASE_URL}/people{path}", timeout=TIMEOUT_SECONDS, **more)
    if answer.status_code not in accepted:
        raise Failed(f"{method} people{path}: expected {accepted}, found {answer.status_code}: {answer.text[:500]}")
    return answer


def one(identity):
    return "/" + quote(identity, safe="")


@app.get("/people")
def people():
    """The number of the change is where the next reading goes on."""
    changed = call("GET", "", (200,), params={"since": request.args.get("since", "")}).json()
    return jsonify([{"_id": row["id"], "_updated": row["change"], "_deleted": row.get("deleted", False), **row} for row in changed])


@app.post("/lookup")
def lookup():
    entities = request.get_json()
    for entity in entities:
        found = call("GET", one(entity["target"]), (200,)).json()
        entity["current"] = {name: found.get(name) for name in FIELDS}
        entity["version"] = found["version"]
    return jsonify(entities)


@app.post("/insert")
def insert():
    entities = request.get_json()
    for entity in entities:
        # An answer that was lost is asked for again, and makes no second person.
        made = call("POST", "", (200, 201), json=entity["want"], headers={"Idempotency-Key": entity["_id"]})
        entity["created"] = made.json()["id"]
    return jsonify(entities)


@app.post("/update")
def update():
    entities = request.get_json()
    for entity in entities:
        entity["outcome"] = write(entity) if entity["send"] else "waits"
    return jsonify(entities)


def write(entity):
    body, headers = dict(entity["want"]), {}
    if LOCK == "version":
        body["version"] = entity["version"]
    else:
        headers["If-Match"] = f'"{entity["version"]}"'
    answer = call("PUT", one(entity["target"]), (200, 412), json=body, headers=headers)
    return "written" if answer.status_code == 200 else "refused"


@app.errorhandler(Failed)
@app.errorhandler(requests.RequestException)
def failed(failure):
    print(failure, file=sys.stderr)
    return jsonify(message=str(failure)), 500


if __name__ == "__main__":
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    app.run(
        host=os.environ.get("HOST", "127.0.0.1"),
        port=int(os.environ.get("port") or os.environ.get("PORT") or 5000),
        threaded=True,
        debug=False,
    )
