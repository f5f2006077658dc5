"""Does auto{quality_loss_max} keep its bound? The card was measured on one text; here the running
server is asked with several bounds, with memory to spare and with too little for all, and what it
may choose is looked up in figures of *other* text (or sequences), which the card never saw."""

import concurrent.futures

from evaluate import card, recall, suite, text
from evaluate.served import catserve, has_tokenizer, serve
from serve_bench.harness import say

BOUNDS = (0.0, 0.01, 0.03, 0.1, 0.3)
CROWD = 12  # requests at once, of which the pool holds a quarter at the most costly chunk size
OTHER_BYTES = 40_000  # of the other text
OTHER_SEED = recall.SEED + 1000


def other_figures(served, other):
    """({chunk size: figure} on data that the card's first task was not measured on, prompts)"""
    prompt = round(suite.PROMPT_SHARE * served.info.context_limit)
    if has_tokenizer(served.directory):
        pieces = text.windows(served.client.tokenize(suite.read_text(other, OTHER_BYTES)), served)
        found = suite.losses_of([served], pieces)
        return ({size: each.bits_per_byte() for size, each in found.items()},
                [piece[:prompt] for piece in pieces])
    questions = recall.draw(recall.DEFAULT_PAIRS, 64, served.info.vocabulary_size, OTHER_SEED)
    return ({size: recall.accuracy(recall.right(served, questions, size), questions)
             for size in served.chunk_sizes}, questions.tokens[:, :prompt].tolist())


def sizes_used(served, prompts, bound, count):
    """Every chunk size at which one of `count` simultaneous requests ran, and how often a request's
    size was changed."""
    room = served.info.context_limit

    def run(prompt):
        used, changes = set(), 0
        for event in served.client.generate(
                prompt, quality_loss_max=bound, max_tokens=(room - len(prompt)) // 2,
                ignore_eos=True, seed=1, bypass_prefix_cache=True):
            if isinstance(event, catserve.Started):
                used.add(event.chunk_size)
            elif isinstance(event, catserve.BudgetChanged):
                used.add(event.to_chunk_size)
                changes += 1
        return used, changes

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        ended = list(pool.map(run, [prompts[i % len(prompts)] for i in range(count)]))
    return sorted(set().union(*(used for used, _ in ended))), sum(n for _, n in ended)


def measure(build, directory, other):
    """The card's section `bound`; `other` is the text to look the choices up in."""
    known = card.load(directory)
    task = known["tasks"][0]
    on_card = card.losses(card.figures(task), task["better"])
    peak = max(row["kv_bytes_peak"] for row in known["cost"]["rows"])
    say("the bound quality_loss_max")
    with serve(build, directory) as served:
        figures, prompts = other_figures(served, other)
        idle = {bound: sizes_used(served, prompts, bound, 1) for bound in BOUNDS}
    with serve(build, directory, kv_memory_bytes=CROWD // 4 * peak) as served:
        pressed = {bound: sizes_used(served, prompts, bound, CROWD) for bound in BOUNDS}
    seen = card.column(figures)
    elsewhere = card.losses(card.figures(seen), task["better"])
    return {"task": task["name"], "other": seen, "requests_pressed": CROWD,
            "kv_memory_bytes_pressed": CROWD // 4 * peak,
            "rows": [row(bound, on_card, elsewhere, idle[bound], pressed[bound])
                     for bound in BOUNDS]}


def row(bound, on_card, elsewhere, idle, pressed):
    """What came of one bound. The worst are over all that the card allows, used or not: on another
    day, with other neighbours, the server may use any of it."""
    allowed = sorted(size for size, loss in on_card.items() if loss <= bound)
    reach = {*allowed, *idle[0], *pressed[0]}
    return {"quality_loss_max": bound, "allowed": allowed, "used_idle": idle[0],
            "used_pressed": pressed[0], "changes_pressed": pressed[1],
            "worst_on_card": round(max(on_card[size] for size in reach), card.DIGITS),
            "worst_elsewhere": round(max(elsewhere[size] for size in reach), card.DIGITS)}
