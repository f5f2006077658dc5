"""A model behind a running catserved, with a client to ask it."""

import contextlib
import dataclasses
import importlib
import pathlib

import grpc

import python_client
from evaluate import DENSE, EvaluationError
from serve_bench.harness import Server

catserve = python_client.load()
messages = importlib.import_module("catserve.v1.generation_pb2")
stubs = importlib.import_module("catserve.v1.generation_pb2_grpc")

TOKENIZERS = ("tokenizer.json", "vocab.json")


@dataclasses.dataclass
class Programs:
    """What a Server wants to know of a build; its models are directories."""
    build: pathlib.Path

    def model(self, directory):
        return directory


@dataclasses.dataclass
class Served:
    """One model, served; DENSE is the only chunk size of a dense one."""
    client: catserve.Client
    calls: stubs.GenerationStub  # for what the client leaves out
    info: object  # GetModelResponse
    directory: pathlib.Path
    process_id: int

    @property
    def chunk_sizes(self):
        return [size.chunk_size for size in self.info.chunk_sizes] or [DENSE]

    @property
    def bos(self):
        """The tokens that begin every sequence of this model: one or none."""
        return [self.info.bos_token_id] if self.info.HasField("bos_token_id") else []

    def budget(self, chunk_size):
        """The options of a request for this chunk size."""
        return {} if chunk_size == DENSE else {"chunk_size": chunk_size}

    def processor_seconds(self):
        """What its threads have computed since they began."""
        files = pathlib.Path(f"/proc/{self.process_id}/task").glob("*/schedstat")
        return sum(int(file.read_text().split()[0]) for file in files) / 1e9

    def text_bytes(self, token_ids):
        """How long the text of these tokens is, also where they begin or end within a character."""
        request = messages.DetokenizeRequest(token_ids=token_ids)
        return len(self.calls.Detokenize(request).text_bytes)

    def score(self, token_ids, chunk_size, top=None):
        return self.client.score(token_ids, top_logprobs=top, **self.budget(chunk_size))


def has_tokenizer(directory):
    return any((directory / name).is_file() for name in TOKENIZERS)


@contextlib.contextmanager
def serve(build, directory, **flags):
    """Serves the model in `directory` until the block ends."""
    if not (directory / "config.json").is_file():
        raise EvaluationError(f"{directory} is no model directory: config.json is missing")
    with Server(Programs(build), directory, **flags) as server, \
            catserve.Client(server.address) as client, \
            grpc.insecure_channel(server.address) as channel:
        yield Served(client, stubs.GenerationStub(channel), client.model(), directory,
                     server.process.pid)


@contextlib.contextmanager
def serve_all(build, directories, **flags):
    """Serves the models in all `directories`, side by side."""
    with contextlib.ExitStack() as running:
        yield [running.enter_context(serve(build, each, **flags)) for each in directories]
