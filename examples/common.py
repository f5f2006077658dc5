"""What the examples share: where the server is, and errors told with their remedy."""

import os
import signal
import sys

# Ctrl-C ends what has not begun, imports included, without a traceback; `connected` changes that.
signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse  # noqa: E402
import contextlib  # noqa: E402

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
def connected(parser, args):
    """A client. An error of the server's ends the program with exit code 1, an option that fits no
    message with 2, Ctrl-C with 130."""
    early = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Client(args.server) as client:
            yield client
    except CatserveError as error:
        gone = error.code.name in ("UNAVAILABLE", "CANCELLED")
        sys.exit(f"{error}\nIs a server running at {args.server}? Start one: make serve"
                 if gone else str(error))
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    except BrokenPipeError:  # whoever read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, early)


def room_beside(parser, client, args):
    """How many tokens of the context --max_tokens leaves for what is read."""
    room = client.model().context_limit - args.max_tokens
    if room < 2:
        parser.error(f"--max_tokens={args.max_tokens} leaves no room for what is read: the model's "
                     f"context holds {room + args.max_tokens:,} tokens")
    return room
