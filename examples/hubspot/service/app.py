"""HubSpot's contacts as a stream of entities.

    GET /get_contacts               every contact
    GET /get_contacts?since=<iso>   the contacts modified since then

Each contact carries `_updated`, its `since-field` as HubSpot prints it, so that
the node can remember the highest one and send it back as `since`.
"""

import itertools
import json
import logging
import os
import sys
import time
from datetime import datetime, timedelta, timezone

import requests
from flask import Flask, Response, jsonify, request
from werkzeug.serving import WSGIRequestHandler

API_KEY = os.environ["api-key"]
BASE_URL = os.environ["base-url"].rstrip("/")
SINCE_FIELD = os.environ.get("since-field", "lastmodifieddate")
SINCE_OPERATOR = os.environ.get("since-operator", "GTE")
PROPERTIES = json.loads(os.environ.get("properties", "[]"))

PAGE_SIZE = 100
ATTEMPTS = 5
LONGEST_WAIT_SECONDS = 30
TIMEOUT_SECONDS = (10, 60)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
logger = logging.getLogger("hubspot")
app = Flask(__name__)
session = requests.Session()
session.headers["Authorization"] = f"Bearer {API_KEY}"


class ApiFailure(Exception):
    """HubSpot did not give what was asked for. The text says what happened."""


def call(method, path, **options):
    """One answer of the API as JSON. Waits as long as a 429 says, a few times over."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            answer = session.request(method, BASE_URL + path, timeout=TIMEOUT_SECONDS, **options)
            if answer.status_code == 200:
                return answer.json()
        except requests.RequestException as error:
            raise ApiFailure(f"{method} {path}: {error}") from error
        if answer.status_code != 429 or attempt == ATTEMPTS:
            raise ApiFailure(f"{method} {path}: HubSpot answered {answer.status_code}: {answer.text[:500]}")
        wait = min(float(answer.headers.get("Retry-After", 1)), LONGEST_WAIT_SECONDS)
        logger.warning("HubSpot asks for fewer requests; waiting %g s", wait)
        time.sleep(wait)


def epoch_milliseconds(text):
    """An ISO 8601 instant as whole milliseconds since 1970, which is what the search compares."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return (moment - EPOCH) // timedelta(milliseconds=1)


def modified(contact):
    """The value of the since-field of a contact."""
    value = contact["properties"].get(SINCE_FIELD)
    if not value:
        raise ApiFailure(f"contact {contact.get('id')} has no {SINCE_FIELD}; it cannot be continued from")
    return value


def every_contact():
    """Pages of all contacts, in the order of their ids."""
    query = {"limit": PAGE_SIZE, "properties": ",".join([*PROPERTIES, SINCE_FIELD])}
    while True:
        answer = call("GET", "/objects/contacts", params=query)
        yield answer["results"]
        following = answer.get("paging", {}).get("next")
        if not following:
            return
        query["after"] = following["after"]


def modified_contacts(since):
    """Pages of the contacts modified since then, oldest modification first.

    A search counts its pages by position, and a contact that is edited meanwhile
    moves to the end and shifts what follows it: one would be skipped. So the next
    search starts at the last modification seen, and a page is counted by `after`
    only among contacts of one and the same millisecond. That also steps over the
    10,000 results that one search gives at most.
    """
    bound, operator, after, sent = epoch_milliseconds(since), SINCE_OPERATOR, None, set()
    while True:
        wanted = {
            "filterGroups": [{"filters": [{"propertyName": SINCE_FIELD, "operator": operator, "value": str(bound)}]}],
            "sorts": [{"propertyName": SINCE_FIELD, "direction": "ASCENDING"}],
            "properties": [*PROPERTIES, SINCE_FIELD],
            "limit": PAGE_SIZE,
        }
        if after:
            wanted["after"] = after
        answer = call("POST", "/objects/contacts/search", json=wanted)
        found = answer["results"]
        yield [contact for contact in found if (contact["id"], modified(contact)) not in sent]
        following = answer.get("paging", {}).get("next")
        if not following:
            return
        last = epoch_milliseconds(modified(found[-1]))
        if last > bound:
            bound, operator, after = last, "GTE", None
            sent = {(contact["id"], modified(contact)) for contact in found}
        else:
            after = following["after"]
            sent |= {(contact["id"], modified(contact)) for contact in found}


def entities_of(pages):
    """The pages as a JSON array, a page at a time; nothing is kept.

    The first page is fetched before the status is sent, so that a wrong token or a
    dead API is an error answer. What fails later cuts the connection: an array that
    ends neatly would tell the node that these were all.
    """
    first = next(pages)

    def body():
        yield "["
        count = 0
        try:
            for page in itertools.chain([first], pages):
                for contact in page:
                    contact["_updated"] = modified(contact)
                    yield ("," if count else "") + json.dumps(contact, ensure_ascii=False)
                    count += 1
        except ApiFailure as failure:
            logger.error("gave up after %d contacts: %s", count, failure)
            raise ConnectionAbortedError(str(failure)) from failure
        logger.info("sent %d contacts", count)
        yield "]"

    return Response(body(), mimetype="application/json")


@app.get("/get_contacts")
def get_contacts():
    since = request.args.get("since")
    if not since:
        logger.info("all contacts are asked for")
        return entities_of(every_contact())
    try:
        epoch_milliseconds(since)
    except ValueError:
        return jsonify(message=f"since: expected an ISO 8601 instant, found {since!r}"), 400
    logger.info("contacts with %s %s %s are asked for", SINCE_FIELD, SINCE_OPERATOR, since)
    return entities_of(modified_contacts(since))


@app.errorhandler(ApiFailure)
def failed(failure):
    logger.error("%s", failure)
    return jsonify(message=str(failure)), 502


if __name__ == "__main__":
    # HTTP/1.1, so that an answer has a marked end and a cut one can be told from a whole one.
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    app.run(
        host=os.environ.get("HOST", "127.0.0.1"),
        port=int(os.environ.get("port") or os.environ.get("PORT") or 5000),
        threaded=True,
        debug=False,
    )
