#!/usr/bin/env python3
"""Held-out loss of a checkpoint or an exported model, per chunk size.

Besides the mean it reports the loss of the first token of each chunk (from the
second chunk on), which is predicted from summaries alone. At the unigram level the
compressor is dead, however smooth the training curve: that is what to look at.
"""
import argparse
import json
import math
import os

import torch

import data
from checkpoint import load, load_safetensors
from model import build


@torch.no_grad()
def losses(model, windows, size, batch=8):
    """(mean nll, mean nll of chunks' first tokens or None); a dense model has no size."""
    total, first = [], []
    windows = windows.to(model.output.weight.device)
    for i in range(0, len(windows), batch):
        loss = model.losses(windows[i:i + batch], size)
        total.append(loss[:, 1:].reshape(-1))
        if size and loss.shape[1] > size:
            first.append(loss.view(loss.shape[0], -1, size)[:, 1:, 0].reshape(-1))
    return (torch.cat(total).mean().item(),
            torch.cat(first).mean().item() if first else None)


def load_model(path):
    """A training checkpoint (.pt) or a model directory."""
    if os.path.isdir(path):
        with open(os.path.join(path, 'config.json')) as f:
            model = build(json.load(f))
        model.load_state_dict(load_safetensors(os.path.join(path, 'model.safetensors')))
        return model
    state = load(path)
    model = build(state['config'])
    model.load_state_dict(state['model'])
    return model


def report(model, work, limit=None):
    """One dictionary per chunk size: nll, bits per byte, first-token loss."""
    c = model.cfg['decoder']
    stream = data.load(work, 'heldout')
    windows = data.windows(stream, c['block_size'])[:limit]
    per_byte = data.bytes_per_token(work) * math.log(2)
    out = []
    for size in model.cfg.get('chunk_sizes', [None]):
        nll, first = losses(model, windows, size)
        out.append(dict(chunk_size=size, nll=round(nll, 4), first_token_nll=first and
                        round(first, 4), bits_per_byte_training_code=round(nll / per_byte, 4)))
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('model', help='checkpoint .pt or model directory')
    ap.add_argument('work', help='directory with heldout.bin and train.bin')
    args = ap.parse_args()
    model = load_model(args.model)
    vocab = model.cfg['decoder']['vocab_size']
    unigram = data.unigram_nll(data.load(args.work, 'train'), data.load(args.work, 'heldout'),
                               vocab)
    print(json.dumps(dict(unigram_nll=round(unigram, 4), sizes=report(model, args.work)),
                     indent=1))


if __name__ == '__main__':
    main()
