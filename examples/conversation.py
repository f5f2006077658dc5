#!/usr/bin/env python3
"""A conversation whose memory stays in the server between turns.

Each turn sends the whole conversation as token ids. The prefix cache still holds the summaries of
the turns before, so the server reads only what is new; the line after each answer shows it.
Ctrl-C ends an answer, Ctrl-D (or the end of the input) the conversation.
"""

import sys
import time

import common
from catserve import Started, Tokens


def turn(client, history, line, room, args):
    """Streams an answer; `history` grows by the turn, also where Ctrl-C ends it."""
    started = first_token = None
    began = time.monotonic()
    try:
        print("model> ", end="", flush=True)
        history += client.tokenize(f"{line}\n", add_bos=not history)
        make_room(history, room)
        prompt = history.copy()
        for event in client.generate(prompt, chunk_size=args.chunk_size, stop="\n",
                                     min_tokens=min(4, args.max_tokens),
                                     max_tokens=args.max_tokens, temperature=args.temperature,
                                     seed=args.seed):
            if isinstance(event, Started):
                started = event
            elif isinstance(event, Tokens):
                first_token = first_token or time.monotonic()
                history += event.token_ids
                print(event.text, end="", flush=True)
    except KeyboardInterrupt:
        print(" [stopped]", end="")
    print(flush=True)
    if first_token:
        print(f"[{started.prompt_tokens} prompt tokens, {started.cached_tokens} of them in the "
              f"cache, first token after {1e3 * (first_token - began):.1f} ms]", flush=True)


def make_room(history, room):
    """Forgets the oldest part of a conversation that no longer fits, so that half is free again."""
    if len(history) > room:
        forgotten = len(history) - room // 2
        del history[:forgotten]
        print(f"[the context is full: the oldest {forgotten} tokens are forgotten]", end=" ")


def next_line():
    """What the user says next; None at the end of the input."""
    while True:
        try:
            line = input("you> ").strip()
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            print("\n[Ctrl-D ends the conversation]")
            continue
        if line:
            return line


def main():
    parser = common.arguments(__doc__)
    parser.add_argument("--chunk_size", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--max_tokens", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--temperature", type=float, default=0.7, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=7, help="default: %(default)s")
    args = parser.parse_args()
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # whatever is typed or piped
    with common.connected(parser, args) as client:
        room = common.room_beside(parser, client, args)
        history = []
        while (line := next_line()) is not None:
            turn(client, history, line, room, args)


if __name__ == "__main__":
    main()
