"""What is measured of a model: one suite for models of text, one for models of the recall task.
Each takes the server of the model and, where there is one, that of its dense twin, and gives the
sections of the model's card (card.py)."""

import codecs
import dataclasses

from evaluate import DENSE, EvaluationError, card, cost, facts, recall, samples, text
from serve_bench.harness import say

COST_THREADS = 1  # in measuring cost: two would wait for each other on a busy machine
PROMPT_SHARE = 3 / 4  # of a full context, in measuring cost; the rest is generated


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured."""
    texts: dict  # file of each task; the first is the card's default
    bytes_max: int = 1 << 20  # of each text
    facts_planted: int = 0
    distances: tuple = facts.DISTANCES
    sequences: int = 64  # of each number of pairs
    rounds: int = 9  # of cost


def read_text(path, bytes_max):
    """The beginning of a text file, whole characters."""
    try:
        with path.open("rb") as file:
            raw = file.read(bytes_max)
        # a character that the cut leaves incomplete is waited for, not an error
        decoder = codecs.getincrementaldecoder("utf-8")()
        content = decoder.decode(raw, final=len(raw) < bytes_max)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read ({error.strerror}): give a text as "
                              "TEXT=file") from error
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path} is no UTF-8 at byte {error.start}: convert it") from error
    if not content.strip():
        raise EvaluationError(f"{path} holds no text: give another as TEXT=file")
    return content


def losses_of(servers, pieces):
    """{chunk size: text.Losses}, the twin's at DENSE."""
    found = {}
    for served in servers:
        for size in served.chunk_sizes:
            found[size] = text.measure(served, pieces, size)
            say(f"  chunk size {size}: {found[size].bits_per_byte():.4f} bits per byte"
                if size else f"  dense twin: {found[size].bits_per_byte():.4f} bits per byte")
    return found


def check_twin(servers, sample):
    """A twin must read the same tokens, or its figures say nothing."""
    for twin in servers[1:]:
        if twin.chunk_sizes != [DENSE]:
            raise EvaluationError(f"the card's dense_twin.path leads to {twin.directory.name}, "
                                  "which is not dense: correct it")
        if twin.info.context_limit < servers[0].info.context_limit:
            raise EvaluationError(f"{twin.directory.name} has a shorter context than its CAT: "
                                  "correct the card's dense_twin.path")
        if sample and twin.client.tokenize(sample) != servers[0].client.tokenize(sample):
            raise EvaluationError(f"{twin.directory.name} has another tokenizer than its CAT: "
                                  "correct the card's dense_twin.path")


def fact_section(servers, token_ids, plan):
    say(f"{plan.facts_planted} planted facts")
    some = facts.cases(servers[0], token_ids, plan.facts_planted)
    distances = facts.fitting(some, plan.distances)
    found = {size: facts.gains(served, some, distances, size)
             for served in servers for size in served.chunk_sizes}
    rows = [{"distance": distance, **card.column({s: g[distance] for s, g in found.items()})}
            for distance in distances]
    return {"count": plan.facts_planted, "tokens_before": some[0].room,
            "without": card.column({s: g[None] for s, g in found.items()}), "rows": rows}


def text_suite(servers, plan):
    """Bits per byte of the plan's texts, by position, of chunks' first tokens; planted facts."""
    served, sections = servers[0], {"tasks": [], "positions": {}, "tokens": {}}
    for name, path in plan.texts.items():
        content = read_text(path, plan.bytes_max)
        check_twin(servers, content[:1000])
        say(f"{name}: {path.name}")
        token_ids = served.client.tokenize(content)
        pieces = text.windows(token_ids, served)
        if not pieces:
            raise EvaluationError(f"{path} has nothing to score: give a longer text as TEXT=file")
        losses = losses_of(servers, pieces)
        bits = {size: each.bits_per_byte() for size, each in losses.items()}
        sections["tasks"].append({"name": name, "measure": f"bits per byte of {path.name}",
                                  "better": "lower", **card.column(bits)})
        sections["tokens"][name] = losses[served.chunk_sizes[0]].tokens
        sections["positions"][name] = [
            {"from": begin, "to": end, **card.column(values)}
            for begin, end, values in text.by_position(served, pieces, losses)]
        if name != next(iter(plan.texts)):
            continue
        sections["chunk_starts"] = text.chunk_starts(losses)
        sections["quality"] = [{"chunk_size": row["chunk_size"],
                                "heldout_bits_per_byte": row["value"]}
                               for row in card.column(bits)["values"]]
        if plan.facts_planted:
            sections["facts"] = fact_section(servers, token_ids, plan)
        sections["samples"] = samples.write(servers, pieces)
        prompt = pieces[0][:round(PROMPT_SHARE * served.info.context_limit)]
    return sections, prompt


def recall_suite(servers, plan):
    """Accuracy of recall by pairs, and by distance."""
    check_twin(servers, None)
    vocabulary, tasks = servers[0].info.vocabulary_size, []
    if servers[0].info.context_limit < recall.LENGTH:
        raise EvaluationError(f"recall needs a context of {recall.LENGTH} tokens; models with text "
                              "need a tokenizer beside them")
    sections = {"tokens": {}}
    say(f"recall, {plan.sequences} sequences of each number of pairs")
    for pairs in sorted(recall.PAIRS, key=lambda p: p != recall.DEFAULT_PAIRS):
        questions = recall.draw(pairs, plan.sequences, vocabulary)
        hits = {size: recall.right(served, questions, size)
                for served in servers for size in served.chunk_sizes}
        tasks.append({"name": f"recall_{pairs}", "measure": f"accuracy with {pairs} pairs",
                      "better": "higher", **card.column(
                          {size: recall.accuracy(h, questions) for size, h in hits.items()})})
        sections["tokens"][f"recall_{pairs}"] = questions.tokens.size
        if pairs == recall.DEFAULT_PAIRS:
            sections["distances"] = {"pairs": pairs, "rows": distance_rows(hits, questions)}
            prompt = questions.tokens[0, :round(PROMPT_SHARE * recall.LENGTH)].tolist()
    return {"tasks": tasks, **sections}, prompt


def distance_rows(hits, questions):
    found = {size: recall.by_distance(h, questions) for size, h in hits.items()}
    return [{"from": begin, "to": end, "questions": count,
             **card.column({size: f[begin, end][0] for size, f in found.items()})}
            for (begin, end), (_, count) in next(iter(found.values())).items()]


def cost_section(servers, prompt, rounds):
    """What prompts cost that leave a quarter of the context to generate."""
    say(f"cost, {rounds} rounds")
    count = min(servers[0].info.context_limit - len(prompt),
                max(2, round(len(prompt) * (1 - PROMPT_SHARE) / PROMPT_SHARE)))
    return {"threads": COST_THREADS, **cost.measure(servers, prompt, count, rounds)}
