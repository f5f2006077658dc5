#!/usr/bin/env python3
"""Writes the machine-readable card of a model: what it is and how it was trained.

What it scores is measured through a running server (`make evaluate`), which adds it to the card.
"""
import argparse
import json
import os

import checkpoint
import data
import heldout


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def training(path):
    """What a checkpoint knows about its run."""
    state = checkpoint.load(path)
    return dict(tokens=state['tokens'], minutes=round(state['seconds'] / 60, 1),
                peak_learning_rate=state['lr'])


def shape(model):
    c = model.cfg['decoder']
    return {k: c[k] for k in ('dim', 'n_layer', 'n_local_heads', 'head_dim')}


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('cat', help='model directory of the CAT')
    ap.add_argument('dense', help='model directory of the dense twin')
    ap.add_argument('work', help='directory with heldout.bin and train.bin, for a text model')
    ap.add_argument('checkpoints', nargs=2, help='of the CAT and of the twin')
    args = ap.parse_args()
    cat, dense = (heldout.load_model(d) for d in (args.cat, args.dense))
    card = dict(
        name=os.path.basename(os.path.normpath(args.cat)), parameters=parameters(cat),
        training=training(args.checkpoints[0]),
        dense_twin=dict(path=os.path.relpath(args.dense, args.cat), parameters=parameters(dense),
                        **shape(dense), training=training(args.checkpoints[1])))
    if os.path.exists(os.path.join(args.work, 'heldout.bin')):
        card['unigram_nll'] = round(data.unigram_nll(
            data.load(args.work, 'train'), data.load(args.work, 'heldout'),
            cat.cfg['decoder']['vocab_size']), 4)
    with open(os.path.join(args.cat, 'card.json'), 'w') as f:
        json.dump(card, f, indent=1)
        f.write('\n')
    print(f'{args.cat}/card.json: now make evaluate MODEL={args.cat}')


if __name__ == '__main__':
    main()
