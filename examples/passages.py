#!/usr/bin/env python3
"""Answers a question from several passages, with the context's budget chosen by quality.

`quality_loss_max` says how much worse than at the best chunk size the measured quality may be. The
model's card says which chunk sizes that allows, and the server takes the best of them that memory
has room for. Each bound asks once, so that chunk sizes, memory and answers can be compared.
"""

import sys

import common
from catserve import CatserveError, Finished, Started, Tokens


def passages(parser, files):
    """The text of all files, an empty line between them."""
    try:
        return "\n\n".join(open(file, encoding="utf-8").read().strip() for file in files)
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"cannot read the passages: {error}")


def measured(parser, model, name):
    """The dial's column for a kind of task, the first if none is named; None if there is none."""
    tasks = {task.name: task for task in model.quality_tasks}
    if name is not None and name not in tasks:
        parser.error(f"the model was not measured at {name}, but at: {', '.join(tasks) or '-'}")
    return next(iter(tasks.values()), None) if name is None else tasks[name]


def show_dial(model, task):
    """What each chunk size costs and what it is worth."""
    print(f"{model.name}: {task.measure}, {'higher' if task.higher_is_better else 'lower'} is "
          "better\nchunk size  KV bytes/1,000 tokens    value    loss")
    sizes = {size.chunk_size: size for size in model.chunk_sizes}
    for row in task.values:
        memory = sizes[row.chunk_size].kv_bytes_per_1000_tokens
        print(f"{row.chunk_size:>10}  {memory:>21,.0f}  {row.value:>7.4f}  {row.loss:>6.1%}")


def ask(client, prompt, bound, task, args):
    """Asks within one bound and tells what it allowed, what was taken and what that cost. False if
    the server refuses such a request: a wider bound, or more memory, may be what it takes."""
    budget = {"quality_loss_max": bound}
    if args.kv_bytes_max is not None:
        budget["kv_bytes_max"] = args.kv_bytes_max
    if task:
        allowed = [str(row.chunk_size) for row in task.values if row.loss <= bound + 1e-9]
        budget["quality_task"] = task.name
        print(f"\nat most {bound:.1%} lost: chunk size {' or '.join(allowed)}")
    try:
        for event in client.generate(prompt, max_tokens=args.max_tokens, stop="\n",
                                     min_tokens=min(4, args.max_tokens), temperature=0.7, seed=7,
                                     **budget):
            if isinstance(event, Started):
                print(f"the server took {event.chunk_size}")
            elif isinstance(event, Tokens):
                print(event.text, end="", flush=True)
            elif isinstance(event, Finished):
                usage = event.usage
                print(f"\n[{usage.prompt_tokens} prompt tokens, {usage.kv_bytes_peak:,} KV bytes; "
                      f"a dense model as wide: {usage.kv_bytes_dense_same_width:,}]")
    except CatserveError as error:
        if error.code.name != "INVALID_ARGUMENT":
            raise
        sys.stdout.flush()
        print(f"refused: {error}", file=sys.stderr)
        return False
    return True


def main():
    parser = common.arguments(__doc__)
    parser.add_argument("question")
    parser.add_argument("files", nargs="+", metavar="passage", help="a file of text")
    parser.add_argument("--quality_loss_max", type=float, nargs="+", default=[0.01, 0.1],
                        metavar="BOUND", help="0 to 1; default: 0.01 and 0.1")
    parser.add_argument("--quality_task", metavar="NAME", help="default: the model card's first")
    parser.add_argument("--kv_bytes_max", type=int, metavar="N",
                        help="most KV memory of a request; default: what the server has")
    parser.add_argument("--max_tokens", type=int, default=48, help="default: %(default)s")
    args = parser.parse_args()
    prompt = f"{passages(parser, args.files)}\n\n{args.question}\n"
    with common.connected(parser, args) as client:
        model = client.model()
        task = measured(parser, model, args.quality_task)
        if task:
            show_dial(model, task)
        answered = [ask(client, prompt, bound, task, args) for bound in args.quality_loss_max]
    sys.exit(0 if any(answered) else 1)


if __name__ == "__main__":
    main()
