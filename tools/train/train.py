#!/usr/bin/env python3
"""Trains a CAT or its dense twin on the encoded corpus; resumable, ends on time.

The schedule (learning rate, length curriculum) runs on the fraction done, which is
measured in steps (--steps) or in minutes (--minutes): on a shared machine the second
always reaches the annealed end. Both may be changed when a run is resumed.
"""
import argparse
import json
import math
import os
import signal
import time

import torch

import checkpoint
import data
import evaluate
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


def sequence_length(done, size, block):
    """Length at this point of the curriculum; a dense model has no size and no curriculum."""
    if size is None:
        return block
    for until, chunks in CURRICULUM:
        if done < until:
            return min(block, chunks * size)
    return block


def weighted_mean(loss, size, done):
    """Mean loss [batch, T] with the first token of each chunk weighted up to size / 4.

    Only that token has to rely on the summaries, and at large sizes it is rare: left
    alone, the compressor would learn from one token in 32. The weight falls to 1 before
    the end, so the run finishes on the plain loss.
    """
    first = 1.0
    if size:
        first += (size / 4 - 1) * max(0.0, 1 - done / EVEN)
    weight = torch.ones(loss.shape[1])
    weight[0::size or loss.shape[1]] = first
    weight[0] = 0.0
    return (loss * weight).sum() / (weight.sum() * loss.shape[0])


def learning_rate(peak, done, step):
    return peak * min(1.0, (step + 1) / 100) * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def make_optimizer(model):
    """Weight decay on matrices only: decaying embeddings would undo their scale."""
    embedding = ('wte', 'pos_tokens', 'adaptive', 'dummy', 'seperator')
    decay, plain = [], []
    for name, p in model.named_parameters():
        (plain if p.dim() == 1 or any(s in name for s in embedding) else decay).append(p)
    groups = [dict(params=decay, weight_decay=0.1), dict(params=plain, weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), foreach=True)


