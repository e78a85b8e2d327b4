"""Adds the place to customers that have a postal code.

    POST /places    a JSON array of customers; the same array with `place` added

`place` is `{"town": …, "municipality": …}`, or null where the postal code is not
one. All of a batch is looked up before the answer starts, so that an answer is
either whole or an error.
"""

import logging
import os
import re
import sys
import time
from urllib.parse import quote

import requests
from flask import Flask, jsonify, request
from werkzeug.serving import WSGIRequestHandler

BASE_URL = os.environ["base_url"].rstrip("/")

ATTEMPTS = 5
LONGEST_WAIT_SECONDS = 30
TIMEOUT_SECONDS = (10, 60)
FOUR_DIGITS = re.compile("[0-9]{4}")

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
logger = logging.getLogger("postcode")
app = Flask(__name__)
session = requests.Session()
session.headers["X-Api-Key"] = os.environ["api_key"]


class LookupFailure(Exception):
    """A look-up got no answer. The text names the customer and says why."""


def look_up(code, customer):
    """The place of a postal code; None when there is none. Waits as long as a 429 says."""
    url = f"{BASE_URL}/postcodes/{quote(code, safe='')}"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            answer = session.get(url, timeout=TIMEOUT_SECONDS)
            if answer.status_code == 200:
                found = answer.json()
                return {"town": found["town"], "municipality": found["municipality"]}
        except requests.RequestException as error:
            raise LookupFailure(f"{customer}: GET {url}: {error}") from error
        if answer.status_code == 404 and names_code(answer, code):
            return None
        if answer.status_code != 429 or attempt == ATTEMPTS:
            raise LookupFailure(f"{customer}: GET {url}: the API answered {answer.status_code}: {answer.text[:500]}")
        wait = min(float(answer.headers.get("Retry-After", 1)), LONGEST_WAIT_SECONDS)
        logger.warning("the API asks for fewer requests; waiting %g s", wait)
        time.sleep(wait)


def names_code(answer, code):
    """True when a 404 says that there is no such postal code, and not that the URL is wrong."""
    try:
        return answer.json().get("code") == code
    except (requests.JSONDecodeError, AttributeError):
        return False


@app.post("/places")
def places():
    customers = request.get_json()
    if not isinstance(customers, list) or not all(isinstance(customer, dict) for customer in customers):
        return jsonify(message="expected a JSON array of customers"), 400
    known = {}
    for customer in customers:
        code = customer.get("postal_code")
        if customer.get("_deleted") or not isinstance(code, str):
            continue
        if code not in known:
            known[code] = look_up(code, customer.get("_id")) if FOUR_DIGITS.fullmatch(code) else None
        customer["place"] = known[code]
    logger.info("%d customers, %d look-ups", len(customers), len(known))
    return jsonify(customers)


@app.errorhandler(LookupFailure)
def failed(failure):
    logger.error("%s", failure)
    return jsonify(message=str(failure)), 502


if __name__ == "__main__":
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    app.run(
        host=os.environ.get("HOST", "127.0.0.1"),
        port=int(os.environ.get("port") or os.environ.get("PORT") or 5000),
        threaded=True,
        debug=False,
    )
