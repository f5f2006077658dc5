"""Measures models through the running server and writes what it found where people and the server
look: models/*/card.json, and made of the cards the tables of docs/quality.md and of the READMEs and
the charts.

    tools/evaluate BUILD_DIR                    every shipped model
    tools/evaluate BUILD_DIR --model DIR        any model directory; its card only
    tools/evaluate BUILD_DIR --check            measure quality again, fail if a card differs
    tools/evaluate --render                     tables and charts anew from the cards
"""

import argparse
import datetime
import pathlib
import signal
import sys

import grpc

from evaluate import DENSE, ROOT, EvaluationError, bound, card, documents, suite
from evaluate.served import catserve, has_tokenizer, serve_all
from serve_bench.harness import BenchError, machine, say

HELDOUT = ROOT / "models/text/heldout.txt"
OTHER_HELDOUT = ROOT / "models/text/heldout_other.txt"
OUTSIDE = ROOT / "tools/evaluate/data/wikitext2.txt"
QUICK = {"bytes_max": 600, "facts_planted": 1, "distances": (16, 64), "sequences": 2,
         "rounds": 1}


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("build", type=pathlib.Path, nargs="?")
    parser.add_argument("--model", type=pathlib.Path, help="a model directory")
    parser.add_argument("--text", type=pathlib.Path, help="what --model is measured on")
    parser.add_argument("--check", action="store_true", help="compare with the card, write nothing")
    parser.add_argument("--quick", action="store_true", help="of --model: a tiny piece of all")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if options.build is None and not options.render:
        parser.error("give the build directory, as build/release, or --render")
    if (options.text or options.quick) and not options.model:
        parser.error("--text and --quick need --model")
    return options


def plan_for(directory, options):
    if directory.parent == ROOT / "models" and not options.text and not options.quick:
        return suite.Plan({"text": HELDOUT, "wikitext2": OUTSIDE}, facts_planted=8)
    return suite.Plan({"text": options.text or HELDOUT}, **(QUICK if options.quick else {}))


def twin_directories(directory, known):
    """Where the card says that the dense twin is; nowhere if it names none."""
    path = (known.get("dense_twin") or {}).get("path")
    return [(directory / path).resolve()] if path else []


def command_line(directory, options):
    """How to measure this again, without this machine's paths."""
    if directory.parent == ROOT / "models" and not options.text:
        return "make evaluate"
    text = f" TEXT={options.text.name}" if options.text else ""
    return f"make evaluate MODEL={directory.name}{text}"


def measure(build, directory, options):
    """The sections of the model's card."""
    known, plan = card.load(directory), plan_for(directory, options)
    directories = [directory, *twin_directories(directory, known)]
    with serve_all(build, directories) as servers:
        if servers[0].chunk_sizes == [DENSE]:
            raise EvaluationError(f"{directory} is a dense model: there is no dial. Evaluate "
                                  "the CAT whose card names it as dense_twin.path; catctl score "
                                  "--file=FILE measures its bits per byte")
        run = suite.text_suite if has_tokenizer(directory) else suite.recall_suite
        sections, prompt = run(servers, plan)
        sections["parameters"] = servers[0].info.parameters
        if servers[1:]:
            sections["dense_twin"] = {"parameters": servers[1].info.parameters}
            if "quality" in sections:
                sections["dense_twin"]["heldout_bits_per_byte"] = \
                    sections["tasks"][0]["dense_twin"]
    if not options.check:
        with serve_all(build, directories, threads=suite.COST_THREADS) as servers:
            sections["cost"] = suite.cost_section(servers, prompt, plan.rounds)
    sections["evaluation"] = {
        "command": command_line(directory, options), "machine": machine(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "tokens": sections.pop("tokens")}
    return {"name": known.get("name", directory.name), **sections}


def check(directory, measured):
    """The differences between card and measurement."""
    found = card.differences(card.load(directory), measured)
    return [f"{directory.name}/card.json differs: {line}" for line in found]


def evaluate(build, directory, options):
    """Measures one model; what its card says wrongly, if that is asked."""
    say(f"== {directory.name}")
    if not options.check and directory.is_dir():
        card.check_writable(directory)
    measured = measure(build, directory, options)
    if options.check:
        return check(directory, measured)
    card.save(directory, card.merged(card.load(directory), measured))
    other = OTHER_HELDOUT if directory == ROOT / "models/text" else None
    if not options.quick and (other or not has_tokenizer(directory)):
        section = bound.measure(build, directory, other)
        card.save(directory, {**card.load(directory), "bound": section})
    print(documents.summary(card.load(directory)))
    return []


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options = parse()
    try:
        wrong = []
        if not options.render:
            directories = [options.model.resolve()] if options.model else \
                [path.parent for path in sorted(ROOT.glob("models/*/card.json"))]
            wrong = [line for directory in directories
                     for line in evaluate(options.build.resolve(), directory, options)]
        if not options.model or options.model.resolve().parent == ROOT / "models":
            if options.check:
                wrong += documents.differences()
            else:
                documents.render()
    except (EvaluationError, BenchError, OSError, catserve.CatserveError) as error:
        sys.exit(f"evaluate: {error}")
    except grpc.RpcError as error:  # of the calls that go past the client
        sys.exit(f"evaluate: {error.code().name}: {error.details()}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    if wrong:
        sys.exit("\n".join([*wrong, "run make evaluate"]))
