#!/usr/bin/env python3
"""Prints the checkpoint with the best score on held-out data (see loop.py)."""
import argparse

import checkpoint


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument('checkpoints', nargs='+')
    ap.add_argument('--tokens', action='store_true', help='print how many tokens it saw instead')
    args = ap.parse_args()
    states = {path: checkpoint.load(path) for path in args.checkpoints}
    best = min(states, key=lambda path: states[path]['score'])
    print(states[best]['tokens'] if args.tokens else best)


if __name__ == '__main__':
    main()
