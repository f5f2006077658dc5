"""What a request costs: tokens per second, time to the first token, processor time and KV bytes,
for every chunk size and for the dense twin in turn, round after round, so that a machine's mood
meets all alike."""

import dataclasses
import statistics

from evaluate import DENSE
from evaluate.served import Served

SEED = 11


@dataclasses.dataclass
class Way:
    """A model at a chunk size, and what each round of it took."""
    served: Served
    chunk_size: int
    rates: list = dataclasses.field(default_factory=list)  # tokens/s after the first
    waits: list = dataclasses.field(default_factory=list)  # seconds before it, queue included
    computed: list = dataclasses.field(default_factory=list)  # processor seconds of a request
    kv_bytes: int = 0

    def run(self, prompt, count):
        """One request. Times are the server's own: a client that is slower than a small model gets
        many tokens in one message. Processor time is what a busy machine does not change much."""
        before = self.served.processor_seconds()
        usage = self.served.client.complete(
            prompt, max_tokens=count, ignore_eos=True, seed=SEED, bypass_prefix_cache=True,
            **self.served.budget(self.chunk_size)).usage
        self.computed.append(self.served.processor_seconds() - before)
        self.waits.append(usage.queued_seconds + usage.prefill_seconds)
        self.rates.append((count - 1) / usage.decode_seconds)
        self.kv_bytes = usage.kv_bytes_peak


def spread(values, digits):
    return {"median": round(statistics.median(values), digits),
            "low": round(min(values), digits), "high": round(max(values), digits)}


def row(way, twin, tokens):
    """A way's figures; ratios are of one round each, to the twin in the same round."""
    found = {"kv_bytes_peak": way.kv_bytes, "kv_bytes_per_token": round(way.kv_bytes / tokens, 1),
             "tokens_per_second": spread(way.rates, 1),
             "first_token_ms": spread([1e3 * wait for wait in way.waits], 2),
             "processor_ms": spread([1e3 * each for each in way.computed], 2)}
    if twin and way is not twin:
        found["kv_bytes_to_twin"] = round(way.kv_bytes / twin.kv_bytes, 4)
        found["tokens_per_second_to_twin"] = spread(
            [a / b for a, b in zip(way.rates, twin.rates)], 3)
        found["first_token_to_twin"] = spread(
            [a / b for a, b in zip(way.waits, twin.waits)], 3)
        found["processor_to_twin"] = spread(
            [a / b for a, b in zip(way.computed, twin.computed)], 3)
    return found


def measure(servers, prompt, count, rounds):
    """Costs of a request of `prompt` and `count` more tokens on each of the `servers` alone."""
    ways = [Way(served, size) for served in servers for size in served.chunk_sizes]
    for way in ways:
        way.run(prompt, count)  # the first time touches memory that later ones find warm
        way.rates.clear()
        way.waits.clear()
        way.computed.clear()
    for _ in range(rounds):
        for way in ways:
            way.run(prompt, count)
    twin = next((way for way in ways if way.chunk_size == DENSE), None)
    tokens = len(prompt) + count
    found = {"prompt_tokens": len(prompt), "generated_tokens": count, "rounds": rounds, "rows": [
        {"chunk_size": way.chunk_size, **row(way, twin, tokens)}
        for way in ways if way is not twin]}
    if twin:
        found["dense_twin"] = row(twin, twin, tokens)
    return found
