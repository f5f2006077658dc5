"""What the examples share: where the server is, and errors told with their remedy."""

import argparse
import contextlib
import sys

try:
    from catserve import CatserveError, Client
except ModuleNotFoundError as missing:
    sys.exit(f"{missing}; install the client: pip install ./clients/python")


def arguments(doc):
    """A parser that knows --server; `doc` is the example's own description."""
    parser = argparse.ArgumentParser(description=doc,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1:8500", metavar="HOST:PORT",
                        help="default: %(default)s")
    return parser


@contextlib.contextmanager
def connected(address):
    """A client. An error of the server's ends the program with exit code 1, Ctrl-C with 130."""
    try:
        with Client(address) as client:
            yield client
    except CatserveError as error:
        unavailable = error.code.name == "UNAVAILABLE"
        sys.exit(f"{error}\nIs a server running at {address}? Start one: make serve"
                 if unavailable else str(error))
    except KeyboardInterrupt:
        sys.exit(130)
