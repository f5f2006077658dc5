"""Experiments with offered load: throughput and goodput over it, memory as the bound, recovery."""

import dataclasses

from serve_bench.harness import PAGE_ENTRIES, Figure, Server, entry_bytes, peak_pages, say

BUDGETS = ("4", "8", "16", "32", "auto8-32")
LOADS = (0.25, 0.5, 1.0, 1.5, 2.0)  # times the capacity at C = 8
SEQUENCES = 4  # full ones that a pool holds
CROWD = 32  # requests in flight that keep every slot busy
# Prompts and answers together are 1,024 tokens and more; mostly answers, so that memory and not
# reading prompts is what binds.
LENGTHS = ((256, 768), (384, 768), (512, 896))
# A client that has no token by the objective's time leaves: its request could not be good any more.
OBJECTIVE = ("--objective_ttft_ms=2000", "--objective_inter_token_p99_ms=150",
             "--patience_ms=2000", "--poll_ms=100")
SEED = 11


def traffic(lengths=LENGTHS):
    return "--lengths=" + ",".join(f"{p}:{g}" for p, g in lengths)


def shapes_of(bench, options):
    return options.shapes or ("cat-256", "dense-128")


def pool_bytes(bench, model, chunk_size):
    """KV memory that holds exactly four of the longest sequences (chunk size 0: dense)."""
    longest = max(p + g for p, g in LENGTHS)
    return SEQUENCES * peak_pages(longest, chunk_size) * PAGE_ENTRIES * entry_bytes(bench, model)


def measure_capacity(bench, model, kv_bytes, concurrency=2 * SEQUENCES):
    """Requests per second that the server finishes at C = 8 with always more of them waiting."""
    seconds = 8 if bench.quick else 40
    with Server(bench, model, kv_memory_bytes=kv_bytes) as server:
        result = bench.load(server, f"--concurrency={concurrency}",
                            f"--duration_seconds={seconds}", f"--warmup_seconds={seconds / 4}",
                            "--drain_seconds=0", traffic(), "--budgets=8", f"--seed={SEED}")
    rate = result["summary"]["finished_per_second"]
    say(f"  capacity at C = 8: {rate:.3f} requests/s")
    return rate


@dataclasses.dataclass
class Offer:
    """Open-loop load on a server of its own: another's prefix cache would answer for it."""
    model: str
    kv_bytes: int
    budget: str
    seconds: int

    def at(self, bench, rate, seed=SEED):
        """The summary at `rate`. What did not end soon after is cut: it would miss the objective
        anyway."""
        with Server(bench, self.model, kv_memory_bytes=self.kv_bytes) as server:
            result = bench.load(server, f"--rate={rate:.4f}", f"--duration_seconds={self.seconds}",
                                traffic(), f"--budgets={self.budget}", f"--seed={seed}",
                                "--drain_seconds=5", *OBJECTIVE)
        summary = result["summary"]
        say(f"  {self.model} {self.budget} at {rate:.3f}/s: {summary['tokens_per_second']:.1f} "
            f"tokens/s, goodput {summary['good_per_second']:.3f}/s, {summary['failed']} failed")
        return summary


def point(load, summary):
    keys = ("offered_per_second", "finished_per_second", "good_per_second", "tokens_per_second",
            "requests", "good", "failed", "gave_up", "not_sent", "cut", "ttft_ms", "inter_token_ms",
            "chunk_sizes", "chunk_sizes_last", "budget_changes", "cached_tokens", "kv_pages_peak",
            "running_peak", "send_lag_ms", "preemptions", "budgets_coarsened", "budgets_refined")
    return {"load": load, **{key: summary[key] for key in keys}}


def load_curve(bench, options):
    """Throughput and goodput against offered load in the KV memory of four dense sequences."""
    cat, dense = shapes_of(bench, options)
    seconds = 5 if bench.quick else options.seconds or 30
    loads = (0.5, 2.0) if bench.quick else LOADS
    budgets = ("8", "32", "auto8-32") if bench.quick else BUDGETS
    kv_bytes = pool_bytes(bench, dense, 0)
    capacity = measure_capacity(bench, cat, kv_bytes, CROWD)
    curves = []
    for model, budget in [*((cat, budget) for budget in budgets), (dense, "none")]:
        source = Offer(model, kv_bytes, budget, seconds)
        curves.append({"model": model, "budget": "dense" if budget == "none" else budget,
                       "points": [point(load, source.at(bench, load * capacity))
                                  for load in loads]})
    figures = [Figure(f"load_curve.{cat}.c8.capacity", "requests/s", [capacity])]
    for curve in curves:
        name = curve["budget"] if not curve["budget"].isdigit() else f"c{curve['budget']}"
        for p in curve["points"]:
            key = f"load_curve.{curve['model']}.{name}.at{p['load']:g}x"
            figures.append(Figure(f"{key}.tokens", "tokens/s", [p["tokens_per_second"]]))
            figures.append(Figure(f"{key}.goodput", "requests/s", [p["good_per_second"]]))
    return figures, {"kv_memory_bytes": kv_bytes, "capacity": capacity, "lengths": LENGTHS,
                     "curves": curves}


