#!/usr/bin/env python3
"""Builds the training corpus: English prose out of Debian documentation packages.

Why Debian packages: every text in them has passed a licence review, they come
through the ordinary package client with checksums, and anyone with a Debian 12
machine gets the same bytes. The packages are downloaded and unpacked into the
work directory; nothing is installed.

Output: WORK/corpus.jsonl, one document a line: package, name, split, text.
The held-out split is by document: a document (a file, or a chapter of the
Bible) is held out when the SHA-256 of "package/name" is 0 modulo 32, so it does
not depend on the order of files nor on a random generator. A paragraph that
occurs a second time anywhere is dropped, so nothing held out is also trained on.
"""
import argparse
import glob
import gzip
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import unicodedata

# package -> licence of its prose, as /usr/share/doc/<package>/copyright states it
PACKAGES = {
    'bible-kjv-text': 'public domain (King James Version, 1611)',
    'python3.11-doc': 'PSF-2.0',
    'postgresql-doc-15': 'PostgreSQL',
    'sqlite3-doc': 'public domain',
    'apache2-doc': 'Apache-2.0',
    'perl-doc': 'GPL-1+ or Artistic',
    'git-doc': 'GPL-2',
    'debian-handbook': 'GPL-2+ or CC-BY-SA-3.0',
    'debian-reference-en': 'GPL-2+',
    'debian-policy': 'GPL-2+',
    'developers-reference': 'GPL-2+',
    'debian-faq': 'GPL-2+',
}
# the Bible's text is in the reader program's own compressed form, so the
# reader is unpacked (not installed) and asked for the whole book
READER = 'bible-kjv'

ASCII = str.maketrans({
    '\u2018': "'", '\u2019': "'", '\u201c': '"', '\u201d': '"', '\u2013': '-',
    '\u2014': '--', '\u2026': '...', '\u00a0': ' ', '\u2011': '-', '\u00ad': '',
    '`': "'"})
FUNCTION_WORDS = set(
    'the of to and a in is that for it as be with by this are or on not an you can if from '
    'which at have but was will has his he they their we'.split())
BLOCK_TAGS = re.compile(r'(?i)</?(p|div|li|ul|ol|h[1-6]|br|hr|dd|dt|dl|section|blockquote|body)'
                        r'\b[^>]*>')
DROP_TAGS = re.compile(r'(?is)<(script|style|head|pre|table|nav)\b[^>]*>.*?</\1>')


def fetch(work):
    """Downloads and unpacks the packages that are not there yet."""
    debs = os.path.join(work, 'debs')
    os.makedirs(debs, exist_ok=True)
    for package in list(PACKAGES) + [READER]:
        target = os.path.join(work, 'x', package)
        if os.path.isdir(target):
            continue
        subprocess.run(['apt-get', 'download', '-q', package], cwd=debs, check=True)
        deb = sorted(glob.glob(os.path.join(debs, package + '_*.deb')))[-1]
        # a folder that is there is whole: a run that was killed leaves the other name
        shutil.rmtree(target + '.part', ignore_errors=True)
        subprocess.run(['dpkg-deb', '-x', deb, target + '.part'], check=True)
        os.rename(target + '.part', target)


def read(path):
    with open(path, 'rb') as f:
        data = f.read()
    if path.endswith('.gz'):
        data = gzip.decompress(data)
    try:
        return data.decode('utf-8')
    except UnicodeDecodeError:
        return data.decode('latin-1')


def from_html(s):
    s = DROP_TAGS.sub(' ', s)
    s = re.sub(r'(?s)<!--.*?-->', '', s)
    s = BLOCK_TAGS.sub('\n\n', s)
    return html.unescape(re.sub(r'(?s)<[^>]+>', '', s))


def from_rst(s):
    s = re.sub(r':[a-z:]+:`[~!]?([^`<]*?)(\s*<[^`]*>)?`', r'\1', s)
    s = re.sub(r'``([^`]*)``', r'\1', s)
    s = re.sub(r'`([^`<]*?)(\s*<[^`]*>)?`_*', r'\1', s)
    return re.sub(r'\*\*?([^*\n]+)\*\*?', r'\1', s)


def from_pod(s):
    s = re.sub(r'(?m)^=[a-z].*$', '\n', s)
    for _ in range(2):
        s = re.sub(r'[BICFLSEXZ]<+\s?([^<>]*?)\s?>+', r'\1', s)
    return s


def clean(paragraph):
    """The paragraph as one line of plain prose, or None if it is not prose.

    Prose here: ends like a sentence, begins with a capital, nearly all letters,
    about a quarter function words. Lists, tables and code fail one of these.
    """
    p = unicodedata.normalize('NFKC', paragraph.translate(ASCII))
    p = re.sub(r'\s+', ' ', p).strip().replace("''", '"')
    if len(p) < 70 or any(not 32 <= ord(c) <= 126 for c in p):
        return None
    words = p.lower().split()
    prose = sum(c.isalpha() or c == ' ' for c in p) >= 0.92 * len(p)
    function = sum(w.strip('.,;:"()') in FUNCTION_WORDS for w in words) >= 0.24 * len(words)
    sentence = p[-1] in '.!?:"\')' and (p[0].isupper() or p[0] in '"(\'')
    return p if prose and function and sentence and max(map(len, words)) <= 40 else None


