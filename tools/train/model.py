"""The Compress & Attend Transformer and its dense twin, arranged for training.

Both are stored under the tensor names of the published model (including the
misspelt `seperator.weight`), so an export is a plain copy.

The textbook way to train a CAT runs one interleaved sequence
    g_0 S t_0 .. t_{C-1}  g_1 S t_C ..
under a T x T mask in which most entries are forbidden. Here no mask is built:

* the summaries g_0 .. g_{K-1} are one short causal sequence of their own;
* each chunk is C rows [S, t_0 .. t_{C-2}] that attend to the summaries so far
  and to themselves: one softmax over two pieces of scores;
* both kinds of rows share every matrix product.

The row of a chunk's last token predicts nothing and is seen by nothing, so it is
never computed. Row i of the result therefore predicts token i itself (row kC is
the separator of chunk k), whereas row i of the dense model predicts token i+1.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn


def config(model_type, dim, n_layer, n_head, intermediate, vocab_size, block_size,
           comp_dim=0, comp_layer=0, comp_head=0, comp_intermediate=0, chunk_sizes=()):
    """The dictionary that becomes config.json."""
    chunk = max(chunk_sizes) if chunk_sizes else block_size

    def stack(d, layers, heads, inter):
        return dict(
            block_size=block_size, vocab_size=vocab_size,
            padded_vocab_size=-(-vocab_size // 256) * 256, n_layer=layers, n_head=heads, dim=d,
            intermediate_size=inter, n_local_heads=heads, head_dim=d // heads, rope_base=10000,
            norm_eps=1e-5, rope_n_elem=d // heads, use_fused_ops=False, use_qk_norm=False,
            chunk_size=chunk, dim_fx=dim, num_chunks=block_size // chunk)

    out = dict(model_type=model_type, decoder=stack(dim, n_layer, n_head, intermediate),
               compressor=None)
    if model_type == 'cat':
        out['compressor'] = stack(comp_dim, comp_layer, comp_head, comp_intermediate)
        out['chunk_sizes'] = list(chunk_sizes)
    return out


class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weight


class Rotary(nn.Module):
    """cos and sin for positions 0 .. n-1; element i is paired with i + head_dim/2."""

    def __init__(self, head_dim, base, n):
        super().__init__()
        theta = base ** (-2 * torch.arange(head_dim // 2, dtype=torch.float64) / head_dim)
        angle = torch.arange(n, dtype=torch.float64)[:, None] * theta
        self.register_buffer('cos', angle.cos().float(), persistent=False)
        self.register_buffer('sin', angle.sin().float(), persistent=False)

    def forward(self, x, first=0):
        """x [..., rows, head_dim]; row r gets position first + r."""
        n = x.shape[-2]
        cos, sin = self.cos[first:first + n], self.sin[first:first + n]
        u, v = x.chunk(2, -1)
        return torch.cat([u * cos - v * sin, v * cos + u * sin], -1)


class FeedForward(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc_1 = nn.Linear(dim, hidden, bias=False)
        self.fc_2 = nn.Linear(dim, hidden, bias=False)
        self.proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        return self.proj(F.silu(self.fc_1(x)) * self.fc_2(x))


class Attention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.wqkv = nn.Linear(dim, 3 * dim, bias=False)
        self.wo = nn.Linear(dim, dim, bias=False)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.attention_norm = RMSNorm(c['dim'], c['norm_eps'])
        self.attention = Attention(c['dim'])
        self.ffn_norm = RMSNorm(c['dim'], c['norm_eps'])
        self.feed_forward = FeedForward(c['dim'], c['intermediate_size'])

    def forward(self, x, attend):
        """x [rows, dim]; attend maps q, k, v (each [rows, dim]) to the mixed values."""
        q, k, v = self.attention.wqkv(self.attention_norm(x)).chunk(3, -1)
        x = x + self.attention.wo(attend(q, k, v))
        return x + self.feed_forward(self.ffn_norm(x))


def heads(x, batch, n_head):
    """[batch * rows, dim] -> [batch * n_head, rows, head_dim], contiguous for bmm."""
    rows, dim = x.shape[0] // batch, x.shape[1]
    return (x.reshape(batch, rows, n_head, dim // n_head).transpose(1, 2)
            .reshape(batch * n_head, rows, dim // n_head))


def unheads(x, batch):
    """The inverse of heads()."""
    n_head, (rows, head_dim) = x.shape[0] // batch, x.shape[1:]
    return (x.reshape(batch, n_head, rows, head_dim).transpose(1, 2)
            .reshape(batch * rows, n_head * head_dim))


def product(a, b):
    """torch.bmm; very small matrices as one broadcast, for bmm takes microseconds for each."""
    rows, inner, columns = a.shape[1], a.shape[2], b.shape[2]
    if rows * inner * columns > 4096:
        return torch.bmm(a, b)
    if inner <= columns:
        return sum(a[:, :, i, None] * b[:, None, i] for i in range(inner))
    return (a[:, :, None] * b.transpose(1, 2)[:, None]).sum(-1)


def causal(n, device):
    return torch.full((n, n), float('-inf'), device=device).triu(1)


class Stack(nn.Module):
    """Layers and final norm; the three ways of attending that the models need."""

    def __init__(self, c, positions):
        super().__init__()
        self.c = c
        self.layers = nn.ModuleList(Layer(c) for _ in range(c['n_layer']))
        self.norm = RMSNorm(c['dim'], c['norm_eps'])
        self.rotary = Rotary(c['head_dim'], c['rope_base'], positions)

    def logits(self, x):
        """Of the vocabulary; what pads the matrix is no token."""
        return self.output(x)[:, :self.c['vocab_size']]

    def plain(self, q, k, v, batch, mask):
        """Ordinary attention over [batch * rows]; mask is None for the compressor."""
        h = self.c['n_head']
        q, k, v = heads(q, batch, h), heads(k, batch, h), heads(v, batch, h)
        q = self.rotary(q) * self.c['head_dim'] ** -0.5
        s = product(q, self.rotary(k).transpose(1, 2))
        s = s if mask is None else s + mask
        return unheads(product(s.softmax(-1), v), batch)

    def chunked(self, q, k, v, batch, chunks, size, masks):
        """Rows: batch * chunks summaries (position 0), then batch * chunks * size block rows.

        Small chunks attend within groups of chunks under a block-diagonal mask: a few
        wasted products cost less than many tiny ones.
        """
        h, g = self.c['n_head'], batch * chunks
        q = q * self.c['head_dim'] ** -0.5
        qg, kg, vg = (heads(t[:g], batch, h) for t in (q, k, v))
        s = product(qg, kg.transpose(1, 2)) + masks[0]
        out_g = product(s.softmax(-1), vg)

        # block rows: by sequence against the summaries, by group of chunks within themselves
        def by(t, rows):
            return t.reshape(-1, rows, t.shape[-1])
        group, rows = masks[2].shape[0], chunks * size
        qb, kb, vb = (heads(t[g:], batch, h) for t in (q, k, v))
        qb = by(self.rotary(by(qb, size), 1), rows)
        kb = self.rotary(by(kb, size), 1)
        far = product(qb, kg.transpose(1, 2)) + masks[1]
        near = product(by(qb, group), by(kb, group).transpose(1, 2)) + masks[2]
        p = torch.cat([far, by(near, rows)], -1).softmax(-1)
        out_b = product(p[..., :chunks], vg)
        out_b = out_b + by(product(by(p[..., chunks:], group), by(vb, group)), rows)
        return torch.cat([unheads(out_g, batch), unheads(out_b, batch)])


def resample(weight, times):
    """[d, n * times] -> [d, n]: linear, half-pixel centres, along the flattened axis."""
    if times == 1:
        return weight
    half = times // 2
    return (weight[:, half - 1::times] + weight[:, half::times]) * 0.5


class Compressor(Stack):
    """One chunk of tokens to one vector; chunks do not see each other."""

    def __init__(self, c):
        super().__init__(c, c['chunk_size'] + 2)
        e = c['dim']
        self.wte = nn.Embedding(c['padded_vocab_size'], e)
        self.pos_tokens = nn.Embedding(c['block_size'], e)
        self.adaptive_token = nn.Embedding(int(math.log2(c['chunk_size'])) + 1, e)
        self.proj_fx = nn.Linear(c['chunk_size'] * e, c['dim_fx'], bias=False)

    def forward(self, chunks):
        """chunks [batch, K, C] -> summaries [batch, K, dim_fx]."""
        batch, count, size = chunks.shape
        n, e, rows = batch * count, self.c['dim'], size + 2
        a = self.adaptive_token.weight[int(math.log2(size))].view(1, 1, e).expand(n, 1, e)
        u = self.pos_tokens.weight[:count].expand(batch, count, e).reshape(n, 1, e)
        x = torch.cat([a, u, self.wte(chunks.reshape(n, size))], 1).view(n * rows, e)
        for layer in self.layers:
            x = layer(x, lambda q, k, v: self.plain(q, k, v, n, None))
        z = self.norm(x.view(n, rows, e)[:, 2:]).reshape(n, size * e)
        w = resample(self.proj_fx.weight, self.c['chunk_size'] // size)
        return F.linear(z, w).view(batch, count, -1)


class Cat(Stack):
    """Adaptive Compress & Attend Transformer."""

    def __init__(self, cfg):
        c = cfg['decoder']
        super().__init__(c, c['chunk_size'] + 2)
        self.cfg = cfg
        d = c['dim']
        self.f = Compressor(cfg['compressor'])
        self.wte = nn.Embedding(c['padded_vocab_size'], d)
        self.dummy_fx = nn.Embedding(int(math.log2(c['chunk_size'])) + 1, d)
        self.seperator = nn.Embedding(1, d)
        self.output = nn.Linear(d, c['padded_vocab_size'], bias=False)
        self.masks = {}
        initialise(self)

    def chunk_masks(self, chunks, size):
        """Additive masks: summaries; block rows to summaries; within a group of blocks."""
        if (chunks, size) not in self.masks:
            device = self.output.weight.device
            m = causal(chunks, device)
            count = math.gcd(chunks, max(1, 32 // size))
            block = torch.arange(count * size, device=device) // size
            near = causal(count * size, device).masked_fill(block[:, None] != block, float('-inf'))
            self.masks[chunks, size] = m, m.repeat_interleave(size, 0), near
        return self.masks[chunks, size]

    def hidden(self, tokens, size):
        """tokens [batch, T], T a multiple of size; row i predicts token i itself."""
        batch, length = tokens.shape
        chunks, d = length // size, self.c['dim']
        tok = tokens.view(batch, chunks, size)
        g = self.dummy_fx.weight[int(math.log2(size))].expand(batch, 1, d)
        if chunks > 1:
            g = torch.cat([g, self.f(tok[:, :-1])], 1)
        sep = self.seperator.weight.view(1, 1, 1, d).expand(batch, chunks, 1, d)
        block = torch.cat([sep, self.wte(tok[:, :, :size - 1])], 2)
        x = torch.cat([g.reshape(-1, d), block.reshape(-1, d)])
        masks = self.chunk_masks(chunks, size)
        for layer in self.layers:
            x = layer(x, lambda q, k, v: self.chunked(q, k, v, batch, chunks, size, masks))
        return self.norm(x[batch * chunks:])

    def losses(self, tokens, size):
        """Cross-entropy per predicted token, [batch, T]; column 0 (no prediction) is 0."""
        target = tokens.clone()
        target[:, 0] = -100
        logits = self.logits(self.hidden(tokens, size))
        return F.cross_entropy(logits, target.view(-1), reduction='none').view(tokens.shape)

    def next_logits(self, tokens, size):
        """Logits after the whole prompt [batch, n], any n up to block_size: the prefill
        of the serving engine (summaries, separator, open chunk; one causal pass)."""
        batch, n = tokens.shape
        k, d = n // size, self.c['dim']
        g = self.dummy_fx.weight[int(math.log2(size))].expand(batch, 1, d)
        if k:
            g = torch.cat([g, self.f(tokens[:, :k * size].reshape(batch, k, size))], 1)
        sep = self.seperator.weight.expand(batch, 1, d)
        x = torch.cat([g, sep, self.wte(tokens[:, k * size:])], 1)
        rows = x.shape[1]
        h = self.c['n_head']

        def attend(q, key, v):
            q, key, v = heads(q, batch, h), heads(key, batch, h), heads(v, batch, h)

            def rotate(t):  # summaries keep position 0, which changes nothing
                return torch.cat([t[:, :k + 1], self.rotary(t[:, k + 1:], 1)], 1)
            s = torch.bmm(rotate(q), rotate(key).transpose(1, 2)) * self.c['head_dim'] ** -0.5
            return unheads(torch.bmm((s + causal(rows, s.device)).softmax(-1), v), batch)
        x = x.reshape(-1, d)
        for layer in self.layers:
            x = layer(x, attend)
        return self.logits(self.norm(x.view(batch, rows, d)[:, -1]))


class Dense(Stack):
    """The ordinary causal transformer of the same code base: the baseline."""

    def __init__(self, cfg):
        c = cfg['decoder']
        super().__init__(c, c['block_size'])
        self.cfg = cfg
        self.wte = nn.Embedding(c['padded_vocab_size'], c['dim'])
        self.output = nn.Linear(c['dim'], c['padded_vocab_size'], bias=False)
        initialise(self)

    def hidden(self, tokens):
        """Row i predicts token i + 1."""
        batch, length = tokens.shape
        mask = causal(length, tokens.device)
        x = self.wte(tokens).view(batch * length, -1)
        for layer in self.layers:
            x = layer(x, lambda q, k, v: self.plain(q, k, v, batch, mask))
        return self.norm(x)

    def losses(self, tokens, size=None):
        """Cross-entropy per predicted token, [batch, T]; column 0 (no prediction) is 0."""
        target = F.pad(tokens[:, 1:], (0, 1), value=-100)
        logits = self.logits(self.hidden(tokens))
        loss = F.cross_entropy(logits, target.reshape(-1), reduction='none').view(tokens.shape)
        return F.pad(loss[:, :-1], (1, 0))

    def next_logits(self, tokens, size=None):
        batch, n = tokens.shape
        return self.logits(self.hidden(tokens).view(batch, n, -1)[:, -1])


def initialise(model):
    """Initialisation that keeps the compressor alive.

    With 0.02 everywhere the chunk-position embedding is too weak to tell summaries
    apart (they all sit at rotary position 0), the decoder learns to ignore them and
    the compressor never gets a gradient worth having. So: embedding-like tensors at
    standard deviation 1, matrices at 1/sqrt(fan-in), residual outputs divided by
    sqrt(2 layers), and a quiet output matrix.
    """
    for name, p in model.named_parameters():
        if p.dim() == 1:
            continue
        embedding = any(s in name for s in ('wte', 'pos_tokens', 'adaptive', 'dummy', 'seperator'))
        std = 1.0 if embedding else p.shape[1] ** -0.5
        if name.endswith(('wo.weight', 'feed_forward.proj.weight')):
            stack = model.f if name.startswith('f.') else model
            std /= math.sqrt(2 * stack.c['n_layer'])
        if name == 'output.weight':
            std = 0.02
        nn.init.normal_(p, 0.0, std)


def build(cfg):
    return Cat(cfg) if cfg['model_type'] == 'cat' else Dense(cfg)
