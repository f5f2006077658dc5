#!/usr/bin/env python3
"""Shows on a machine with an NVIDIA GPU all that can be shown there in eight minutes, from the
bundle that tools/gpu_bundle.sh makes: the card's two ceilings, contract suites, golden tests, a
server, benchmarks, compute-sanitizer. Each stage has its own limit, and a failed one stops none.

Writes log.txt and results.json as it goes, and table.txt last. Exits with 0 if every stage passed
(one whose tool is not installed is skipped, and says so), 1 if not, 3 if there is no GPU.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import glob
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
BUNDLED = (HERE / "bin").is_dir()  # else this is a checkout's
RESULTS = HERE / "results" if BUNDLED else HERE.parent / "bench" / "results" / "gpu"
SKIPPED = 3  # also the status of the bundle's tests where no GPU answers
LIMIT_S = 470
CUBLAS = "libcublasLt.so.13"
GIB = 1 << 30
CAPABILITY_MAJOR = 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR; the minor is the next
F8_CAPABILITY = 89  # converts F8_E4M3
F8_WEIGHTS_CAPABILITY = 90  # multiplies it with scales of rows and outputs

# What the authors report for 320 sequences of up to 4,096 tokens on one A100 80GB (arXiv
# 2511.05313): tokens per second, GB; and floors of a prefill of 4,096 tokens on an H200, computed
# from its ceilings, in ms.
AUTHORS = {"dense": (14500, 68, 2.1), "c4": (20500, 32, 2.3), "c8": (29500, 17, 1.3),
           "c16": (38800, 10, 0.9), "c32": (45400, 7, 0.65)}

# Fractions of the floor that are asked for, by figure; the first that fits counts.
GOALS = ((r"attention\.batch64\.c\d+\.BF16", 0.8), (r"attention\.batch1\.dense\.BF16", 0.55),
         (r".*-published\.\w+\.decode\.batch(128|320)", 0.6),
         (r".*-published\.\w+\.decode\.batch32", 0.5),
         (r"cat-published\.\w+\.decode\.batch1", 0.55),
         (r"dense-published\.dense\.decode\.batch1", 0.4))

# Tokens/s that are asked for, by figure.
RATES = {"f8.c16.decode.batch320": 200_000}

# Starts the server, waits until it is ready, asks it for tokens, ends it.
SERVE = """
set -eo pipefail
work=$(mktemp -d)
bin/catserved --backend=cuda --model=models/recall --kv_memory_bytes=268435456 \
  --listen_address=127.0.0.1:0 --metrics_address= --port_file="$work/port" &
server=$!
trap 'kill $server; wait $server || true; rm -rf "$work"' EXIT
until [ -s "$work/port" ]; do kill -0 $server; sleep 0.1; done
address=127.0.0.1:$(cat "$work/port")
bin/catctl wait --server=$address
for chunk_size in 4 16; do
  bin/catctl generate --server=$address --chunk-size=$chunk_size --max-tokens=32 --ignore-eos \
    --stats --token-ids=3,14,15,92,65,35,89,79,32,38
done
"""


# Tests of small shapes, of every kernel of ours, for the sanitizer.
FEW = ("*GatherContract*", "*RmsNormContract*", "*SiluGateContract*",
       "*ActivationsContract.Norms*", "*ActivationsContract.Gates*", "*Float8Contract.OfZeros*",
       "*MatMulContract.ReadsAndWritesColumnBlocks*", "*PrepareHeadsContract.Writes*",
       "*PagedAttentionContract.MatchesDoublePrecisionAroundPageBoundaries*",
       "*PagedAttentionContract.ARowThatSeesNothingIsZero*",
       "*PrefillContract.ARunEndsWhereItsPrefixDoes*", "*BlockAttentionContract*",
       "*SampleContract.GreedyTakes*", "*SampleContract.ReplacesAsMany*", "*ScoreContract*")


class NoGpu(Exception):
    """Why there is nothing to check."""


@dataclasses.dataclass
class Gpu:
    name: str
    memory_bytes: int
    driver: str
    capability: int  # 90: 9.0


@dataclasses.dataclass
class Stage:
    name: str
    command: list
    limit_s: float
    tool: str = None  # skipped where this program is not installed


@dataclasses.dataclass
class Result:
    name: str
    status: str  # passed, failed, timed out, skipped, not run
    seconds: float = 0
    reason: str = ""
    figures: dict = dataclasses.field(default_factory=dict)  # name: [value, unit]


def find_gpu(library="libcuda.so.1"):
    """The first GPU, by the driver's own calls. Raises NoGpu."""
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        raise NoGpu(f"no driver: {library} cannot be loaded") from None
    device, version = ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(128), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    for call, arguments in (
            (cuda.cuInit, (0,)), (cuda.cuDriverGetVersion, (ctypes.byref(version),)),
            (cuda.cuDeviceGet, (ctypes.byref(device), 0)),
            (cuda.cuDeviceGetName, (name, len(name), device)),
            (cuda.cuDeviceTotalMem_v2, (ctypes.byref(memory), device)),
            (cuda.cuDeviceGetAttribute, (ctypes.byref(major), CAPABILITY_MAJOR, device)),
            (cuda.cuDeviceGetAttribute, (ctypes.byref(minor), CAPABILITY_MAJOR + 1, device))):
        if code := call(*arguments):
            raise NoGpu(f"the driver answers {call.__name__} with error {code}")
    driver = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(), memory.value, driver, 10 * major.value + minor.value)


