#!/usr/bin/env python3
"""Measures the shipped models' held-out bits per byte through a running server's Score, and writes
them where people look: models/text/card.json (which feeds GetModel) and the two READMEs.

    tools/evaluate.py BUILD_DIR          measure and write
    tools/evaluate.py BUILD_DIR --check  measure and fail if the card says something else
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
CAT, DENSE = ROOT / "models/text", ROOT / "models/text-dense"
HELDOUT = CAT / "heldout.txt"
SECTION = re.compile(r"(<!-- measured-through-score[^\n]*-->\n)(.*?)"
                     r"(<!-- end measured-through-score -->)", re.S)
TOLERANCE = 1e-4  # what four decimals of the card leave open


def score(build, model, chunk_sizes):
    """Serves `model` and returns {chunk size: (tokens, bits per byte)}; key 0 for dense."""
    with tempfile.TemporaryDirectory() as work:
        port_file = pathlib.Path(work) / "port"
        server = subprocess.Popen(
            [build / "server/catserved", f"--model={model}", "--listen_address=127.0.0.1:0",
             "--metrics_address=", f"--port_file={port_file}"], stderr=subprocess.PIPE, text=True)
        try:
            for line in server.stderr:  # the port is written before this line appears
                if "event=serving" in line:
                    break
            else:
                sys.exit(f"the server did not start on {model}")
            address = f"127.0.0.1:{port_file.read_text().strip()}"
            command = [build / "server/catctl", "score", f"--server={address}",
                       f"--file={HELDOUT}"]
            if chunk_sizes:
                command.append("--chunk-size=" + ",".join(map(str, chunk_sizes)))
            table = subprocess.run(command, check=True, text=True, capture_output=True).stdout
        finally:
            server.terminate()
            server.stderr.read()
            server.wait()
    rows = re.findall(r"^\s*(\d+|dense|-)\s+(\d+)\s+[\d.]+\s+[\d.]+\s+([\d.]+)\s*$", table, re.M)
    if len(rows) != max(1, len(chunk_sizes)):
        sys.exit(f"catctl score printed something unexpected:\n{table}")
    return {int(c) if c.isdigit() else 0: (int(t), float(b)) for c, t, b in rows}


def section(sizes, dense):
    """The part of the READMEs between the markers."""
    tokens = next(iter(sizes.values()))[0]
    lines = ["### Bits per byte of `heldout.txt`, measured through Score", "",
             f"`make evaluate`, {tokens:,} tokens scored in pieces of the context; weights BF16, "
             "KV BF16.", "", "| chunk size | bits per byte | against the twin |", "|---|---|---|"]
    twin = dense[0][1]
    lines += [f"| {c} | {b:.4f} | {100 * (b / twin - 1):+.1f}% |" for c, (_, b) in sizes.items()]
    lines += [f"| dense twin | {twin:.4f} | |", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    build = args.build.resolve()
    card = json.loads((CAT / "card.json").read_text())
    sizes = score(build, CAT, [q["chunk_size"] for q in card["quality"]])
    dense = score(build, DENSE, [])
    text = section(sizes, dense)
    print(text)
    targets = [(card["dense_twin"], dense[0][1])]
    targets += [(q, sizes[q["chunk_size"]][1]) for q in card["quality"]]
    if args.check:
        wrong = [(t, b) for t, b in targets
                 if t["heldout_bits_per_byte"] is None
                 or abs(t["heldout_bits_per_byte"] - b) > TOLERANCE]
        sys.exit(f"the card differs: {wrong}; run make evaluate" if wrong else 0)
    for target, bits in targets:
        target["heldout_bits_per_byte"] = round(bits, 4)
    (CAT / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    for readme in (CAT / "README.md", DENSE / "README.md"):
        filled = SECTION.sub(lambda m: m[1] + text + m[3], readme.read_text())
        readme.write_text(filled)


if __name__ == "__main__":
    main()
