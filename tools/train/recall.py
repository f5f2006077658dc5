#!/usr/bin/env python3
"""Trains a CAT or its dense twin on associative recall; resumable (see loop.py).

All chunk sizes at once never get going: which summary holds a key must first be learned where
there are few. So sequences begin with four chunks, at the smallest size alone; larger sizes join
one at a time. The largest joins last, so that the others are learned whatever becomes of it.
"""
import argparse

import numpy as np
import torch
import torch.nn.functional as F

import loop
import model as models
from recall_task import PAIRS, sequences

VOCABULARY = 256
LENGTH = 256
CHUNK_SIZES = (4, 8, 16)
LEARNED = 0.5  # nats per asked value, of every size: the next stage may begin
STEPS_MIN = 60  # of a stage


def make_config(kind):
    if kind == 'cat':
        return models.config('cat', 128, 2, 16, 160, VOCABULARY, LENGTH, 64, 1, 4, 96, CHUNK_SIZES)
    return models.config('dense', 64, 2, 4, 128, VOCABULARY, LENGTH)


def make_stages(kind):
    """(chunk sizes in turn, length of a sequence, share of the run at most); the last stage has
    what is left"""
    if kind == 'dense':
        return [((None,), 16, 0.3), ((None,), 32, 0.2), ((None,), 64, 0.15), ((None,), LENGTH, 1.0)]
    return [((4,), 16, 0.06), ((4,), 64, 0.08),
            ((8, 8, 4), 32, 0.14), ((8, 8, 4), 64, 0.08), ((8, 8, 4), LENGTH, 0.3),
            ((16,), 32, 0.06), ((16, 16, 8, 4), 64, 0.1), ((8, 16, 4, 16), LENGTH, 1.0)]


def value_loss(model, tokens, asked, size):
    """(mean loss of the asked values, share recalled)"""
    if size:
        rows = model.hidden(tokens, size)[asked.view(-1)]  # row i predicts token i
    else:
        rows = model.hidden(tokens)[F.pad(asked[:, 1:], (0, 1)).reshape(-1)]
    logits, target = model.logits(rows), tokens[asked]
    return F.cross_entropy(logits, target), (logits.argmax(-1) == target).float().mean().item()


def draw(count, length, pairs, rng):
    return [torch.from_numpy(t) for t in sequences(count, length, pairs, VOCABULARY, rng)]


@torch.no_grad()
def accuracy(model, size, pairs, count=64):
    tokens, asked = draw(count, LENGTH, pairs, np.random.default_rng(99))
    return value_loss(model, tokens, asked, size)[1]


class Run(loop.Loop):
    STATE = loop.Loop.STATE + ('stage', 'stage_step', 'stage_begin')

    def __init__(self, args):
        torch.manual_seed(args.seed)
        super().__init__(args, models.build(make_config(args.kind)))
        self.stages = make_stages(args.kind)
        self.stage, self.stage_step, self.stage_begin = 0, 0, 0.0
        self.begin()
        print(f'{args.kind}: {sum(p.numel() for p in self.model.parameters())} parameters',
              flush=True)

    def step_loss(self):
        self.next_stage()
        sizes, length, _ = self.stages[self.stage]
        size, turn = sizes[self.step % len(sizes)], self.step // len(sizes)
        choices = [p for p in PAIRS if 4 * p <= length]
        # of the step alone, so that a run that was stopped goes on as if it had not been
        rng = np.random.default_rng((self.args.seed, self.step))
        tokens, asked = draw(max(1, self.args.batch // length), length,
                             choices[turn % len(choices)], rng)
        tokens, asked = tokens.to(self.args.device), asked.to(self.args.device)
        loss, _ = value_loss(self.model, tokens, asked, size)
        self.stage_step += 1
        return size, loss, loss.item(), tokens.numel()

    def next_stage(self):
        """Goes on to the next stage when this one is learned or has had its share of the run."""
        sizes, _, share = self.stages[self.stage]
        learned = all(self.recent.get(s, LEARNED) < LEARNED for s in sizes)
        late = self.done() - self.stage_begin > share
        last = self.stage + 1 == len(self.stages)
        if last or self.stage_step < STEPS_MIN or not (learned or late):
            return
        self.stage, self.stage_step, self.stage_begin = self.stage + 1, 0, self.done()
        self.recent = {}

    def report(self):
        table = {size: [round(accuracy(self.model, size, p), 3) for p in PAIRS]
                 for size in dict.fromkeys(self.stages[self.stage][0])}
        self.score = -sum(map(sum, table.values())) / len(table) / len(PAIRS)
        return f'stage {self.stage}  accuracy at {PAIRS} pairs {table}'


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('kind', choices=('cat', 'dense'))
    loop.add_arguments(ap, minutes=45, lr=3e-3)
    ap.add_argument('--batch', type=loop.count, default=4096, help='tokens a step')
    Run(ap.parse_args()).run()


if __name__ == '__main__':
    main()
