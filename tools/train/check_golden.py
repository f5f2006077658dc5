#!/usr/bin/env python3
"""Checks model.py against results computed with the published implementation.

Both ways of computing are covered: the training form (whole sequence, chunks as
batch rows) against `logits_all`, and the prefill form against `logits_last`.
Run it before any long training: a wrong position or mask trains smoothly too.
"""
import argparse
import json
import os
import sys

import torch

from checkpoint import load_safetensors
from model import build

TOLERANCE = 1e-3


def check(directory):
    with open(os.path.join(directory, 'config.json')) as f:
        cfg = json.load(f)
    with open(os.path.join(directory, 'golden.json')) as f:
        cases = json.load(f)['cases']
    model = build(cfg)
    missing = model.load_state_dict(load_safetensors(os.path.join(directory, 'model.safetensors')))
    assert not missing.missing_keys and not missing.unexpected_keys, missing
    gold = load_safetensors(os.path.join(directory, 'golden.safetensors'))
    vocab = cfg['decoder']['vocab_size']
    worst = {}

    def compare(what, got, want):
        worst[what] = max(worst.get(what, 0.0), (got - want).abs().max().item())

    with torch.no_grad():
        for case in cases:
            tokens, size = torch.tensor([case['prompt']]), case['chunk_size']
            n = tokens.shape[1]
            compare('prefill', model.next_logits(tokens, size)[0, :vocab],
                    gold[case['logits_last']])
            if 'logits_all' not in case:
                continue
            if size is None:
                compare('training form', model.output(model.hidden(tokens))[:, :vocab],
                        gold[case['logits_all']])
                continue
            filled = torch.nn.functional.pad(tokens, (0, -n % size))
            got = model.output(model.hidden(filled, size))[1:n, :vocab]
            if n > 1:
                compare('training form', got, gold[case['logits_all']][:n - 1])
            if 'fx' in case and n >= size:
                full = tokens[:, :n // size * size].view(1, -1, size)
                compare('fx', model.f(full)[0], gold[case['fx']])
    print(directory, {k: '%.1e' % v for k, v in worst.items()})
    return bool(worst) and all(v < TOLERANCE for v in worst.values())


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('golden', nargs='?', default=os.path.join(here, '../../tests/data/golden'))
    args = ap.parse_args()
    ok = [check(os.path.join(args.golden, d)) for d in ('adaptive-tiny', 'dense-tiny')]
    sys.exit(0 if all(ok) else 1)


if __name__ == '__main__':
    main()
