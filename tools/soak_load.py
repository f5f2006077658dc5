"""The callers of tools/soak.py: every kind of call, each on threads of its own."""

import collections
import importlib
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc

ROOT = pathlib.Path(__file__).resolve().parents[1]
PUSHBACK_SECONDS = 0.3
STALL_SECONDS = 75  # longer than the server's patience with a reader, a minute
WORDS = "the cat sat on a mat and looked at one of many small birds in an old tree ".split()


def generated_messages(folder):
    """The contract as Python, made from its .proto file."""
    subprocess.run(["protoc", "-I", ROOT / "proto", f"--python_out={folder}",
                    "catserve/v1/generation.proto"], check=True)
    sys.path.insert(0, str(folder))
    return importlib.import_module("catserve.v1.generation_pb2")


class Load:
    """Callers of every kind, each a thread, and what became of their calls."""

    def __init__(self, address, build, messages, until):
        self.address, self.build, self.pb, self.until = address, build, messages, until
        self.lock = threading.Lock()
        self.ends = collections.Counter()  # (kind, status)
        self.wrong = []
        self.channels = [self.connect() for _ in range(4)]

    def connect(self, *options):
        """A connection of its own."""
        return grpc.insecure_channel(
            self.address, options=[("grpc.use_local_subchannel_pool", 1), *options])

    # -- Calls ------------------------------------------------------------------------------------

    def note(self, kind, code, allowed):
        with self.lock:
            self.ends[kind, code] += 1
            if code not in allowed:
                self.wrong.append(f"{kind} ended {code}, allowed: {', '.join(allowed)}")

    def stream(self, channel, method, request, reply, timeout=None):
        call = channel.unary_stream(f"/catserve.v1.Generation/{method}",
                                    request_serializer=type(request).SerializeToString,
                                    response_deserializer=reply.FromString)
        return call(request, timeout=timeout)

    def generate(self, rng, request, timeout=None, channel=None):
        return self.stream(channel or rng.choice(self.channels), "Generate", request,
                           self.pb.GenerateResponse, timeout)

    def request(self, rng, words, tokens, budget=None):
        request = self.pb.GenerateRequest()
        request.prompt.text = " ".join(rng.choice(WORDS) for _ in range(words))
        if budget is None:
            budget = rng.choice((4, 8, 16, 32, "auto", "auto"))
        if budget == "auto":
            request.budget.auto.SetInParent()
        else:
            request.budget.chunk_size = budget
        request.stopping.max_tokens = tokens
        request.sampling.seed = rng.randrange(1 << 30)
        return request

    def read(self, kind, call, allowed, on_event=lambda event: None):
        """Reads to the end; the status' name."""
        last = None
        try:
            for event in call:
                last = event
                on_event(event)
            code = "OK"
        except grpc.RpcError as error:
            code = error.code().name
            if code == "RESOURCE_EXHAUSTED":
                time.sleep(PUSHBACK_SECONDS)
        if code == "OK" and (last is None or last.WhichOneof("event") != "finished"):
            code = "OK without finished"
        self.note(kind, code, allowed)
        return code

    # -- Kinds of callers, one call each ----------------------------------------------------------

    def short(self, rng):
        request = self.request(rng, rng.randint(1, 20), rng.randint(0, 40))
        self.read("short", self.generate(rng, request), ("OK", "RESOURCE_EXHAUSTED"))

    def long(self, rng):
        request = self.request(rng, rng.randint(150, 250), rng.randint(50, 200))
        self.read("long", self.generate(rng, request), ("OK", "RESOURCE_EXHAUSTED"))

    def choices(self, rng):
        request = self.request(rng, 30, 40)
        request.sampling.n = rng.randint(2, 4)
        request.stopping.stop.append(rng.choice(("the", " a", "\n")))
        self.read("choices", self.generate(rng, request), ("OK", "RESOURCE_EXHAUSTED"))

    def score(self, rng):
        request = self.pb.ScoreRequest(chunk_size=rng.choice((4, 8, 16, 32)), top_logprobs=2)
        request.text.text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 200)))
        call = self.stream(rng.choice(self.channels), "Score", request, self.pb.ScoreResponse)
        self.read("score", call, ("OK", "RESOURCE_EXHAUSTED"))

    def cancel(self, rng):
        call = self.generate(rng, self.request(rng, rng.randint(1, 100), 200))
        left = [rng.randint(0, 30)]

        def leave(_):
            left[0] -= 1
            if left[0] <= 0:
                call.cancel()
        if left[0] == 0:
            call.cancel()
        self.read("cancel", call, ("OK", "CANCELLED", "RESOURCE_EXHAUSTED"), leave)

    def deadline(self, rng):
        request = self.request(rng, rng.randint(1, 200), 200)
        if rng.random() < 0.3:
            request.time_limit_ms = rng.randint(1, 2000)
        call = self.generate(rng, request, timeout=rng.uniform(0.005, 3))
        self.read("deadline", call, ("OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"))

    def slow(self, rng):
        request = self.request(rng, 10, 100)
        request.logprobs = 20
        self.read("slow", self.generate(rng, request), ("OK", "RESOURCE_EXHAUSTED"),
                  lambda event: time.sleep(0.02))

    def stopped(self, rng):
        """A reader with a small window that stops for longer than the server waits."""
        narrow = ("grpc.http2.lookahead_bytes", 4096), ("grpc.http2.bdp_probe", 0)
        with self.connect(*narrow) as channel:
            request = self.request(rng, 10, 400)
            request.logprobs = 20
            request.stopping.ignore_eos = True
            call = self.generate(rng, request, channel=channel)
            pause = [True]

            def stop(_):
                if pause[0]:
                    pause[0] = False
                    time.sleep(min(STALL_SECONDS, max(0, self.until - time.monotonic())))
            self.read("stopped", call, ("OK", "CANCELLED", "RESOURCE_EXHAUSTED"), stop)

    def bad(self, rng):
        request = self.request(rng, 3, 5)
        break_it = rng.choice((
            lambda r: setattr(r.budget, "chunk_size", 5), lambda r: r.ClearField("prompt"),
            lambda r: setattr(r.sampling, "top_p", 2), lambda r: setattr(r.sampling, "n", 99),
            lambda r: setattr(r.stopping, "max_tokens", 100000),
            lambda r: setattr(r, "request_id", "no spaces please"),
            lambda r: r.prompt.token_ids.ids.append(1 << 30),
            lambda r: setattr(r, "priority", 1000)))
        break_it(request)
        self.read("bad", self.generate(rng, request), ("INVALID_ARGUMENT",))

    def garbage(self, rng):
        """Bytes that are no HTTP/2, or stop in the middle of it."""
        with socket.create_connection(self.address.split(":"), timeout=30) as connection:
            hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
            noise = rng.randbytes(rng.randint(0, 200))
            connection.sendall(hello[:rng.randint(1, len(hello))] + noise)
        self.note("garbage", "sent", ("sent",))

    def killed(self, rng):
        command = [self.build / "server/catctl", "generate", f"--server={self.address}",
                   "--max-tokens=400", "--json", rng.choice(WORDS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
            client.stdout.read(rng.randint(1, 400))
            client.send_signal(signal.SIGKILL)
        self.note("killed", "killed", ("killed",))

    # -- Threads ----------------------------------------------------------------------------------

    def callers(self):
        kinds = [self.short] * 4 + [self.long] * 3 + [self.choices] * 2 + [self.score] * 2
        kinds += [self.cancel] * 3 + [self.deadline] * 4 + [self.slow] * 2 + [self.stopped]
        kinds += [self.bad, self.garbage, self.killed]
        return [threading.Thread(target=self.repeat, args=(kind, seed), daemon=True)
                for seed, kind in enumerate(kinds)]

    def repeat(self, kind, seed):
        rng = random.Random(seed)
        pause = 0.2 if kind in (self.bad, self.garbage, self.killed) else 0.0
        while time.monotonic() < self.until:
            try:
                kind(rng)
            except Exception as error:  # pylint: disable=broad-except
                with self.lock:
                    self.wrong.append(f"{kind.__name__}: {error!r}")
                return
            time.sleep(pause)
