"""Token streams as windows of block_size, each beginning with <|endoftext|>.

The server gives every sequence a first token, because a CAT has no prediction for
it; <|endoftext|> is that token, so it must be what the model has always seen there.
"""
import json
import os

import numpy as np
import torch

EOT = 0


def require(work, *names):
    """Ends the program if the work directory lacks one of these files."""
    for name in names:
        if not os.path.isfile(os.path.join(work, name)):
            raise SystemExit(f'{work}/{name} is missing: run corpus.py and make_tokenizer.py, or '
                             'run.sh, which runs all')


def load(work, split):
    ids = np.fromfile(os.path.join(work, split + '.bin'), np.uint16)
    return torch.from_numpy(ids.astype(np.int64))


def windows(stream, length, offset=0):
    """[n, length]: <|endoftext|> followed by length - 1 consecutive tokens."""
    body = length - 1
    n = (len(stream) - offset) // body
    w = stream[offset:offset + n * body].view(n, body)
    return torch.cat([torch.full((n, 1), EOT), w], 1)


class Batches:
    """An endless, resumable order: everything follows from the number of windows taken."""

    def __init__(self, stream, length, batch):
        self.stream, self.length, self.batch = stream, length, batch
        self.epoch = -1
        self.per_epoch = max(0, len(stream) - length) // (length - 1) // batch
        if self.per_epoch == 0:
            raise SystemExit(f'the corpus has {len(stream)} tokens, less than a step of {batch} '
                             f'windows of {length} takes')

    def get(self, index):
        """Batch number `index` of the run."""
        epoch, i = divmod(index, self.per_epoch)
        if epoch != self.epoch:
            rng = torch.Generator().manual_seed(1000 + epoch)
            offset = int(torch.randint(0, self.length - 1, (1,), generator=rng))
            w = windows(self.stream, self.length, offset)
            self.order = w[torch.randperm(len(w), generator=rng)]
            self.epoch = epoch
        return self.order[i * self.batch:(i + 1) * self.batch]


def unigram_nll(train, heldout, vocab):
    """Held-out loss of predicting from token frequencies alone: what a chunk's first
    token costs when the summaries say nothing."""
    counts = torch.bincount(train, minlength=vocab).float() + 1.0
    return -(counts / counts.sum()).log()[heldout].mean().item()


def bytes_per_token(work):
    """Of the held-out stream, to turn nats per token into bits per byte."""
    with open(os.path.join(work, 'heldout_bytes.json')) as f:
        size = json.load(f)['heldout']
    return size / len(load(work, 'heldout'))
