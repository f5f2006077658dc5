#!/usr/bin/env python3
"""Engine against engine on this machine: llama.cpp on the dense shape dense-768, and this engine on
that shape and on cat-1536, the CAT that matches it; random weights, by turns.

    .cache/peer/venv/bin/python tools/bench_peer.py BUILD_DIR [--rounds N]    (make bench-peer)

Needs what tools/install_peer.sh builds. Writes bench/results/peer.json and prints a table: prefill,
decoding alone, decoding together.
"""

import argparse
import dataclasses
import json
import pathlib
import re
import statistics
import subprocess
import sys

from serve_bench import harness

PEER = harness.ROOT / ".cache" / "peer"
RESULT = harness.ROOT / "bench" / "results" / "peer.json"
LAYERS, WIDTH, HEADS, FEED_FORWARD, VOCABULARY = 12, 768, 12, 2048, 32000  # dense-768
GENERATED, TOGETHER = 48, 32
FIGURES = ("prefill", "alone", "together")  # tokens/s


@dataclasses.dataclass(frozen=True)
class Side:
    """One engine with one model and types; the peer's file type, or our flags."""
    name: str
    peer_type: str = ""
    flags: tuple = ()


SIDES = (
    Side("llama.cpp dense-768 F16", peer_type="F16"),
    Side("llama.cpp dense-768 BF16", peer_type="BF16"),
    Side("llama.cpp dense-768 Q8_0", peer_type="Q8_0"),
    Side("llama.cpp dense-768 Q4_0", peer_type="Q4_0"),
    Side("catserve dense-768 BF16", flags=("--shape=dense-768",)),
    Side("catserve dense-768 I8", flags=("--shape=dense-768", "--weight_dtype=I8",
                                         "--kv_dtype=I8")),
    Side("catserve cat-1536 C=16 BF16", flags=("--shape=cat-1536", "--chunk_sizes=16")),
    Side("catserve cat-1536 C=16 I8", flags=("--shape=cat-1536", "--chunk_sizes=16",
                                             "--weight_dtype=I8", "--kv_dtype=I8")),
    Side("catserve cat-1536 C=16 I4", flags=("--shape=cat-1536", "--chunk_sizes=16",
                                             "--weight_dtype=I4", "--kv_dtype=I8")),
)


def tensor_shapes():
    """Name and shape of every weight of the dense shape, in the peer's names."""
    shapes = {"token_embd.weight": (VOCABULARY, WIDTH), "output.weight": (VOCABULARY, WIDTH),
              "output_norm.weight": (WIDTH,)}
    for i in range(LAYERS):
        block = {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,), "ffn_down": (WIDTH, FEED_FORWARD),
                 **{f"attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")},
                 **{f"ffn_{part}": (FEED_FORWARD, WIDTH) for part in ("gate", "up")}}
        shapes.update({f"blk.{i}.{name}.weight": shape for name, shape in block.items()})
    return shapes