class Run:
    def __init__(self, args):
        self.args = args
        self.train, self.held = (data.load(args.work, s) for s in ('train', 'heldout'))
        torch.manual_seed(args.seed)
        with open(os.path.join(args.work, 'tokenizer.json')) as f:
            vocab = len(json.load(f)['model']['vocab'])
        self.cfg = make_config(args.kind, vocab, args.block)
        self.model = models.build(self.cfg)
        self.optimizer = make_optimizer(self.model)
        self.sizes = self.cfg.get('chunk_sizes', [None])
        self.batches = data.Batches(self.train, args.block, args.batch)
        self.step, self.seconds, self.log = 0, 0.0, []
        self.tokens_before = 0  # of the model that this run began with
        self.stopping = False
        signal.signal(signal.SIGTERM, self.stop)
        if os.path.exists(args.out):
            self.resume()
        elif args.init:
            self.begin_with(args.init)
        self.unigram = data.unigram_nll(self.train, self.held, vocab)
        n = sum(p.numel() for p in self.model.parameters())
        print(f'{args.kind}: {n} parameters, unigram nll {self.unigram:.3f}', flush=True)

    def stop(self, *_):
        """On SIGTERM: finish the step, save, leave."""
        self.stopping = True

    def resume(self):
        state = torch.load(self.args.out, map_location='cpu')
        self.model.load_state_dict(state['model'])
        self.optimizer.load_state_dict(state['optimizer'])
        self.step, self.seconds, self.log = state['step'], state['seconds'], state['log']
        self.tokens_before = state['tokens'] - self.step * self.args.batch * self.args.block
        print('resumed at step', self.step, flush=True)

    def begin_with(self, path):
        """Weights of a trained model, perhaps of a shorter context: a table that has grown
        keeps its old rows and begins the others afresh."""
        state = torch.load(path, map_location='cpu')
        own = self.model.state_dict()
        with torch.no_grad():
            for name, old in state['model'].items():
                own[name][:len(old)].copy_(old)
        self.tokens_before = state['tokens']
        print('begins with', path, 'after', self.tokens_before, 'tokens', flush=True)

    def save(self):
        checkpoint.save(self.args.out, model=self.model.state_dict(), config=self.cfg,
                        optimizer=self.optimizer.state_dict(), step=self.step,
                        seconds=self.seconds, log=self.log, tokens=self.tokens())

    def tokens(self):
        return self.tokens_before + self.step * self.args.batch * self.args.block

    def done(self):
        if self.args.steps:
            return self.step / self.args.steps
        return self.seconds / (60 * self.args.minutes)

    def stage(self):
        """Where in the curriculum; a model that has been through it begins at its end."""
        begin = CURRICULUM[-1][0] if self.args.init else 0.0
        return begin + (1 - begin) * self.done()

    def one_step(self):
        size, done = self.sizes[self.step % len(self.sizes)], self.stage()
        length = sequence_length(done, size, self.args.block)
        tokens = self.batches.get(self.step).reshape(-1, length)
        loss = self.model.losses(tokens, size)
        mean = loss.sum().item() / (loss.numel() - loss.shape[0])
        self.optimizer.zero_grad(set_to_none=True)
        weighted_mean(loss, size, done).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group['lr'] = learning_rate(self.args.lr, self.done(), self.step)
        self.optimizer.step()
        self.step += 1
        return size, mean

    def report(self, recent):
        """Held-out loss now, at the curriculum's present length."""
        row = dict(step=self.step, seconds=round(self.seconds), tokens=self.tokens(), sizes={})
        for size in self.sizes:
            length = sequence_length(self.stage(), size, self.args.block)
            w = data.windows(self.held, length)[::7][:8192 // length]
            nll, first = evaluate.heldout(self.model, w, size, max(1, 4096 // length))
            row['sizes'][str(size)] = [round(nll, 3), first and round(first, 3)]
        self.log.append(row)
        rate = (self.tokens() - self.tokens_before) / max(1.0, self.seconds)
        print(f'{self.seconds / 60:6.1f} min  {100 * self.done():5.1f}%  step {self.step}  '
              f'{self.tokens() / 1e6:.2f}M tokens  {rate:.0f}/s  train '
              f'{ {k: round(v, 3) for k, v in recent.items()} }  heldout [nll, first token] '
              f'{row["sizes"]}', flush=True)

    def loop(self):
        recent, last = {}, time.time()
        last_report = last_save = last
        while self.done() < 1.0 and not self.stopping:
            size, loss = self.one_step()
            now = time.time()
            self.seconds, last = self.seconds + now - last, now
            recent[size] = 0.95 * recent.get(size, loss) + 0.05 * loss
            if time.time() - last_report > self.args.report:
                self.report(recent)
                last_report = time.time()
            if time.time() - last_save > 180:
                self.save()
                last_save = time.time()
        self.report(recent)
        self.save()


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('kind', choices=('cat', 'dense'))
    ap.add_argument('work', help='directory with train.bin, heldout.bin, tokenizer.json')
    ap.add_argument('out', help='checkpoint; continued from if it exists')
    ap.add_argument('--init', help='checkpoint whose weights a new run begins with')
    ap.add_argument('--minutes', type=float, default=60)
    ap.add_argument('--steps', type=int, default=0, help='if given, overrides --minutes')
    ap.add_argument('--lr', type=float, default=2e-3)
    ap.add_argument('--batch', type=int, default=4, help='windows a step')
    ap.add_argument('--block', type=int, default=512)
    ap.add_argument('--threads', type=int, default=1)
    ap.add_argument('--seed', type=int, default=0)
    ap.add_argument('--report', type=float, default=120, help='seconds between held-out reports')
    args = ap.parse_args()
    torch.set_num_threads(args.threads)
    Run(args).loop()


if __name__ == '__main__':
    main()
