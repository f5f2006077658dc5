"""Associative recall (tools/train/recall_task.py): the share of asked values that greedy decoding
would get right, by pairs and by how far back a pair is. One Score a sequence."""

import dataclasses

import numpy

from evaluate import EvaluationError
from train.recall_task import PAIRS, sequences

LENGTH = 256  # tokens of a sequence
SEED = 20_000  # training draws from small seeds
DISTANCE_EDGES = (2, 8, 16, 32, 64, 128, 256)  # from a key to where it is asked again
DEFAULT_PAIRS = 16


@dataclasses.dataclass
class Questions:
    """Sequences with the same number of pairs."""
    tokens: numpy.ndarray  # [count, LENGTH]
    asked: numpy.ndarray  # [count, LENGTH], true where a value is to be recalled


def draw(pairs, count, vocabulary, seed=SEED):
    if vocabulary // 2 <= max(PAIRS):
        raise EvaluationError(f"a vocabulary of {vocabulary} is too small for recall of "
                              f"{max(PAIRS)} pairs: models with text need a tokenizer beside them")
    return Questions(*sequences(count, LENGTH, pairs, vocabulary,
                                numpy.random.default_rng(seed + pairs)))


def distances(questions):
    """[count, LENGTH]: how many tokens before a question its pair is; 0 where nothing is asked."""
    found = numpy.zeros_like(questions.tokens)
    for row, (tokens, asked) in enumerate(zip(questions.tokens, questions.asked)):
        for at in numpy.flatnonzero(asked):
            first = numpy.flatnonzero(tokens[:at - 1] == tokens[at - 1])[0]
            found[row, at] = at - 1 - first
    return found


def right(served, questions, chunk_size):
    """[count, LENGTH] bool: where the likeliest token is the text's."""
    hits = numpy.zeros(questions.tokens.shape, bool)
    for row, tokens in enumerate(questions.tokens):
        scores = served.score(tokens.tolist(), chunk_size, top=1)
        best = numpy.array([token.top[0][0] for token in scores.tokens])
        hits[row, 1:] = best == tokens[1:]
    return hits


def accuracy(hits, questions):
    return float(hits[questions.asked].mean())


def by_distance(hits, questions):
    """{(begin, end): (share right, questions)} by the distance of a pair; ranges without a question
    are left out."""
    far, good, found = distances(questions)[questions.asked], hits[questions.asked], {}
    for begin, end in zip(DISTANCE_EDGES, DISTANCE_EDGES[1:]):
        within = (far >= begin) & (far < end)
        if within.any():
            found[begin, end] = (float(good[within].mean()), int(within.sum()))
    return found
