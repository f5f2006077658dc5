#!/usr/bin/env python3
"""Streams how a long document might go on, and shows how far the server has read it.

The document is read in pieces, by requests that generate nothing. The prefix cache keeps what was
read, so a piece costs its own tokens only, and what is shown as read has been read.
"""

import sys

import common
from catserve import Finished, Tokens


def document(parser, file):
    """The text of a file."""
    try:
        with open(file, encoding="utf-8") as text:
            return text.read()
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"cannot read {file}: {error}")


def fitting(parser, ids, room, args):
    """The document's tokens, or its last ones, if they fit the context beside what is generated."""
    if len(ids) <= room:
        return ids
    if not args.tail:
        parser.error(
            f"{args.file} has {len(ids):,} tokens, the model's context holds {room:,} beside "
            f"--max_tokens={args.max_tokens}: give --tail to read only the end, or serve a model "
            "with a longer context")
    return ids[len(ids) - room:]


def prefill(client, ids, args):
    """Reads the document, telling the progress after each piece."""
    ends = [*range(args.piece_tokens, len(ids), args.piece_tokens), len(ids)]
    for end in ends:
        client.complete(ids[:end], chunk_size=args.chunk_size, max_tokens=0)
        print(f"\rreading: {end:,} of {len(ids):,} tokens, {100 * end // len(ids)}%", end="",
              file=sys.stderr, flush=True)
    print(file=sys.stderr)


def generate(client, ids, args):
    """Streams the continuation, then says what the context cost."""
    for event in client.generate(ids, chunk_size=args.chunk_size, max_tokens=args.max_tokens,
                                 temperature=args.temperature, seed=args.seed):
        if isinstance(event, Tokens):
            print(event.text, end="", flush=True)
        elif isinstance(event, Finished):
            usage = event.usage
    print()
    print(f"{usage.cached_tokens:,} of {usage.prompt_tokens:,} prompt tokens were read before\n"
          f"KV bytes at chunk size {usage.chunk_size}: {usage.kv_bytes_peak:,}; a dense model as "
          f"wide: {usage.kv_bytes_dense_same_width:,} "
          f"({usage.kv_bytes_dense_same_width / usage.kv_bytes_peak:.1f} times)", file=sys.stderr)
    if usage.kv_bytes_dense_twin:
        print(f"the dense twin: {usage.kv_bytes_dense_twin:,}",
              file=sys.stderr)


def main():
    parser = common.arguments(__doc__)
    parser.add_argument("file", help="the document, UTF-8")
    parser.add_argument("--chunk_size", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--max_tokens", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--piece_tokens", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--tail", action="store_true", help="of a document too long: its end")
    parser.add_argument("--temperature", type=float, default=0.7, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=7, help="default: %(default)s")
    args = parser.parse_args()
    if args.piece_tokens < 1:
        parser.error("--piece_tokens: at least 1")
    text = document(parser, args.file)
    if not text:
        parser.error(f"{args.file} is empty")
    with common.connected(parser, args) as client:
        room = common.room_beside(parser, client, args)
        ids = fitting(parser, client.tokenize(text, add_bos=True), room, args)
        prefill(client, ids, args)
        generate(client, ids, args)


if __name__ == "__main__":
    main()
