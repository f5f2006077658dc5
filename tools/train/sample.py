#!/usr/bin/env python3
"""Samples text from a checkpoint or model directory, for a look at what it learned.

It recomputes the whole prompt for every token; a server does not. Decoding the ids
needs only tokenizer.json's vocabulary; encoding a prompt needs the PyPI package
`tokenizers`, so without it prompts are taken from held-out documents.
"""
import argparse
import json
import os

import torch

import data
from heldout import load_model


def byte_decoder():
    """GPT-2's map from printable characters back to bytes."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for b in range(256):
        if b in keep:
            table[chr(b)] = b
        else:
            table[chr(256 + extra)] = b
            extra += 1
    return table


class Decoder:
    def __init__(self, work):
        with open(os.path.join(work, 'tokenizer.json')) as f:
            vocab = json.load(f)['model']['vocab']
        self.names = {i: t for t, i in vocab.items()}
        self.bytes = byte_decoder()

    def __call__(self, ids):
        text = b''.join(bytes(self.bytes[c] for c in self.names[i]) if i != data.EOT else b''
                        for i in ids)
        return text.decode('utf-8', 'replace')


@torch.no_grad()
def generate(model, tokens, size, count, temperature, top_k):
    vocab = model.cfg['decoder']['vocab_size']
    for _ in range(count):
        logits = model.next_logits(tokens, size)[:, :vocab] / temperature
        logits[:, data.EOT] = float('-inf')
        best, ids = logits.topk(top_k)
        pick = torch.multinomial(best.softmax(-1), 1)
        tokens = torch.cat([tokens, ids.gather(1, pick)], 1)
    return tokens


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('model', help='checkpoint .pt or model directory')
    ap.add_argument('work', help='directory with tokenizer.json and heldout.bin')
    ap.add_argument('--prompt', help='needs the tokenizers package')
    ap.add_argument('--count', type=int, default=80)
    ap.add_argument('--temperature', type=float, default=0.7)
    ap.add_argument('--top-k', type=int, default=40)
    args = ap.parse_args()
    torch.manual_seed(0)
    model, decode = load_model(args.model), Decoder(args.work)
    if args.prompt:
        from tokenizers import Tokenizer
        tok = Tokenizer.from_file(os.path.join(args.work, 'tokenizer.json'))
        prompts = [[data.EOT] + tok.encode(args.prompt).ids]
    else:
        held = data.load(args.work, 'heldout')
        starts = (held == data.EOT).nonzero().view(-1)[[3, 11, 20, 30]]
        prompts = [held[s:s + 16].tolist() for s in starts]
    for size in model.cfg.get('chunk_sizes', [None]):
        for p in prompts:
            out = generate(model, torch.tensor([p]), size, args.count, args.temperature,
                           args.top_k)[0].tolist()
            print(f'[C={size}]', decode(p[1:]), '||', decode(out[len(p):]).replace('\n', ' / '))


if __name__ == '__main__':
    main()