def cublas_folder():
    """Where cuBLAS lies if the loader does not find it by itself, else None."""
    known = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False,
                           env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/sbin"})
    if CUBLAS in known.stdout:
        return None
    places = ["/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/x86_64-linux/lib",
              "/usr/lib/python3*/site-packages/nvidia/*/lib", "/opt/*/lib/python3*/site-packages/"
              "nvidia/*/lib", "/opt/*/.venv/lib/python3*/site-packages/nvidia/*/lib",
              *(f"{p}/nvidia/*/lib" for p in sys.path if p)]
    found = [f for p in places for f in glob.glob(f"{p}/{CUBLAS}")]
    return os.path.dirname(found[0]) if found else None


def figures(text):
    """The lines `name=value unit` that benchmarks print."""
    lines = re.findall(r"^([\w.+-]+)=(-?[\d.]+(?:e[+-]?\d+)?) (\S+)$", text, re.M)
    return {name: [float(value), unit] for name, value, unit in lines}


def run_stage(stage, limit_s, log, cwd, environment):
    """Runs a stage with its output at the end of the file `log`."""
    if stage.tool and not shutil.which(stage.tool, path=environment.get("PATH")):
        return Result(stage.name, "skipped", reason=f"{stage.tool} is not installed here")
    start = time.monotonic()
    with open(log, "ab") as out:
        out.write(f"\n== {stage.name}: {shlex.join(stage.command)}\n".encode())
        out.flush()
        begin = out.tell()
        try:
            process = subprocess.Popen(stage.command, stdin=subprocess.DEVNULL, stdout=out,
                                       stderr=subprocess.STDOUT, cwd=cwd, env=environment,
                                       start_new_session=True)
        except OSError as error:
            return Result(stage.name, "failed", reason=f"cannot be started: {error}")
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # whatever it started ends with it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # a lost device may hold it
                process.wait(10)
    seconds = time.monotonic() - start
    with open(log, "rb") as written:
        written.seek(begin)
        found = figures(written.read().decode(errors="replace"))
    status, reason = "passed", ""
    if code is None:
        status, reason = "timed out", f"ended after {limit_s:.0f} s"
    elif code == SKIPPED:
        status, reason = "failed", "its program could not use the GPU; log.txt says why"
    elif code != 0:
        status, reason = "failed", f"exit status {code}"
    return Result(stage.name, status, seconds, reason, found)


class Report:
    """The folder of results, written anew after each stage."""

    def __init__(self, folder, facts):
        self.folder = folder
        self.facts = facts
        self.results = []
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log.txt"
        self.log.write_text(f"{json.dumps(facts)}\n", encoding="utf-8")
        self.write()

    def add(self, result):
        self.results.append(result)
        self.write()

    def write(self):
        document = {**self.facts, "stages": [dataclasses.asdict(r) for r in self.results]}
        whole = self.folder / "results.json.part"
        whole.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        whole.replace(self.folder / "results.json")

    def table(self):
        lines = [f"{r.name:<12} {r.status:<10} {r.seconds:6.1f} s  {r.reason}".rstrip()
                 for r in self.results]
        found = {name: value for r in self.results for name, value in r.figures.items()}
        return "\n".join([*lines, *replays(found), *beside_the_goals(found),
                          *beside_the_authors(found)]) + "\n"

    def status(self):
        states = {r.status for r in self.results}
        return 0 if "passed" in states and states <= {"passed", "skipped"} else 1


