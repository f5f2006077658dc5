"""What every training here shares: optimiser, schedule, progress, checkpoints, a clean stop.

The schedule runs on the fraction done, which is measured in tokens (--tokens) or in minutes
(--minutes): on a shared machine the second always reaches the annealed end. A run that is stopped
(SIGTERM, Ctrl-C) or killed goes on from its checkpoint when it is started again, at most
SAVE_SECONDS back.
"""
import argparse
import contextlib
import math
import os
import signal
import time

import torch
from tqdm import tqdm

import checkpoint

SAVE_SECONDS = 180
WARM_UP = 100  # steps
EMBEDDINGS = ('wte', 'pos_tokens', 'adaptive', 'dummy', 'seperator')


def positive(text):
    """A number above 0 and finite; NaN minutes would never be over."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f'{text} is out of range: above 0')
    return value


def count(text):
    """A whole number, 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{text} is out of range: 1 or more')
    return value


def new_file(text):
    """A file in a folder that is there: not to be found missing when there is something to save."""
    if not os.path.isdir(os.path.dirname(text) or '.'):
        raise argparse.ArgumentTypeError(f'{os.path.dirname(text)} is no folder: make it first')
    return text


def add_arguments(parser, minutes, lr):
    parser.add_argument('out', type=new_file, help='checkpoint; continued from if it exists')
    parser.add_argument('--minutes', type=positive, default=minutes)
    parser.add_argument('--tokens', type=count, default=0,
                        help='end after so many, with those of before; overrides --minutes')
    parser.add_argument('--lr', type=positive, default=lr, help='peak learning rate')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--report', type=positive, default=120, help='seconds between reports')
    parser.add_argument('--threads', type=count, default=1)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--precision', choices=('fp32', 'bf16'),
                        help='of matrix products; default: bf16 on a GPU, fp32 on a CPU')


def make_optimizer(model):
    """AdamW; weight decay on matrices only: decaying embeddings would undo their scale."""
    decay, plain = [], []
    for name, p in model.named_parameters():
        (plain if p.dim() == 1 or any(s in name for s in EMBEDDINGS) else decay).append(p)
    groups = [dict(params=decay, weight_decay=0.1), dict(params=plain, weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), foreach=True)


def learning_rate(peak, done, step):
    """Warm-up, then a cosine down to a tenth."""
    return peak * min(1.0, (step + 1) / WARM_UP) * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


class Loop:
    """A run. Subclasses say what a step's loss is and what a report shows; what `STATE` names is
    kept in checkpoints."""
    STATE = ('step', 'seconds', 'tokens', 'tokens_begin', 'recent', 'score')

    def __init__(self, args, model):
        self.args = args
        torch.set_num_threads(args.threads)
        self.model = model.to(args.device)
        self.optimizer = make_optimizer(self.model)
        self.step, self.seconds, self.tokens = 0, 0.0, 0
        self.tokens_begin = 0  # of the model that this run began with
        self.score = float('inf')  # of the last report, on held-out data; lower is better
        self.recent = {}  # chunk size -> running mean of the loss
        self.stopping = 0  # by this signal
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)

    def step_loss(self):
        """(chunk size or None, loss to descend, loss to show, tokens used)"""
        raise NotImplementedError

    def report(self):
        """A line about held-out data; sets `score`."""
        raise NotImplementedError

    def stop(self, number, *_):
        """Finish the step, save, leave."""
        self.stopping = number

    def begin(self):
        """Goes on from the checkpoint if there is one. True if so."""
        if not os.path.exists(self.args.out):
            return False
        state = checkpoint.load(self.args.out, self.args.device)
        try:
            self.model.load_state_dict(state['model'])
            self.optimizer.load_state_dict(state['optimizer'])
            for name in self.STATE:
                setattr(self, name, state[name])
        except (KeyError, RuntimeError, TypeError, ValueError):
            raise SystemExit(f'{self.args.out} is the checkpoint of another model: name another '
                             'file, or remove it to begin anew')
        print('resumed at step', self.step, flush=True)
        return True

    def save(self):
        checkpoint.save(self.args.out, model=self.model.state_dict(), config=self.model.cfg,
                        optimizer=self.optimizer.state_dict(), lr=self.args.lr,
                        **{name: getattr(self, name) for name in self.STATE})

    def done(self):
        if self.args.tokens:
            return ((self.tokens - self.tokens_begin) /
                    max(1, self.args.tokens - self.tokens_begin))
        return min(1.0, self.seconds / (60 * self.args.minutes))

    def autocast(self):
        precision = self.args.precision or ('fp32' if self.args.device == 'cpu' else 'bf16')
        if precision == 'fp32':
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.args.device).type, torch.bfloat16)

    def one_step(self):
        with self.autocast():
            size, loss, shown, tokens = self.step_loss()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group['lr'] = learning_rate(self.args.lr, self.done(), self.step)
        self.optimizer.step()
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        self.recent[size] = 0.95 * self.recent.get(size, shown) + 0.05 * shown

    def losses(self):
        """The recent losses as text: by chunk size, or one for a dense model."""
        return '  '.join((f'C={size} ' if size else '') + f'{loss:.3f}'
                         for size, loss in sorted(self.recent.items(), key=str))

    def run(self):
        """To the end, or until a signal: then the process ends with 128 + its number, so that no
        script takes a run that was stopped for one that is done."""
        rate, last = 0.0, time.time()
        last_report = last_save = last
        # On a terminal only: in a log the reports are what one reads.
        with tqdm(total=100, disable=None, bar_format='{percentage:3.0f}%|{bar}| '
                  '{elapsed}<{remaining}  {postfix}') as bar:
            while self.done() < 1.0 and not self.stopping:
                before = self.tokens
                self.one_step()
                now = time.time()
                self.seconds, took, last = self.seconds + now - last, now - last, now
                rate = 0.9 * rate + 0.1 * (self.tokens - before) / took if rate else \
                    (self.tokens - before) / took
                bar.n = 100 * self.done()
                bar.set_postfix_str(f'loss {self.losses()}  {rate:.0f} tokens/s')
                if now - last_report > self.args.report:
                    self.show_report(rate)
                    last_report = time.time()
                if now - last_save > SAVE_SECONDS:
                    self.save()
                    last_save = time.time()
        self.show_report(rate)
        self.save()
        if self.done() < 1.0:
            raise SystemExit(128 + self.stopping)

    def show_report(self, rate):
        with torch.no_grad():
            text = self.report()
        tqdm.write(f'{self.seconds / 60:6.1f} min  {100 * self.done():5.1f}%  step {self.step}  '
                   f'{self.tokens / 1e6:.2f}M tokens  {rate:.0f}/s  loss {self.losses()}  {text}')
