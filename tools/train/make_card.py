#!/usr/bin/env python3
"""Writes the machine-readable card of a model and prints the tables for its README.

Numbers come from evaluate.py on the exported (BF16-rounded) weights, never by hand.
`heldout_bits_per_byte` stays null until it is measured through a running server.
"""
import argparse
import json
import os

import data
import evaluate


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('cat', help='model directory of the CAT')
    ap.add_argument('dense', help='model directory of the dense twin')
    ap.add_argument('work', help='directory with heldout.bin and train.bin')
    args = ap.parse_args()
    cat, dense = (evaluate.load_model(d) for d in (args.cat, args.dense))
    sizes, twin = evaluate.report(cat, args.work), evaluate.report(dense, args.work)[0]
    twin.pop('chunk_size')
    twin.pop('first_token_nll')
    vocab = cat.cfg['decoder']['vocab_size']
    unigram = data.unigram_nll(data.load(args.work, 'train'), data.load(args.work, 'heldout'),
                               vocab)
    c = dense.cfg['decoder']
    shape = {k: c[k] for k in ('dim', 'n_layer', 'n_local_heads', 'head_dim')}
    card = dict(
        name=os.path.basename(os.path.normpath(args.cat)), parameters=parameters(cat),
        dense_twin=dict(path=os.path.relpath(args.dense, args.cat), parameters=parameters(dense),
                        heldout_bits_per_byte=None, **shape, **twin),
        unigram_nll=round(unigram, 4),
        quality=[dict(chunk_size=s['chunk_size'], heldout_bits_per_byte=None,
                      **{k: v for k, v in s.items() if k != 'chunk_size'}) for s in sizes])
    path = os.path.join(args.cat, 'card.json')
    with open(path, 'w') as f:
        json.dump(card, f, indent=1)
        f.write('\n')
    for s in sizes:
        print('| {chunk_size} | {nll:.3f} | {bits_per_byte_training_code:.3f} | '
              '{first_token_nll:.3f} | {gain:.2f} |'.format(
                  gain=unigram - s['first_token_nll'], **s))
    print('| dense twin | {nll:.3f} | {bits_per_byte_training_code:.3f} | - | - |'.format(**twin))


if __name__ == '__main__':
    main()