def write_peer_model(path, file_type):
    """The dense shape with random weights of one type, norms F32, as the peer reads it."""
    import gguf  # pylint: disable=import-outside-toplevel
    import numpy  # pylint: disable=import-outside-toplevel
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(VOCABULARY)
    # Pieces that are text, for the peer's server; nothing is ever tokenised with them.
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>"] + [f"t{i} " for i in range(3, VOCABULARY)])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([gguf.TokenType.UNKNOWN] + 2 * [gguf.TokenType.CONTROL]
                           + (VOCABULARY - 3) * [gguf.TokenType.NORMAL])
    random = numpy.random.default_rng(1)
    kind = gguf.GGMLQuantizationType[file_type]
    for name, shape in tensor_shapes().items():
        values = random.standard_normal(shape, dtype=numpy.float32) * 0.02
        if len(shape) == 1:
            writer.add_tensor(name, 1 + values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def parse_peer(text):
    """Figures of llama-batched-bench's JSON lines for 1 and TOGETHER sequences."""
    rows = {row["pl"]: row for row in map(json.loads, re.findall(r"^\{.*\}$", text, re.M))}
    if set(rows) != {1, TOGETHER}:
        raise harness.BenchError(f"llama-batched-bench printed something unexpected:\n{text}")
    return {"prefill": rows[1]["speed_pp"], "alone": rows[1]["speed_tg"],
            "together": rows[TOGETHER]["speed_tg"]}


def parse_ours(text):
    """Figures of engine_bench's name=value lines."""
    found = dict(re.findall(r"^\S+\.(prefill|decode\.batch\d+)=(\S+) tokens/s$", text, re.M))
    wanted = {"prefill": "prefill", "alone": "decode.batch1", "together": f"decode.batch{TOGETHER}"}
    if not set(wanted.values()) <= set(found):
        raise harness.BenchError(f"engine_bench printed something unexpected:\n{text}")
    return {figure: float(found[name]) for figure, name in wanted.items()}


def peer_model(file_type):
    """The file with the dense shape, written the first time."""
    model = PEER / f"dense-768-{file_type}.gguf"
    if not model.is_file():
        harness.say(f"writing random weights: {model.name}")
        partial = model.with_suffix(".partial")
        write_peer_model(partial, file_type)
        partial.rename(model)
    return model


def peer_threads():
    threads = str(harness.machine()["cores"])
    return ["-t", threads, "-tb", threads]


def command_of(side, build, prompt):
    if not side.peer_type:
        return [build / "bench/engine_bench", *side.flags, f"--prompt_tokens={prompt}",
                f"--generated_tokens={GENERATED}", f"--batches=1,{TOGETHER}"]
    # Without its flash attention, which is slower on a CPU: 38 against 72 tokens/s at 2,000 tokens.
    return [PEER / "build/bin/llama-batched-bench", "-m", peer_model(side.peer_type), "-c",
            str(TOGETHER * (prompt + GENERATED)), "-b", "2048", "-ub", "512", "-fa", "off",
            "-npp", str(prompt), "-ntg", str(GENERATED), "-npl", f"1,{TOGETHER}", *peer_threads(),
            "--output-format", "jsonl"]


def measure(side, build, prompt):
    done = subprocess.run(command_of(side, build.resolve(), prompt), cwd=harness.ROOT, text=True,
                          check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL if side.peer_type else None)
    figures = parse_peer(done.stdout) if side.peer_type else parse_ours(done.stdout)
    harness.say(f"  {side.name}: " + ", ".join(f"{k} {v:.0f}" for k, v in figures.items()))
    return figures


def table(runs):
    """A row for each side: the median of its runs and their range."""
    def cell(values):
        return f"{statistics.median(values):,.0f} ({min(values):,.0f}–{max(values):,.0f})"
    lines = ["| engine, shape, weights | prefill | one sequence | "
             f"{TOGETHER} sequences |", "|---|---|---|---|"]
    for name, figures in runs.items():
        cells = [cell([run[figure] for run in figures]) for figure in FIGURES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--prompt_tokens", type=int, default=500)
    parser.add_argument("--only", default="", help="sides whose name contains one of these: I8,Q8")
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    options = parser.parse_args()
    if not (PEER / "build/bin/llama-batched-bench").is_file():
        sys.exit("llama.cpp's benchmark is missing: run tools/install_peer.sh first")
    sides = [side for side in SIDES if any(part in side.name for part in options.only.split(","))]
    runs, load = {side.name: [] for side in sides}, harness.load_average()
    for _ in range(options.rounds):
        for side in sides:
            runs[side.name].append(measure(side, options.build, options.prompt_tokens))
    commands = {side.name: " ".join(map(str, command_of(side, options.build,
                                                        options.prompt_tokens)))
                .replace(f"{harness.ROOT}/", "") for side in sides}
    options.out.write_text(json.dumps(
        {"machine": harness.machine(), "commit": harness.commit(), "unit": "tokens/s",
         "load_average_before": round(load, 2), "commands": commands, "runs": runs}, indent=1)
        + "\n")
    print(table(runs))


if __name__ == "__main__":
    main()
