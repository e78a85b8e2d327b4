"""The repositories of a GitHub account as a stream of entities.

    GET /repos               every repository that the token's account can see
    GET /repos?since=<iso>   those updated since then

Each repository carries `_updated`, its `updated_at`, so that the node can
remember the highest one and send it back as `since`.
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

BASE_URL = os.environ.get("base_url", "https://api.github.com").rstrip("/")

PAGE_SIZE = 100
ATTEMPTS = 5
LONGEST_WAIT_SECONDS = 60
TIMEOUT_SECONDS = (10, 60)

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
logger = logging.getLogger("github")
app = Flask(__name__)
session = requests.Session()
session.headers.update(
    {
        "Authorization": f"Bearer {os.environ['access_token']}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
        "User-Agent": "repositories-to-entities",
    }
)


class ApiFailure(Exception):
    """GitHub did not give what was asked for. The text says what happened."""


def call(url, query):
    """One answer of the API. Waits as long as `Retry-After` says when there were too many requests.

    GitHub says so with 429, or with 403 and a `Retry-After`.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            answer = session.get(url, params=query, timeout=TIMEOUT_SECONDS)
        except requests.RequestException as error:
            raise ApiFailure(f"GET {url}: {error}") from error
        if answer.status_code == 200:
            return answer
        limited = answer.status_code == 429 or (answer.status_code == 403 and "Retry-After" in answer.headers)
        if not limited or attempt == ATTEMPTS:
            raise ApiFailure(f"GET {url}: GitHub answered {answer.status_code}: {answer.text[:500]}")
        wait = min(float(answer.headers.get("Retry-After", 1)), LONGEST_WAIT_SECONDS)
        logger.warning("GitHub asks for fewer requests; waiting %g s", wait)
        time.sleep(wait)


def pages(since):
    """Pages of repositories, oldest first. The `Link` header names the next page.

    In the order of their creation a new repository joins at the end, so that no
    page shifts while we read.
    """
    url, query = f"{BASE_URL}/user/repos", {"per_page": PAGE_SIZE, "sort": "created", "direction": "asc"}
    if since:
        query["since"] = just_before(since)
    while url:
        answer = call(url, query)
        try:
            yield answer.json()
        except requests.JSONDecodeError as error:
            raise ApiFailure(f"GET {url}: the answer is not JSON: {error}") from error
        # The link holds the whole query already.
        url, query = answer.links.get("next", {}).get("url"), None


def just_before(since):
    """One second earlier, as GitHub prints it.

    GitHub counts in seconds and gives what was updated after `since`. What was
    updated later within the second we have seen would be missed; one second earlier
    it comes, and what had come already changes nothing in the node.
    """
    moment = datetime.fromisoformat(since)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    earlier = moment.astimezone(timezone.utc) - timedelta(seconds=1)
    return earlier.strftime("%Y-%m-%dT%H:%M:%SZ")


def entities_of(found):
    """The pages as a JSON array, a page at a time; nothing is kept.

    The first page is fetched before the status is sent, so that a wrong token is an
    error answer. What fails later cuts the connection: an array that ends neatly
    would tell the node that these were all.
    """
    first = next(found)

    def body():
        yield "["
        count = 0
        try:
            for page in itertools.chain([first], found):
                for repository in page:
                    repository["_updated"] = repository["updated_at"]
                    yield ("," if count else "") + json.dumps(repository, ensure_ascii=False)
                    count += 1
        except ApiFailure as failure:
            logger.error("gave up after %d repositories: %s", count, failure)
            raise ConnectionAbortedError(str(failure)) from failure
        logger.info("sent %d repositories", count)
        yield "]"

    return Response(body(), mimetype="application/json")


@app.get("/repos")
def repos():
    since = request.args.get("since")
    try:
        if since:
            just_before(since)
    except ValueError:
        return jsonify(message=f"since: expected an ISO 8601 instant, found {since!r}"), 400
    logger.info("repositories are asked for, since %s", since or "ever")
    return entities_of(pages(since))


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
