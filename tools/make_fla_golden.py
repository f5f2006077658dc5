#!/usr/bin/env python3
"""Makes tests/data/fla: a tiny model in the layout of the flash-linear-attention library's port and
what a PyTorch forward, written from the rules in docs/checkpoints.md, computes with it.

  tools/make_fla_golden.py [tests/data/fla]     needs torch and numpy (python3-torch python3-numpy)

The whole sequence at a time, in float64, with an explicit mask; it shares nothing with the engine.
"""

import json
import math
import pathlib
import sys

import torch
import torch.nn.functional as F

from convert import safetensors_file

CONFIG = {
    "architectures": ["CATForCausalLM"],
    "model_type": "cat",
    "vocab_size": 67,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "max_chunk_size": 12,
    "chunk_sizes": [1, 3, 4, 5, 8, 12],
    "dim_fx": 32,
    "compressor_hidden_size": 16,
    "compressor_num_layers": 2,
    "compressor_num_heads": 2,
    "qkv_bias": False,
    "qk_norm": True,
    "rope_theta": 10000.0,
    "max_position_embeddings": 100,
    "hidden_ratio": 4,
    "intermediate_size": 40,
    "hidden_act": "swish",
    "norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "fuse_norm": True,
    "torch_dtype": "float32",
}
QK_NORM_EPS = 1e-5  # the library's default for a norm made without an epsilon
GREEDY_TOKENS = 40
LENGTHS = {1: [7], 3: [2, 3, 23], 4: [26], 5: [5, 24, 43], 8: [31], 12: [11, 12, 29, 49]}
FULL = {3: 100, 12: 100}  # no multiple of either, and nothing may follow


def random_weights(generator):
    """Large and uneven on purpose: a swapped matrix or a missed norm is far more than rounding."""
    c = CONFIG
    weights = {}

    def normal(name, shape, mean=0.0, deviation=1.0):
        values = torch.randn(shape, generator=generator, dtype=torch.float64) * deviation + mean
        weights[name + ".weight"] = values.to(torch.float32)

    def linear(name, out, inputs):
        normal(name, (out, inputs), deviation=1.3 / math.sqrt(inputs))

    def layer(prefix, attention, width, kv_width, head):
        normal(prefix + "attn_norm", (width,), 1, 0.3)
        linear(attention + "q_proj", width, width)
        linear(attention + "k_proj", kv_width, width)
        linear(attention + "v_proj", kv_width, width)
        linear(attention + "o_proj", width, width)
        if head:
            normal(attention + "q_norm", (head,), 1, 0.3)
            normal(attention + "k_norm", (head,), 1, 0.3)
        normal(prefix + "mlp_norm", (width,), 1, 0.3)
        linear(prefix + "mlp.gate_proj", c["intermediate_size"], width)
        linear(prefix + "mlp.up_proj", c["intermediate_size"], width)
        linear(prefix + "mlp.down_proj", width, c["intermediate_size"])

    d, e, rows = c["hidden_size"], c["compressor_hidden_size"], c["max_chunk_size"] + 1
    head = d // c["num_heads"]
    normal("model.embeddings", (c["vocab_size"], d))
    normal("model.separator", (1, d))
    normal("model.adaptive_token", (rows, d))
    for i in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{i}."
        layer(prefix, prefix + "attn.", d, c["num_kv_heads"] * head, head)
    normal("model.norm", (d,), 1, 0.3)
    normal("lm_head", (c["vocab_size"], d), deviation=0.5)
    f = "model.compressor."
    normal(f + "wte", (c["vocab_size"], e))
    normal(f + "pos_tokens", (c["max_position_embeddings"], e))
    normal(f + "adaptive_tokens", (rows, e))
    for i in range(c["compressor_num_layers"]):
        layer(f"{f}layers.{i}.", f"{f}layers.{i}.", e, e, None)
    normal(f + "norm", (e,), 1, 0.3)
    normal(f + "proj_fx", (d, c["max_chunk_size"] * e), deviation=0.15)
    return weights


