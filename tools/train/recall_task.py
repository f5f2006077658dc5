"""Multi-query associative recall: the task that tells whether a model can look things up.

A sequence shows `pairs` keys, each with its value, and later asks for every key once; after the
asked key comes its value, the only tokens that count. Everything between is filler (token 0).

    k1 v1 k2 v2 ... | 0 0 k2 v2 0 0 0 0 k1 v1 ...

Keys are 1 .. vocabulary/2 - 1, values vocabulary/2 .. vocabulary - 1, drawn anew for every
sequence, so nothing can be learned by heart. Gaps between the pairs and their questions follow a
power law, as in the benchmark that the CAT paper uses (Zoology, arXiv 2312.04927).
"""
import numpy as np

POWER = 0.01  # of the gaps: close to 1/gap
PAIRS = (4, 8, 16, 32, 64)


def sequences(count, length, pairs, vocabulary, rng):
    """(tokens [count, length], asked [count, length] bool: true where a value is to be recalled)"""
    half = vocabulary // 2
    if 4 * pairs > length or pairs >= half:
        raise ValueError(f'{pairs} pairs need {4 * pairs} tokens and as many keys')
    keys = rng.random((count, half - 1)).argsort(1)[:, :pairs] + 1
    values = rng.integers(half, vocabulary, (count, pairs))
    tokens = np.zeros((count, length), np.int64)
    tokens[:, 0:2 * pairs:2], tokens[:, 1:2 * pairs:2] = keys, values
    places = (length - 2 * pairs) // 2
    weight = np.arange(1, places + 1) ** (POWER - 1.0)
    # the `pairs` places with the largest log-weight plus Gumbel noise: drawn without replacement
    order = (np.log(weight) + rng.gumbel(size=(count, places))).argsort(1)[:, ::-1][:, :pairs]
    at = 2 * pairs + 2 * order
    np.put_along_axis(tokens, at, keys, 1)
    np.put_along_axis(tokens, at + 1, values, 1)
    asked = np.zeros(tokens.shape, bool)
    np.put_along_axis(asked, at + 1, True, 1)
    return tokens, asked
