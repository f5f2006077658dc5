#!/usr/bin/env python3
"""Trains the tokenizer and encodes the corpus.

A byte-level BPE in Hugging Face's tokenizer.json form, because that is the form
the server reads and because every byte being a token makes any input round-trip.
It needs the PyPI package `tokenizers`; nothing else in this directory does.

Output, in WORK: tokenizer.json, tokenizer_cases.json (text and ids, to test
another implementation against), train.bin and heldout.bin (uint16 ids, every
document preceded by <|endoftext|>), heldout.txt and heldout_other.txt (what a server
is measured on) and heldout_bytes.json (bytes per held-out stream, to turn nats into bits per byte).
"""
import argparse
import importlib.util
import json
import os
import random

import numpy as np

EOT = '<|endoftext|>'
HELDOUT = ('heldout.txt', 'heldout_other.txt')
# sources whose text may be redistributed with nothing but a notice: only these go
# into heldout*.txt and tokenizer_cases.json, which are committed
PERMISSIVE = ('bible-kjv-text', 'python3.11-doc', 'postgresql-doc-15', 'sqlite3-doc')

CASES = [
    '', ' ', '\n', '\n\n', '  leading and trailing  ', 'a', 'Hello, world!',
    'In the beginning God created the heaven and the earth.',
    "It's they're we've I'll I'd I'm don't CAN'T", "'s 't 're at the start",
    'tabs\tand\r\nWindows line ends\r\n', 'one  two   three    four', 'trailing newline\n',
    'x = [1, 22, 333, 4444]; y += 3.14159e-10', 'CamelCase snake_case kebab-case SHOUTING',
    'https://www.example.org/a/b?c=d&e=%20#f', '<|endoftext|>', 'before<|endoftext|>after',
    ' <|endoftext|> ', '<|endoftext|><|endoftext|>', '<|endoftext', '|endoftext|>',
    'na\u00efve caf\u00e9 \u2014 \u201cquoted\u201d \u2026', 'e\u0301 decomposed \u00e9 composed',
    'Stra\u00dfe \u0130stanbul \u0131 \ufb01', '\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac',
    '\u0420\u0443\u0441\u0441\u043a\u0438\u0439 \u0442\u0435\u043a\u0441\u0442',
    '\u05e2\u05d1\u05e8\u05d9\u05ea',
    '\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0661\u0662\u0663',
    '\u0939\u093f\u0928\u094d\u0926\u0940', '\u0e44\u0e17\u0e22', '\u4e2d\u6587\u5b57\u7b26',
    '\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8', '\ud55c\uad6d\uc5b4',
    'emoji \U0001f600\U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467 '
    '\U0001f1e9\U0001f1ea',
    '\u00a0no-break\u00a0space\u2003em\u2009thin\u3000wide', '\u200bzero\u200bwidth\ufeff',
    'numbers \u00bd \u00b2 \u2167 \u0664\u0665 \u4e09 10,000', 'a\u0000b\u0001c\u007fd',
    '\u2028line\u2029separators\u0085', 'math \u2200x\u2208\u211d: x\u00b2\u22650',
    '\U0001d54f\U0001d55a outside the BMP', '...!!!???---===', '    indented code(arg)\n\treturn',
    ' \n \n\n  \n', 'the the  the   the',
]


def train(texts, size):
    # pylint: disable=import-outside-toplevel
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size, special_tokens=[EOT], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tok


def write_cases(tok, texts, path):
    """Fixed cases of many scripts, random code points, and real held-out text."""
    rng = random.Random(1)
    cases = list(CASES)
    planes = [(0x20, 0x7e), (0xa0, 0x24f), (0x370, 0x5ff), (0x2000, 0x2bff), (0x3040, 0xd7a3),
              (0x10000, 0x1f9ff), (0x0, 0x1f)]
    for _ in range(60):
        cases.append(''.join(chr(rng.randint(*rng.choice(planes)))
                             for _ in range(rng.randint(1, 24))))
    cases += [rng.choice(texts)[:rng.randint(20, 600)] for _ in range(40)]
    out = []
    for text in cases:
        ids = tok.encode(text).ids
        assert tok.decode(ids, skip_special_tokens=False) == text, text
        out.append(dict(text=text, ids=ids))
    with open(path, 'w') as f:
        f.write('[\n' + ',\n'.join(json.dumps(c) for c in out) + '\n]\n')


def pieces(docs, size=6000):
    """Cuts long documents at line ends so that shuffling mixes the sources."""
    for d in docs:
        cur, n = [], 0
        for line in d['text'].split('\n'):
            cur.append(line)
            n += len(line)
            if n > size:
                yield '\n'.join(cur)
                cur, n = [], 0
        if n > 200:
            yield '\n'.join(cur)


def encode(tok, texts, size, path):
    ids = []
    for e in tok.encode_batch(texts):
        ids.append(tok.token_to_id(EOT))
        ids += e.ids
    np.array(ids, np.uint16).tofile(path + '.tmp')
    os.replace(path + '.tmp', path)
    print(os.path.basename(path), len(ids), 'tokens', size, 'bytes',
          round(size / len(ids), 3), 'bytes/token')


def heldout_texts(docs, limit, count):
    """`count` readable samples of the held-out documents, of `limit` characters each, without a
    piece in common, in turn from each permissive source."""
    rng = random.Random(3)
    queues = []
    for package in PERMISSIVE:
        texts = list(pieces([d for d in docs if d['package'] == package], 2500))
        rng.shuffle(texts)
        queues.append(texts)
    samples = []
    for _ in range(count):
        out, size = [], 0
        while size < limit and any(queues):
            for q in queues:
                if q and size < limit:
                    out.append(q.pop())
                    size += len(out[-1]) + 2
        samples.append('\n\n'.join(out) + '\n')
    return samples


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('work', help='directory with corpus.jsonl; outputs go there too')
    ap.add_argument('--vocab', type=int, default=4096, help='at most 65536; default: %(default)s')
    args = ap.parse_args()
    if not 257 <= args.vocab <= 65536:
        ap.error('--vocab: 257 (every byte and the end of a text) to 65536 (ids of 16 bits)')
    if importlib.util.find_spec('tokenizers') is None:
        ap.error('the PyPI package tokenizers is missing: pip install -r '
                 'tools/train/requirements.txt, best in a virtual environment; run.sh makes one')
    with open(os.path.join(args.work, 'corpus.jsonl')) as f:
        docs = [json.loads(line) for line in f]
    split = {s: [d for d in docs if d['split'] == s] for s in ('train', 'heldout')}
    out = {s: list(pieces(split[s])) for s in split}
    for s in out:
        random.Random(7).shuffle(out[s])
    tok = train(out['train'], args.vocab)
    tok.save(os.path.join(args.work, 'tokenizer.json'), pretty=False)
    free = list(pieces([d for d in split['heldout'] if d['package'] in PERMISSIVE]))
    write_cases(tok, free, os.path.join(args.work, 'tokenizer_cases.json'))
    size = {s: sum(len(t.encode()) for t in out[s]) for s in out}
    with open(os.path.join(args.work, 'heldout_bytes.json'), 'w') as f:
        json.dump(size, f)
    # what models are measured on, and what a card made of it is checked on
    for name, text in zip(HELDOUT, heldout_texts(split['heldout'], 80000, len(HELDOUT))):
        with open(os.path.join(args.work, name), 'w') as f:
            f.write(text)
    # train.bin last: to run.sh it says that everything is there
    for s in ('heldout', 'train'):
        encode(tok, out[s], size[s], os.path.join(args.work, s + '.bin'))


if __name__ == '__main__':
    main()
