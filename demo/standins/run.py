"""Starts the stand-ins and stays up until it is told to stop.

    python3 demo/standins/run.py

Prints a line for each, its name and its URL, and then `ready`. Ends with SIGINT or
SIGTERM, or, with `--until-eof`, when its standard input ends: then it cannot outlive
who started it. Code 1: a port is taken; with `--any-port` another is used instead.
"""

import argparse
import os
import signal
import sys
import threading

from crm import Crm
from github import GitHub
from hubspot import HubSpot
from orders import Orders
from people import Billing, Hr, Support
from postcode import Postcode
from sales import Sales
from standin import LOOPBACK

STANDINS = (HubSpot, GitHub, Crm, Postcode, Orders, Sales, Hr, Support, Billing)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    parser.add_argument("--any-port", action="store_true", help="use another port where the usual one is taken")
    parser.add_argument("--host", default=LOOPBACK, help="the address to listen on; loopback unless it is given")
    options = parser.parse_args()

    standins = [kind() for kind in STANDINS]
    servers = []
    for standin in standins:
        try:
            server = serve(standin, options.host, options.any_port)
        except OSError as error:
            print(
                f"{standin.name}: port {standin.port} cannot be used: {error.strerror}. The examples' test-env.json "
                "names this port; end the program that holds it (other stand-ins, perhaps) and start again.",
                file=sys.stderr,
            )
            return 1
        servers.append(server)
        print(f"{standin.name:10}{server.url}", flush=True)
    print("ready", flush=True)

    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    if options.until_eof:
        threading.Thread(target=wait_for_eof, args=(end,), daemon=True).start()
    end.wait()
    for standin, server in zip(standins, servers):
        standin.stopping.set()
        server.shutdown()
        server.server_close()
    return 0


def serve(standin, host, any_port):
    """The stand-in's server, on its usual port or, when that is taken, on one that the system picks."""
    try:
        return standin.serve(host=host)
    except OSError:
        if not any_port:
            raise
        return standin.serve(port=0, host=host)


def wait_for_eof(end):
    """Sets `end` at the end of standard input, which is read past Python's own buffer:
    its lock would hold up the interpreter's exit."""
    while os.read(0, 4096):
        pass
    end.set()


if __name__ == "__main__":
    sys.exit(main())
