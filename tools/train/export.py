#!/usr/bin/env python3
"""Turns a training checkpoint into a model directory that the server loads.

The float32 masters are rounded to BF16 here and nowhere earlier. The tokenizer, if there
is one, and for a CAT the held-out texts are copied beside the weights, so a model directory
is complete. Every window of training began with <|endoftext|>, so it is named as the token
that the server puts before a text.
"""
import argparse
import json
import os
import shutil

from checkpoint import load, save_safetensors

EOT = '<|endoftext|>'


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('checkpoint')
    ap.add_argument('work', help='directory with tokenizer.json, heldout.txt')
    ap.add_argument('out', help='model directory')
    args = ap.parse_args()
    state = load(args.checkpoint)
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.out, 'config.json'), 'w') as f:
        json.dump(state['config'], f, indent=1)
        f.write('\n')
    save_safetensors(os.path.join(args.out, 'model.safetensors'), state['model'], 'BF16')
    if os.path.exists(os.path.join(args.work, 'tokenizer.json')):
        with open(os.path.join(args.out, 'tokenizer_config.json'), 'w') as f:
            json.dump({'bos_token': EOT, 'eos_token': EOT}, f, indent=1)
            f.write('\n')
    names = ['tokenizer.json']
    if state['config']['model_type'] == 'cat':
        names += ['tokenizer_cases.json', 'heldout.txt', 'heldout_other.txt']
    for name in names:
        if os.path.exists(os.path.join(args.work, name)):
            shutil.copy(os.path.join(args.work, name), os.path.join(args.out, name))
    print('%s: step %d, %.2fM tokens, %.1f minutes' % (
        args.out, state['step'], state['tokens'] / 1e6, state['seconds'] / 60))


if __name__ == '__main__':
    main()
