"""A fact planted in a long text: how much less its answer costs at the end, by how far back it is.

Each case is a context full of held-out text that ends with a question and its answer. Once the fact
stands `distance` tokens before the question, once it is left out and the text is that much longer:
the difference of the answer's loss is what the model found. A model that finds nothing is at 0.
"""

import itertools

import numpy

NAMES = ("Hannah", "Daniel", "Esther", "Samuel", "Martha", "Joseph", "Rachel", "Aaron", "Miriam",
         "Caleb", "Naomi", "Elias")
ANSWERS = ("water", "silver", "bread", "stone", "cattle", "iron", "wine", "wood", "grain", "sheep",
           "gold", "fire")
FACT = " The trade of {name} is in {answer}."
QUESTION = " The trade of {name} is in"
DISTANCES = (16, 128, 768)  # tokens between the fact and the question


class Case:
    """Token ids of one fact, its question and its answer, and the text around them."""

    def __init__(self, served, filler, index):
        name, answer = NAMES[index % len(NAMES)], ANSWERS[(5 * index + 3) % len(ANSWERS)]
        tokenize = served.client.tokenize
        self.bos, self.filler = served.bos, filler
        self.fact = tokenize(FACT.format(name=name, answer=answer))
        self.answer = tokenize(" " + answer)
        self.question = tokenize(QUESTION.format(name=name))
        # tokens before the question: a full context, or as much as there is text
        self.room = min(len(filler), served.info.context_limit - len(self.bos)
                        - len(self.question) - len(self.answer))

    def tokens(self, distance):
        """A full context with the fact `distance` tokens before the question; None: without it."""
        if distance is None:
            before = self.filler[:self.room]
        else:
            first = self.room - distance - len(self.fact)
            before = self.filler[:first] + self.fact + self.filler[first:first + distance]
        return self.bos + before + self.question + self.answer

    def loss(self, served, distance, chunk_size):
        """Nats of the whole answer."""
        scores = served.score(self.tokens(distance), chunk_size)
        return -sum(token.logprob for token in scores.tokens[-len(self.answer):])


def cases(served, token_ids, count):
    """`count` facts, each in a part of the text of its own where there is enough of it."""
    context = served.info.context_limit
    starts = itertools.cycle(range(0, max(1, len(token_ids) - context), context))
    return [Case(served, token_ids[start:start + context], index)
            for index, start in zip(range(count), starts)]


def fitting(some, wanted):
    """The distances that leave room for the fact in every case."""
    return [d for d in wanted if d <= min(case.room - len(case.fact) for case in some)]


def gains(served, some, distances, chunk_size):
    """{distance: mean nats by which the fact lowers the answer's loss}, and the mean loss without
    it at None."""
    without = numpy.array([case.loss(served, None, chunk_size) for case in some])
    found = {None: float(without.mean())}
    for distance in distances:
        with_it = [case.loss(served, distance, chunk_size) for case in some]
        found[distance] = float((without - with_it).mean())
    return found