def ratio(over, under):
    """Of goodputs; a goodput of nothing counts as one request, so that the ratio is a bound."""
    return over["good"] / max(1, under["good"])


def lost(summary):
    return summary["failed"] + summary["gave_up"]


def memory_bound(bench, options):
    """At twice the capacity of C = 8 in a pool of four sequences: goodput of auto 8 to 32 over that
    of the fixed chunk sizes."""
    cat, _ = shapes_of(bench, options)
    seconds = 8 if bench.quick else options.seconds or 45
    rounds = 1 if bench.quick else options.runs or 3
    kv_bytes = pool_bytes(bench, cat, 8)
    capacity = measure_capacity(bench, cat, kv_bytes)
    runs = [{budget: point(2.0, Offer(cat, kv_bytes, budget, seconds).at(bench, 2 * capacity,
                                                                        SEED + i))
             for budget in ("auto8-32", "8", "32")} for i in range(rounds)]
    key = f"memory_bound.{cat}"
    failed = [lost(run["auto8-32"]) - lost(run["32"]) for run in runs]
    figures = [Figure(f"{key}.c8.capacity", "requests/s", [capacity])]
    for budget, name in (("auto8-32", "auto"), ("8", "c8"), ("32", "c32")):
        figures.append(Figure(f"{key}.{name}.goodput", "requests/s",
                              [run[budget]["good_per_second"] for run in runs]))
    figures += [
        Figure(f"{key}.auto_over_c8", "x", [ratio(r["auto8-32"], r["8"]) for r in runs]),
        Figure(f"{key}.auto_over_c32", "x", [ratio(r["auto8-32"], r["32"]) for r in runs]),
        Figure(f"{key}.failed_in_auto_beyond_c32", "requests", failed),
    ]
    return figures, {"kv_memory_bytes": kv_bytes, "capacity": capacity, "lengths": LENGTHS,
                     "load": 2.0, "runs": runs}


def recovery(bench, options):
    """Ten times the capacity for a while: throughput of a busy server before and after."""
    cat, _ = shapes_of(bench, options)
    warm_up, calm, flood, settle = (3, 8, 3, 4) if bench.quick else (10, 30, 15, 15)
    rounds = 1 if bench.quick else options.runs or 3
    kv_bytes = pool_bytes(bench, cat, 8)
    capacity = measure_capacity(bench, cat, kv_bytes)
    runs = []
    with Server(bench, cat, kv_memory_bytes=kv_bytes, queue_requests_max=16) as server:
        # Busy before and after, so that the server's speed is compared and not two draws of
        # arrivals.
        busy, ten = f"{1.5 * capacity:.4f}", f"{10 * capacity:.4f}"
        phases = (f"{busy}:{warm_up},{busy}:{calm},{ten}:{flood},{busy}:{settle},{busy}:{calm}")
        for i in range(rounds):
            summary = bench.load(server, f"--phases={phases}", traffic(), "--budgets=8",
                                 f"--seed={SEED + i}", "--drain_seconds=60")["summary"]
            runs.append({key: summary[key] for key in
                         ("phases", "codes", "reasons", "cut", "not_sent", "failed", "requests")})
    before, during, after = ([run["phases"][i]["tokens_per_second"] for run in runs]
                             for i in (1, 2, 4))
    key = f"recovery.{cat}"
    refused = [run["codes"].get("RESOURCE_EXHAUSTED", 0) for run in runs]
    figures = [
        Figure(f"{key}.before", "tokens/s", before),
        Figure(f"{key}.during", "tokens/s", during),
        Figure(f"{key}.after", "tokens/s", after),
        Figure(f"{key}.after_over_before", "x", [b / a if a else 0
                                                 for a, b in zip(before, after)]),
        Figure(f"{key}.refused", "requests", refused),
        Figure(f"{key}.failed_otherwise", "requests",
               [run["failed"] - n for run, n in zip(runs, refused)]),
    ]
    return figures, {"kv_memory_bytes": kv_bytes, "capacity": capacity, "runs": runs}
