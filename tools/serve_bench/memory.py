"""Experiments on KV memory: how many sequences it holds, and what automatic budgets make of it."""

from serve_bench.harness import (PAGE_ENTRIES, Figure, Server, entry_bytes, held_pages, peak_pages,
                                 say)

CHUNK_SIZES = (4, 8, 16, 32)
TOKENS = 2048  # of a full sequence in `capacity`
DENSE_SEQUENCES = 4  # that the memory of `capacity` holds
TRIES = 6
# Prompts are read beside streams a piece a step, each within about ten: the first sequence must
# still draw tokens when the last one has read its prompt.
GENERATED_MIN, GENERATED_PER_SEQUENCE = 128, 10
STEP_TOKENS = 8192  # before the first stream there is nothing to be gentle to


def most_live(calls):
    """The most calls between their first and their last token at one time."""
    edges = [(call["token_times"][0], 1) for call in calls]
    edges += [(call["token_times"][-1], -1) for call in calls]
    live = most = 0
    for _, change in sorted(edges):
        live += change
        most = max(most, live)
    return most


def try_sequences(bench, server, count, budget):
    """Sends `count` sequences of 2,048 tokens; what came of it. Clean: every one came to 2,048
    tokens with no chunk size changed and nothing preempted."""
    generated = max(GENERATED_MIN, GENERATED_PER_SEQUENCE * count)
    result = bench.load(server, f"--concurrency={count}", f"--requests={count}",
                        f"--lengths={TOKENS - generated}:{generated}", f"--budgets={budget}",
                        "--duration_seconds=3600", "--bypass_prefix_cache", "--record_calls")
    calls = result["calls"]
    whole = all(len(call["token_times"]) == generated and not call["budget_changes"]
                for call in calls)
    clean = whole and result["summary"]["preemptions"] == 0
    return {"sent": count, "clean": clean,
            "live": most_live([call for call in calls if call["token_times"]]),
            "running_peak": result["summary"]["running_peak"],
            "waiting_peak": result["summary"]["waiting_peak"]}


def count_live(bench, model, kv_bytes, chunk_size):
    """The most sequences that live together at 2,048 tokens, and how often that was tried."""
    pages = kv_bytes // (PAGE_ENTRIES * entry_bytes(bench, model))
    formula = pages // peak_pages(TOKENS, chunk_size)
    budget = str(chunk_size) if chunk_size else "none"
    count, best, log = pages // held_pages(TOKENS, chunk_size) + 2, 0, []
    with Server(bench, model, kv_memory_bytes=kv_bytes, slots=64,
                step_tokens_max=STEP_TOKENS) as server:
        for _ in range(TRIES):
            log.append(try_sequences(bench, server, count, budget))
            live, clean = log[-1]["live"], log[-1]["clean"]
            say(f"  {model} {budget}: {count} sent, {live} lived together, "
                f"{'none' if clean else 'some'} preempted")
            if clean:
                best = max(best, live)
            if clean and live < count or not clean and best >= count - 1:
                break  # the others waited, or one more than the best is too many
            count = count + 2 if clean else count - 1
    return {"model": model, "chunk_size": chunk_size, "live": best, "formula": formula,
            "pages": pages, "pages_per_sequence": peak_pages(TOKENS, chunk_size), "tries": log}


def capacity(bench, options):
    """How many sequences of 2,048 tokens live together in the memory of four dense ones."""
    cat, dense = options.shapes or (("cat-256", "dense-128") if bench.quick
                                    else ("cat-1536", "dense-768"))
    kv_bytes = DENSE_SEQUENCES * peak_pages(TOKENS, 0) * PAGE_ENTRIES * entry_bytes(bench, dense)
    rows = [count_live(bench, dense, kv_bytes, 0)]
    rows += [count_live(bench, cat, kv_bytes, chunk_size) for chunk_size in CHUNK_SIZES]
    base = rows[0]["live"]
    figures = [Figure(f"capacity.{dense}.dense", "sequences", [base],
                      f"formula {rows[0]['formula']}")]
    for row in rows[1:]:
        name = f"capacity.{cat}.c{row['chunk_size']}"
        figures.append(Figure(name, "sequences", [row["live"]], f"formula {row['formula']}"))
        figures.append(Figure(f"{name}.over_dense", "x", [row["live"] / base if base else 0]))
    return figures, {"kv_memory_bytes": kv_bytes, "tokens": TOKENS, "rows": rows}
