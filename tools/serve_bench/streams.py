"""Experiments with streams that run together: batching, prompts among them, the cost of gRPC."""

import json
import pathlib
import re
import statistics
import subprocess
import tempfile

from serve_bench.harness import (BenchError, Figure, Server, gaps_ms, live_window, percentile, say,
                                 tokens_within)

CONTEXT = 2048
BATCH = 16
STREAMS = 32


def read_prompts(bench, server, count, prompt, budget):
    """Has the prompts of the next run read, into the prefix cache."""
    bench.load(server, f"--concurrency={count}", f"--requests={count}", f"--lengths={prompt}:1",
               f"--budgets={budget}", "--duration_seconds=3600")


def live_rate(bench, server, count, prompt, generated, budget):
    """Tokens per second while all of `count` streams are live. Their prompts are read before, into
    the prefix cache, so that they begin together."""
    read_prompts(bench, server, count, prompt, budget)
    result = bench.load(server, f"--concurrency={count}", f"--requests={count}",
                        f"--lengths={prompt}:{generated}", f"--budgets={budget}",
                        "--duration_seconds=3600", "--record_calls")
    calls = result["calls"]
    start, end = live_window(calls)
    if end <= start:
        raise BenchError(f"{count} streams were never live together: generate more tokens")
    return tokens_within(calls, start, end) / (end - start)


def batching(bench, options):
    """Tokens per second of 16 streams over one, at contexts up to 2,048 tokens."""
    cat, dense = options.shapes or (("cat-256", "dense-128") if bench.quick
                                    else ("cat-1536", "dense-768"))
    rounds = 1 if bench.quick else options.runs or 3
    generated = 64 if bench.quick else 128
    figures, details = [], {}
    for model, budget in ((cat, "16"), (dense, "none")):
        one, many = [], []
        with Server(bench, model, slots=BATCH) as server:
            for _ in range(rounds):
                for rates, count in ((one, 1), (many, BATCH)):
                    rates.append(live_rate(bench, server, count, CONTEXT - generated, generated,
                                           budget))
                    say(f"  {model}: {count} streams, {rates[-1]:.1f} tokens/s")
        name = f"batching.{model}." + (f"c{budget}" if budget.isdigit() else "dense")
        figures.append(Figure(f"{name}.streams1", "tokens/s", one))
        figures.append(Figure(f"{name}.streams{BATCH}", "tokens/s", many))
        figures.append(Figure(f"{name}.gain", "x", [b / a for a, b in zip(one, many)]))
        details[model] = {"one": one, "many": many}
    return figures, {"context": CONTEXT, "generated": generated, "rates": details}


def stream_gaps(bench, server, budget, seconds, prompts_rate):
    """The gaps of eight endless streams, in ms, while 4,000-token prompts arrive (rate 0: none)."""
    streams = ("--concurrency=8", "--requests=8", "--lengths=64:3900", f"--budgets={budget}",
               f"--duration_seconds={seconds}", "--drain_seconds=0", "--record_calls")
    warm_up = 2
    if prompts_rate == 0:
        return gaps_ms(bench.load(server, *streams)["calls"], warm_up, seconds), 0
    with tempfile.TemporaryDirectory() as work:
        path = pathlib.Path(work) / "prompts.json"
        prompts = bench.start_load(server, path, f"--rate={prompts_rate}", "--lengths=4000:1",
                                   f"--budgets={budget}", f"--duration_seconds={seconds - 1}",
                                   "--drain_seconds=0", "--bypass_prefix_cache")
        try:
            calls = bench.load(server, *streams)["calls"]
        finally:
            prompts.wait(60)
        read = json.loads(path.read_text())["summary"]
    return gaps_ms(calls, warm_up, seconds), read["finished"]


def prompts_among_streams(bench, options):
    """Inter-token p99 of running streams while 4,000-token prompts arrive, over that without."""
    models = options.shapes or (("cat-256",) if bench.quick else ("cat-256", "cat-1536"))
    seconds = 12 if bench.quick else options.seconds or 40
    rounds = 1 if bench.quick else options.runs or 3
    figures, details = [], {}
    for model in models:
        budget = "none" if model.startswith("dense") else "16"
        rate = 0.1 if model.endswith(("1536", "768")) else 0.5
        alone, among, prompts = [], [], []
        with Server(bench, model) as server:
            for _ in range(rounds):
                gaps, _ = stream_gaps(bench, server, budget, seconds, 0)
                alone.append(percentile(gaps, 99))
                gaps, read = stream_gaps(bench, server, budget, seconds, rate)
                among.append(percentile(gaps, 99))
                prompts.append(read)
                say(f"  {model}: p99 {alone[-1]:.1f} ms alone, {among[-1]:.1f} ms among "
                    f"{read} prompts")
        name = f"prompts_among_streams.{model}"
        figures += [Figure(f"{name}.alone_p99", "ms", alone),
                    Figure(f"{name}.among_p99", "ms", among),
                    Figure(f"{name}.ratio", "x", [b / a for a, b in zip(alone, among)])]
        details[model] = {"prompts_read": prompts, "rate": rate, "budget": budget}
    return figures, {"streams": 8, "prompt_tokens": 4000, "models": details}