def replays(found):
    """Lines that say which share of the steps' parts was replayed from graphs."""
    lines = [f"{name:<40} {100 * value:5.1f}% of the steps' parts"
             for name, (value, _) in found.items() if name.endswith(".replayed")]
    return ["", *lines] if lines else []


def beside_the_goals(found):
    """Lines of a table of the fractions of the floor, and the rates, for which there is a goal."""
    lines = []
    for name, (value, _) in found.items():
        operation = name.removesuffix(".floor_fraction")
        goal = next((g for pattern, g in GOALS if re.fullmatch(pattern, operation)), None)
        if name != operation and goal:
            lines.append(f"{operation:<40} {100 * value:5.1f}% of its floor; asked for "
                         f"{100 * goal:.0f}%{'' if value >= goal else ': MISSED'}")
    for name, rate in RATES.items():
        if name in found:
            value = found[name][0]
            lines.append(f"{name:<40} {value:.0f} tokens/s; asked for {rate}"
                         f"{'' if value >= rate else ': MISSED'}")
    return ["", *lines] if lines else []


def beside_the_authors(found):
    """Lines of a table of what is there of our figures at 320 sequences, beside theirs."""
    lines = []
    dense = found.get("dense-published.dense.decode.batch320")
    for size, (tokens, gigabytes, floor_ms) in AUTHORS.items():
        name = f"dense-published.{size}" if size == "dense" else f"cat-published.{size}"
        rate = found.get(f"{name}.decode.batch320")
        kv = found.get(f"{name}.decode.batch320.kv_per_sequence")
        prefill = found.get(f"{name}.prefill_4095")
        cells = [f"{size:<6}", f"{tokens:>8}", f"{rate[0]:>9.0f}" if rate else f"{'-':>9}",
                 f"{tokens / AUTHORS['dense'][0]:>6.2f}",
                 f"{rate[0] / dense[0]:>6.2f}" if rate and dense else f"{'-':>6}",
                 f"{gigabytes:>6}", f"{kv[0] * 320 / 1e9:>6.1f}" if kv else f"{'-':>6}",
                 f"{prefill[0]:>8.2f}" if prefill else f"{'-':>8}", f"{floor_ms:>6.2f}"]
        lines.append(" | ".join(cells))
    if not any(name.endswith("decode.batch320") for name in found):
        return []
    return ["", "320 sequences: tokens/s, times dense, GB (theirs all of the A100's memory in use, "
            "ours KV);", "prefill of 4,095 tokens in ms beside its floor on an H200",
            "        theirs |      ours | theirs |  ours | theirs |   ours |  prefill |  floor",
            *lines]


def check(stages, report, cwd, environment, limit_s=LIMIT_S):
    """Runs the stages one after another, all within limit_s; prints each as it ends."""
    deadline = time.monotonic() + limit_s
    for stage in stages:
        left = deadline - time.monotonic()
        if left < 1:
            result = Result(stage.name, "not run", reason=f"the {limit_s} s of all were used up")
        else:
            result = run_stage(stage, min(stage.limit_s, left), report.log, cwd, environment)
        report.add(result)
        print(f"{result.name}: {result.status} after {result.seconds:.1f} s {result.reason}",
              flush=True)
    table = report.table()
    (report.folder / "table.txt").write_text(table, encoding="utf-8")
    print("\n" + table, end="")
    return report.status()


