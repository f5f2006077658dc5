"""What a text costs a model, in nats for each token, and what is read off that: bits per byte,
by position in the context, and of the first token of each chunk."""

import dataclasses
import math

import numpy

from evaluate import DENSE

# Positions in the context, cut where they double: [1, 32), [32, 64), ...
FIRST_EDGE = 32


def windows(token_ids, served):
    """The text in pieces as long as the context, each begun as the model's sequences begin; as
    catctl score cuts it."""
    room = served.info.context_limit - len(served.bos)
    pieces = [served.bos + token_ids[i:i + room] for i in range(0, len(token_ids), room)]
    return [piece for piece in pieces if len(piece) > 1]


@dataclasses.dataclass
class Losses:
    """Of one text at one chunk size."""
    nats: list  # of each window: nats[w][i] of the token at position i + 1
    text_bytes: int = 0  # of the scored tokens

    @property
    def tokens(self):
        return sum(map(len, self.nats))

    def bits_per_byte(self):
        return sum(map(numpy.sum, self.nats)) / math.log(2) / self.text_bytes

    def at_positions(self, begin, end):
        """The losses of the tokens at positions [begin, end) of every window."""
        return numpy.concatenate([window[begin - 1:end - 1] for window in self.nats])

    def at_chunk_starts(self, chunk_size):
        """The losses of the first token of each chunk, from the second chunk on: what is predicted
        from summaries alone."""
        return numpy.concatenate([window[chunk_size - 1::chunk_size] for window in self.nats])


def measure(served, pieces, chunk_size):
    losses = Losses([])
    for piece in pieces:
        scores = served.score(piece, chunk_size)
        losses.nats.append(-numpy.array([token.logprob for token in scores.tokens]))
        losses.text_bytes += scores.scored_bytes
    return losses


def edges(context):
    """The ends of the ranges of positions."""
    found = [1, FIRST_EDGE]
    while found[-1] < context:
        found.append(min(context, 2 * found[-1]))
    return found


def by_position(served, pieces, losses):
    """Bits per byte of {chunk size: Losses} by position: for each range (begin, end, {size:
    value}). The bytes are those of the text there, the same for every chunk size."""
    rows, bounds = [], edges(max(map(len, pieces)))
    for begin, end in zip(bounds, bounds[1:]):
        text_bytes = sum(served.text_bytes(piece[begin:end]) for piece in pieces)
        rows.append((begin, end, {
            size: each.at_positions(begin, end).sum() / math.log(2) / text_bytes
            for size, each in losses.items()}))
    return rows


def chunk_starts(losses):
    """Of {chunk size: Losses}: a row for each chunk size with the mean loss of chunks' first
    tokens, beside the dense twin's of the same tokens (None: there is no twin). None for a chunk
    size of which the text fills no chunk."""
    twin = losses.get(DENSE)
    return [{"chunk_size": size, "nats": round(float(each.at_chunk_starts(size).mean()), 4),
             "dense_twin_nats":
                 twin and round(float(twin.at_chunk_starts(size).mean()), 4)}
            for size, each in losses.items() if size != DENSE and each.at_chunk_starts(size).size]