def engine_rate(bench, model, prompt, generated, chunk_size):
    """Tokens per second of the engine alone with 32 sequences."""
    flags = [f"--batches={STREAMS}", f"--prompt_tokens={prompt}",
             f"--generated_tokens={generated}", f"--chunk_sizes={chunk_size}"]
    bench.commands.append(" ".join(["engine_bench", f"--model={model}", *flags]))
    text = subprocess.run([bench.build / "bench/engine_bench", f"--model={bench.model(model)}",
                           *flags], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = re.search(rf"^\S+\.decode\.batch{STREAMS}=(\S+) tokens/s$", text, re.M)
    if not found:
        raise BenchError(f"engine_bench printed something unexpected:\n{text}")
    return float(found.group(1))


def served_rate(bench, server, prompt, generated, chunk_size):
    """The same through gRPC: prompts read before, the median of three windows, as engine_bench
    does it."""
    read_prompts(bench, server, STREAMS, prompt, chunk_size or "none")
    result = bench.load(server, f"--concurrency={STREAMS}", f"--requests={STREAMS}",
                        f"--lengths={prompt}:{generated + STREAMS}",
                        f"--budgets={chunk_size or 'none'}", "--duration_seconds=3600",
                        "--record_calls")
    calls = result["calls"]
    marks = [max(call["token_times"][index] for call in calls)
             for index in (0, generated // 3 - 1, 2 * generated // 3 - 1, generated - 1)]
    return statistics.median(tokens_within(calls, a, b) / (b - a)
                             for a, b in zip(marks, marks[1:]))


def own_cost(bench, options):
    """Tokens per second through gRPC with 32 streams over those of the engine alone."""
    models = options.shapes or (("text",) if bench.quick else ("text", "cat-256"))
    prompt, generated = (64, 96) if bench.quick else (128, 192)
    rounds = 2 if bench.quick else options.runs or 5
    figures, details = [], {}
    for model in models:
        chunk_size = 0 if "dense" in model else 16
        engine, served = [], []
        for _ in range(rounds):
            engine.append(engine_rate(bench, model, prompt, generated, chunk_size))
            with Server(bench, model, slots=STREAMS) as server:
                served.append(served_rate(bench, server, prompt, generated, chunk_size))
            say(f"  {model}: engine {engine[-1]:.0f} tokens/s, through gRPC {served[-1]:.0f}")
        name = f"own_cost.{model}." + (f"c{chunk_size}" if chunk_size else "dense")
        figures += [Figure(f"{name}.engine", "tokens/s", engine),
                    Figure(f"{name}.grpc", "tokens/s", served),
                    Figure(f"{name}.grpc_over_engine", "x",
                           [s / e for s, e in zip(served, engine)])]
        details[model] = {"engine": engine, "grpc": served}
    return figures, {"streams": STREAMS, "prompt_tokens": prompt, "generated_tokens": generated,
                     "rates": details}


# Slots and types of each server that a burst is sent to, besides the model and the budget.
BURST_SIDES = (("dense", {"slots": 8}),
               ("cat", {"slots": 8}),
               ("cat", {"slots": 8, "weight_dtype": "I8", "kv_dtype": "I8"}),
               ("cat", {"slots": 16, "weight_dtype": "I8", "kv_dtype": "I8"}))


def burst_calls(bench, server, model, lengths):
    """Sixteen requests at once, each with a prompt of its own."""
    budget = "none" if model.startswith("dense") else "16"
    return bench.load(server, f"--concurrency={BATCH}", f"--requests={BATCH}",
                      f"--lengths={lengths}", f"--budgets={budget}", "--duration_seconds=3600",
                      "--bypass_prefix_cache", "--record_calls")["calls"]


def burst_side(bench, model, flags, rounds, lengths):
    """Sixteen requests at once, `rounds` times: lists of rates, of times to the first token and of
    gaps between tokens (ms)."""
    rates, first, gaps = [], [], []
    with Server(bench, model, **flags) as server:
        for _ in range(rounds):
            calls = burst_calls(bench, server, model, lengths)
            start = min(call["arrival"] for call in calls)
            end = max(call["token_times"][-1] for call in calls)
            rates.append(tokens_within(calls, start, end) / (end - start))
            first.append([1e3 * (call["token_times"][0] - call["arrival"]) for call in calls])
            gaps.append(gaps_ms(calls, start, end))
            say(f"  {model} {flags}: {rates[-1]:.1f} tokens/s")
    return rates, first, gaps


def burst(bench, options):
    """Sixteen requests at once, prompts of 512 tokens and 128 generated, prompts among tokens."""
    cat, dense = options.shapes or (("cat-256", "dense-128") if bench.quick
                                    else ("cat-1536", "dense-768"))
    rounds = 1 if bench.quick else options.runs or 3
    lengths = "64:32" if bench.quick else "512:128"
    figures, details = [], []
    for kind, flags in BURST_SIDES:
        model = dense if kind == "dense" else cat
        rates, first, gaps = burst_side(bench, model, flags, rounds, lengths)
        name = ".".join(["burst", model, f"slots{flags['slots']}",
                         *([flags["weight_dtype"]] if "weight_dtype" in flags else [])])
        figures += [Figure(f"{name}.rate", "tokens/s", rates),
                    Figure(f"{name}.first_p50", "ms", [percentile(f, 50) for f in first]),
                    Figure(f"{name}.first_p95", "ms", [percentile(f, 95) for f in first]),
                    Figure(f"{name}.gap_p50", "ms", [percentile(g, 50) for g in gaps]),
                    Figure(f"{name}.gap_p99", "ms", [percentile(g, 99) for g in gaps])]
        details.append({"model": model, "flags": flags, "lengths": lengths})
    return figures, {"requests": BATCH, "sides": details}