def all_stages(gpu, scratch):
    """Commands are run in the bundle's folder."""
    most = [b for b, gib in ((1, 0), (32, 0), (128, 30), (320, 75)) if gpu.memory_bytes > gib * GIB]
    kernels = ["bin/kernel_bench", "--backend=cuda"]
    engine = ["bin/engine_bench", "--backend=cuda", f"--scratch={scratch}", "--step_tokens=8192"]
    published, twin = "--shape=cat-published", "--shape=dense-published"
    batches = f"--batches={','.join(map(str, most))}"
    spread = ["--prompt_tokens=1850", "--lengths=spread"]
    at_once = ["--prompt_tokens=1856", "--lengths=lock_step"]
    prompts = ["--batches=", "--prompt_tokens=4095"]
    largest = [*engine, published, f"--batches={most[-1]}", "--chunk_sizes=16"]
    stages = [
        Stage("ceilings", [*kernels, "--cases=ceilings"], 40),
        Stage("contract", ["bin/cuda_test", "--gtest_filter=Backends/*"], 90),
        Stage("golden", ["bin/cuda_test", "--gtest_filter=-Backends/*:TrainedModelTest.*"], 90),
        Stage("server", ["bash", "-c", SERVE], 30),
        Stage("kernels", kernels, 60),
        Stage("prefill", [*engine, published, *prompts], 40),
        Stage("prefill-twin", [*engine, twin, *prompts], 20),
        Stage("engine", [*engine, published, batches, *spread], 100),
        Stage("engine-twin", [*engine, twin, batches, *spread], 40)]
    if gpu.capability >= F8_CAPABILITY:
        f8_kv = [*largest, *spread, "--kv_dtype=F8_E4M3", "--name=f8-kv"]
        stages.append(Stage("engine-f8", f8_kv, 30))
    if gpu.capability == F8_WEIGHTS_CAPABILITY:
        f8 = [*largest, *spread, "--weight_dtype=F8_E4M3", "--kv_dtype=F8_E4M3", "--name=f8"]
        stages.append(Stage("engine-f8-weights", f8, 30))
    # Small shapes; cuBLAS' own kernels are not ours to check.
    for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--kernel-name",
                   "kns=catserve", "bin/cuda_test", f"--gtest_filter={':'.join(FEW)}"]
        stages.append(Stage(tool, command, 40, tool="compute-sanitizer"))
    return [
        *stages,
        Stage("lock-step", [*largest, *at_once, "--name=lock-step"], 30),
        Stage("beside", [*largest, *spread, "--name=beside"], 30),
        Stage("in-line", [*largest, *spread, "--name=in-line", "--prompts_beside=false"], 30),
        Stage("whole", [*largest, "--name=whole", "--prompt_tokens=16",
                        f"--generated_tokens={4096 - 16 - most[-1]}"], 90)]


def starts(bundle):
    """Whether the bundle is there and this machine's loader and libc take its programs."""
    program = bundle / "bin" / "cuda_test"
    try:
        done = subprocess.run([program, "--gtest_filter=none"], capture_output=True, check=False,
                              timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode in (0, SKIPPED)


def provide(bundle):
    """Makes the bundle where it is missing or does not start; False if that cannot be done."""
    if starts(bundle):
        return True
    script = HERE / "gpu_bundle.sh"
    if not script.is_file():
        print(f"{bundle} does not start here: run it where its libc is known, or from a checkout")
        return False
    print(f"{bundle} is not there or does not start: building it (minutes)", flush=True)
    return subprocess.run([script, bundle], check=False).returncode == 0 and starts(bundle)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=pathlib.Path, default=HERE if BUNDLED else
                        HERE.parent / "build" / "gpu_bundle")
    parser.add_argument("--out", type=pathlib.Path, help=f"default: {RESULTS}/ and the card's name")
    parser.add_argument("--stages", type=lambda names: names.split(","), help="only these: a,b")
    parser.add_argument("--no-build", action="store_true",
                        help="where the bundle is missing nothing is built, and the status is 3")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    try:
        gpu = find_gpu()
    except NoGpu as reason:
        print(f"no GPU here, nothing was run: {reason}")
        return SKIPPED
    bundle = options.bundle.resolve()
    if options.no_build and not starts(bundle):
        print(f"{bundle} is not there or does not start, and --no-build was asked for")
        return SKIPPED
    if not provide(bundle):
        return 1
    card = re.sub(r"[^A-Za-z0-9]+", "-", gpu.name).strip("-").lower()
    report = Report(options.out or RESULTS / card, {
        "gpu": dataclasses.asdict(gpu), "revision": (bundle / "REVISION").read_text().strip(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
    environment = dict(os.environ)
    environment["PATH"] = environment.get("PATH", "") + ":/usr/local/cuda/bin"
    if folder := cublas_folder():
        searched = [folder, environment.get("LD_LIBRARY_PATH")]
        environment["LD_LIBRARY_PATH"] = ":".join(filter(None, searched))
    # Random checkpoints take 3 GB: in memory where there is plenty.
    shm = "/dev/shm"
    roomy = os.path.isdir(shm) and shutil.disk_usage(shm).free > 16 * GIB
    with tempfile.TemporaryDirectory(dir=shm if roomy else None) as scratch:
        stages = {s.name: s for s in all_stages(gpu, scratch)}
        if unknown := sorted(set(options.stages or ()) - stages.keys()):
            sys.exit(f"--stages: no {', '.join(unknown)} among {', '.join(stages)}")
        chosen = [s for name, s in stages.items() if name in (options.stages or stages)]
        return check(chosen, report, bundle, environment)


if __name__ == "__main__":
    sys.exit(main())