def paragraphs(s):
    for p in re.split(r'\n\s*\n', s):
        if re.match(r'\s*(\.\.|>>>|\||\$ )', p):
            continue
        yield re.sub(r'^\s*([-*+#]|\d+[.)]|\(\w\))\s+', '', p)


# package -> (file patterns below its root, what turns a file into plain text)
SOURCES = {
    'python3.11-doc': (['usr/share/doc/python3.11/html/_sources/**/*.txt'], from_rst),
    'postgresql-doc-15': (['usr/share/doc/**/*.html'], from_html),
    'sqlite3-doc': (['usr/share/doc/sqlite3/**/*.html'], from_html),
    'apache2-doc': (['usr/share/doc/apache2-doc/manual/en/**/*.html'], from_html),
    'perl-doc': (['usr/share/perl/**/*.pod'], from_pod),
    'git-doc': (['usr/share/doc/git/**/*.html'], from_html),
    'debian-handbook': (['usr/share/doc/debian-handbook/html/en-US/**/*.html'], from_html),
    'debian-reference-en': (['usr/share/debian-reference/*.en.html'], from_html),
    'debian-policy': (['usr/share/doc/debian-policy/**/*.html'], from_html),
    'developers-reference': (['usr/share/**/*.html'], from_html),
    'debian-faq': (['usr/share/doc/debian/FAQ/**/*.en.html'], from_html),
}
NOT_ENGLISH = re.compile(r'/(de|fr|ja|ru|it|es|pt|zh|ko|ca|nl|pl|da|[a-z]{2}-[a-z]{2})/'
                         r'|/html/[a-z]{2}(_[A-Z]{2})?/')


def documents(work):
    """Yields (package, name, paragraphs) for every file of every package."""
    yield from bible(work)
    for package, (patterns, convert) in SOURCES.items():
        root = os.path.join(work, 'x', package)
        files = {f for p in patterns for f in glob.glob(os.path.join(root, p), recursive=True)}
        for f in sorted(files):
            if os.path.isfile(f) and not os.path.islink(f) and not NOT_ENGLISH.search(f):
                yield package, os.path.relpath(f, root), paragraphs(convert(read(f)))


def bible(work):
    """One document per chapter; verse numbers dropped, so that it reads as prose."""
    reader = os.path.join(work, 'x', READER, 'usr/bin/bible')
    data = os.path.join(work, 'x/bible-kjv-text/usr/lib')
    out = subprocess.run([reader, '-f', '-l', '0', '-p', data, 'gen1:1-rev22:21'], check=True,
                         capture_output=True, stdin=subprocess.DEVNULL).stdout
    chapters = {}
    for line in out.decode('latin-1').splitlines():
        m = re.match(r'^(\w+?)(\d+):\d+ (.*)', line.strip())
        if m:
            chapters.setdefault(f'{m.group(1)} {m.group(2)}', []).append(m.group(3))
    for name, verses in chapters.items():
        # four verses a paragraph: single verses are too short to be prose
        yield 'bible-kjv-text', name, [' '.join(verses[i:i + 4])
                                       for i in range(0, len(verses), 4)]


def held_out(package, name):
    digest = hashlib.sha256(f'{package}/{name}'.encode()).digest()
    return int.from_bytes(digest[:8], 'big') % 32 == 0


def build(work, packages):
    seen = set()
    size = {}
    with open(os.path.join(work, 'corpus.jsonl'), 'w') as out:
        for package, name, paras in documents(work):
            if package not in packages:
                continue
            kept = []
            for p in paras:
                c = ' '.join(p.split()) if package == 'bible-kjv-text' else clean(p)
                if c and c not in seen:
                    seen.add(c)
                    kept.append(c)
            text = '\n'.join(kept)
            if len(text) < 200:
                continue
            split = 'heldout' if held_out(package, name) else 'train'
            size[package, split] = size.get((package, split), 0) + len(text)
            out.write(json.dumps(dict(package=package, name=name, split=split, text=text)) + '\n')
    for package in packages:
        print('%-22s train %6.2f MB  heldout %5.2f MB  %s' % (
            package, size.get((package, 'train'), 0) / 1e6,
            size.get((package, 'heldout'), 0) / 1e6, PACKAGES[package]))
    print('total %.2f MB' % (sum(size.values()) / 1e6))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('work', help='directory for downloads and corpus.jsonl')
    ap.add_argument('--packages', default=','.join(PACKAGES), help='comma-separated subset')
    args = ap.parse_args()
    fetch(args.work)
    build(args.work, args.packages.split(','))


if __name__ == '__main__':
    main()
