#!/usr/bin/env python3
"""Trains a CAT or its dense twin on the encoded corpus; resumable, ends on time (see loop.py)."""
import argparse
import json
import os

import torch

import checkpoint
import data
import heldout
import loop
import model as models

# fraction done -> chunks per sequence. Short sequences first: with few summaries to
# choose from, "the one before" is learned, and the compressor wakes up.
CURRICULUM = ((0.30, 4), (0.42, 8), (0.53, 16), (0.62, 32))
EVEN = 0.9  # from this fraction on, every token weighs the same
CHUNK_SIZES = (4, 8, 16, 32)


def make_config(kind, vocab, block):
    if kind == 'cat':
        return models.config('cat', 256, 4, 4, 704, vocab, block, 128, 2, 4, 352, CHUNK_SIZES)
    return models.config('dense', 128, 4, 4, 352, vocab, block)


def sequence_length(stage, size, block):
    """Length at this point of the curriculum; a dense model has no size and no curriculum."""
    if size is None:
        return block
    for until, chunks in CURRICULUM:
        if stage < until:
            return min(block, chunks * size)
    return block


def weighted_mean(loss, size, stage):
    """Mean loss [batch, T] with the first token of each chunk weighted up to size / 4.

    Only that token has to rely on the summaries, and at large sizes it is rare: left
    alone, the compressor would learn from one token in 32. The weight falls to 1 before
    the end, so the run finishes on the plain loss.
    """
    first = 1.0
    if size:
        first += (size / 4 - 1) * max(0.0, 1 - stage / EVEN)
    weight = torch.ones(loss.shape[1], device=loss.device)
    weight[0::size or loss.shape[1]] = first
    weight[0] = 0.0
    return (loss * weight).sum() / (weight.sum() * loss.shape[0])


class Run(loop.Loop):
    STATE = loop.Loop.STATE + ('from_trained', 'log')

    def __init__(self, args):
        torch.manual_seed(args.seed)
        data.require(args.work, 'tokenizer.json', 'train.bin', 'heldout.bin')
        with open(os.path.join(args.work, 'tokenizer.json')) as f:
            vocab = len(json.load(f)['model']['vocab'])
        super().__init__(args, models.build(make_config(args.kind, vocab, args.block)))
        self.held, train = (data.load(args.work, s) for s in ('heldout', 'train'))
        self.batches = data.Batches(train, args.block, args.batch)
        self.sizes = self.model.cfg.get('chunk_sizes', [None])
        self.from_trained, self.log = False, []
        if not self.begin() and args.init:
            self.begin_with(args.init)
        unigram = data.unigram_nll(train, self.held, vocab)
        n = sum(p.numel() for p in self.model.parameters())
        print(f'{args.kind}: {n} parameters, unigram nll {unigram:.3f}', flush=True)

    def begin_with(self, path):
        """Weights of a trained model, perhaps of a shorter context: a table that has grown
        keeps its old rows and begins the others afresh."""
        state = checkpoint.load(path, self.args.device)
        own = self.model.state_dict()
        with torch.no_grad():
            for name, old in state['model'].items():
                own[name][:len(old)].copy_(old)
        self.tokens = self.tokens_begin = state['tokens']
        self.from_trained = True
        print('begins with', path, 'after', self.tokens, 'tokens', flush=True)

    def stage(self):
        """Where in the curriculum; a model that has been through it begins at its end."""
        begin = CURRICULUM[-1][0] if self.from_trained else 0.0
        return begin + (1 - begin) * self.done()

    def step_loss(self):
        size, stage = self.sizes[self.step % len(self.sizes)], self.stage()
        length = sequence_length(stage, size, self.args.block)
        tokens = self.batches.get(self.step).reshape(-1, length).to(self.args.device)
        loss = self.model.losses(tokens, size)
        mean = loss.sum().item() / (loss.numel() - loss.shape[0])
        return size, weighted_mean(loss, size, stage), mean, tokens.numel()

    def report(self):
        """Held-out loss now, at the curriculum's present length."""
        row = dict(step=self.step, seconds=round(self.seconds), tokens=self.tokens, sizes={})
        for size in self.sizes:
            length = sequence_length(self.stage(), size, self.args.block)
            w = data.windows(self.held, length)[::7][:8192 // length]
            nll, first = heldout.losses(self.model, w, size, max(1, 4096 // length))
            row['sizes'][str(size)] = [round(nll, 3), first and round(first, 3)]
        self.log.append(row)
        self.score = sum(nll for nll, _ in row['sizes'].values()) / len(self.sizes)
        return f'heldout [nll, first token] {row["sizes"]}'


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('kind', choices=('cat', 'dense'))
    ap.add_argument('work', help='directory with train.bin, heldout.bin, tokenizer.json')
    loop.add_arguments(ap, minutes=60, lr=2e-3)
    ap.add_argument('--init', help='checkpoint whose weights, and count of tokens, a new run '
                    'begins with')
    ap.add_argument('--batch', type=loop.count, default=2, help='windows a step')
    ap.add_argument('--block', type=loop.count, default=1024, help='tokens of context')
    Run(ap.parse_args()).run()


if __name__ == '__main__':
    main()