class Model:
    """The rules of docs/checkpoints.md, one sequence at a time."""

    def __init__(self, weights):
        self.weights = {name: w.to(torch.float64) for name, w in weights.items()}

    def w(self, name):
        return self.weights[name + ".weight"]

    @staticmethod
    def rms(x, weight, eps):
        return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)

    @staticmethod
    def rotate(x, positions):
        """x: [rows, heads, head]; element i turns with element i + head / 2."""
        half = x.shape[-1] // 2
        theta = CONFIG["rope_theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = positions.to(torch.float64)[:, None, None] * theta
        u, v = x[..., :half], x[..., half:]
        return torch.cat([u * angle.cos() - v * angle.sin(), v * angle.cos() + u * angle.sin()], -1)

    def attention(self, h, prefix, heads, positions, sees):
        width = h.shape[-1]
        head = width // heads
        q, k, v = (F.linear(h, self.w(f"{prefix}{n}_proj")).view(len(h), -1, head) for n in "qkv")
        if prefix + "q_norm.weight" in self.weights:
            q = self.rms(q, self.w(prefix + "q_norm"), QK_NORM_EPS)
            k = self.rms(k, self.w(prefix + "k_norm"), QK_NORM_EPS)
        q, k = self.rotate(q, positions), self.rotate(k, positions)
        k, v = (t.repeat_interleave(heads // t.shape[1], 1) for t in (k, v))
        scores = torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(head)
        scores = scores.masked_fill(~sees, -math.inf).softmax(-1)
        out = torch.einsum("hij,jhd->ihd", scores, v).reshape(len(h), width)
        return F.linear(out, self.w(prefix + "o_proj"))

    def stack(self, x, prefix, attention, layers, heads, positions, sees):
        eps = CONFIG["norm_eps"]
        for i in range(layers):
            p = f"{prefix}layers.{i}."
            h = self.rms(x, self.w(p + "attn_norm"), eps)
            x = x + self.attention(h, p + attention, heads, positions, sees)
            h = self.rms(x, self.w(p + "mlp_norm"), eps)
            gate = F.silu(F.linear(h, self.w(p + "mlp.gate_proj")))
            up = F.linear(h, self.w(p + "mlp.up_proj"))
            x = x + F.linear(gate * up, self.w(p + "mlp.down_proj"))
        return self.rms(x, self.w(prefix + "norm"), eps)

    def compress(self, tokens, index):
        f, size = "model.compressor.", len(tokens)
        x = torch.cat([self.w(f + "adaptive_tokens")[size:size + 1],
                       self.w(f + "pos_tokens")[index:index + 1], self.w(f + "wte")[tokens]])
        everything = torch.ones(size + 2, size + 2, dtype=torch.bool)
        x = self.stack(x, f, "", CONFIG["compressor_num_layers"], CONFIG["compressor_num_heads"],
                       torch.arange(size + 2), everything)
        z = x[2:].reshape(-1)
        projection = self.w(f + "proj_fx")
        if size != CONFIG["max_chunk_size"]:
            projection = F.interpolate(projection[None, None], size=(len(projection), len(z)),
                                       mode="bilinear", align_corners=False)[0, 0]
        return F.linear(z, projection)

    def logits(self, tokens, size):
        """[tokens, vocabulary]: row i predicts token i + 1. And the summaries."""
        ids, chunks = torch.tensor(tokens), len(tokens) // size
        summaries = [self.compress(ids[k * size:(k + 1) * size], k) for k in range(chunks)]
        rows, positions, blocks, predicts = [], [], [], {}
        for k in range(chunks + 1):
            first = summaries[k - 1] if k else self.w("model.adaptive_token")[size]
            block = [first, self.w("model.separator")[0],
                     *self.w("model.embeddings")[ids[k * size:(k + 1) * size]]]
            if k:
                predicts[k * size - 1] = len(rows) + 1
            # What follows a chunk is predicted by the next separator, not by its last token.
            for j in range(min(size - 1, len(tokens) - k * size)):
                predicts[k * size + j] = len(rows) + 2 + j
            rows += block
            positions += range(len(block))
            blocks += [k] * len(block)
        positions, blocks = torch.tensor(positions), torch.tensor(blocks)
        n = torch.arange(len(rows))
        same_block = blocks[None] == blocks[:, None]
        sees = (n[None] <= n[:, None]) & (same_block | (positions[None] == 0))
        x = self.stack(torch.stack(rows), "model.", "attn.", CONFIG["num_hidden_layers"],
                       CONFIG["num_heads"], positions, sees)
        x = x[[predicts[i] for i in range(len(tokens))]]
        return F.linear(x, self.w("lm_head")), summaries


def make_case(model, generator, size, length, arrays):
    name = f"c{size}_n{length}"
    prompt = torch.randint(CONFIG["vocab_size"], (length,), generator=generator).tolist()
    logits, summaries = model.logits(prompt, size)
    case = {"name": name, "chunk_size": size, "length": length, "prompt": prompt}

    def keep(kind, values):
        case[kind] = f"{name}.{kind}"
        arrays[case[kind]] = values

    keep("logits_last", logits[-1])
    if length < 50:
        keep("logits_all", logits)
    if summaries:
        keep("fx", torch.stack(summaries))
    if length == CONFIG["max_position_embeddings"]:
        return case
    tokens, margins = list(prompt), []
    for _ in range(GREEDY_TOKENS):
        last = model.logits(tokens, size)[0][-1]
        best = last.topk(2).values
        margins.append(float(best[0] - best[1]))
        tokens.append(int(last.argmax()))
    case["greedy"] = tokens[length:]
    case["greedy_margins"] = margins
    keep("logits_end", last)
    if min(margins) < 5e-3:
        raise SystemExit(f"{name}: two tokens are {min(margins)} apart; choose another seed")
    return case


def as_tensors(values):
    floats = {name: v.detach().to(torch.float32).contiguous() for name, v in values.items()}
    return {name: safetensors_file.Tensor("F32", tuple(v.shape), lambda v=v: [v.numpy().tobytes()])
            for name, v in floats.items()}


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data/fla")
    generator = torch.Generator().manual_seed(20251)
    weights = random_weights(generator)
    model, arrays, cases = Model(weights), {}, []
    for size, lengths in LENGTHS.items():
        cases += [make_case(model, generator, size, length, arrays) for length in lengths]
    cases += [make_case(model, generator, size, length, arrays) for size, length in FULL.items()]
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    lines = ",\n".join(json.dumps(case) for case in cases)
    (out / "golden.json").write_text('{"cases": [\n' + lines + "\n]}\n")
    safetensors_file.write(out / "model.safetensors", as_tensors(weights))
    safetensors_file.write(out / "golden.safetensors", as_tensors(arrays))
    smallest = min(min(c.get("greedy_margins", [9])) for c in cases)
    print(f"{len(cases)} cases, smallest margin {smallest:.4f}")


if __name__ == "__main__":
    main()
