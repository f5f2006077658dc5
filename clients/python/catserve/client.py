"""The client that blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, Unpack

import grpc

from catserve._channel import Endpoint, Tls
from catserve._retry import Attempts, Retry, error_from
from catserve.events import Completion, Event, Scores, event_from
from catserve.options import GenerateOptions, generate_request, prompt_from
from catserve.v1 import generation_pb2 as pb
from catserve.v1 import generation_pb2_grpc as generation
from catserve.v1 import model_pb2
from catserve.v1 import model_pb2_grpc as model


class Client:
    """Calls a server, or all replicas behind an address. Threads may share one.

    Every call raises CatserveError with the server's code and message; what was refused before it
    began is tried again as `retry` says.
    """

    def __init__(self, address: str, *, tls: Tls | None = None, token: str | None = None,
                 plaintext_token: bool = False, retry: Retry | None = None) -> None:
        self._endpoint = Endpoint(address, tls, token, plaintext_token)
        self._metadata = self._endpoint.metadata()
        self._retry = retry or Retry()
        self._sleep: Callable[[float], None] = time.sleep
        self._channel = self._endpoint.open()
        self._generation = generation.GenerationStub(self._channel)
        self._models = model.ModelsStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every call that runs."""
        self._channel.close()

    def generate(self, prompt: str | Sequence[int], *, timeout: float | None = None,
                 **options: Unpack[GenerateOptions]) -> Iterator[Event]:
        """Streams events. To stop early, leave the loop: closing the iterator cancels."""
        request = generate_request(prompt, options)
        for response in self._stream(self._generation.Generate, request, timeout):
            event = event_from(response)
            if event is not None:
                yield event

    def complete(self, prompt: str | Sequence[int], *, timeout: float | None = None,
                 **options: Unpack[GenerateOptions]) -> Completion:
        """The whole answer."""
        completion = Completion()
        for event in self.generate(prompt, timeout=timeout, **options):
            completion.add(event)
        return completion

    def score(self, text: str | Sequence[int], *, chunk_size: int | None = None,
              top_logprobs: int | None = None, timeout: float | None = None) -> Scores:
        """Log-probabilities of a text at a chunk size (None for a dense model alone)."""
        request = pb.ScoreRequest(text=prompt_from(text), chunk_size=chunk_size,
                                  top_logprobs=top_logprobs)
        scores = Scores()
        for response in self._stream(self._generation.Score, request, timeout):
            scores.add(response)
        return scores

    def tokenize(self, text: str, *, add_bos: bool = False,
                 parse_special: bool = False,
                 timeout: float | None = None) -> list[int]:
        """Token ids of a text."""
        request = pb.TokenizeRequest(text=text, add_bos=add_bos, parse_special=parse_special)
        reply: pb.TokenizeResponse = self._call(self._generation.Tokenize, request, timeout)
        return list(reply.token_ids)

    def detokenize(self, token_ids: Sequence[int], *, timeout: float | None = None) -> str:
        """The text of token ids."""
        request = pb.DetokenizeRequest(token_ids=token_ids)
        reply: pb.DetokenizeResponse = self._call(self._generation.Detokenize, request, timeout)
        return reply.text

    def abort(self, request_id: str, *, timeout: float | None = None) -> bool:
        """Ends a running request of the same caller; false if there is none."""
        request = pb.AbortRequest(request_id=request_id)
        reply: pb.AbortResponse = self._call(self._generation.Abort, request, timeout)
        return reply.found

    def model(self, *, timeout: float | None = None) -> model_pb2.GetModelResponse:
        """What is served, with its dial."""
        reply: model_pb2.GetModelResponse = self._call(
            self._models.GetModel, model_pb2.GetModelRequest(), timeout)
        return reply

    def load(self, *, timeout: float | None = None) -> model_pb2.GetLoadResponse:
        """How busy the server is."""
        reply: model_pb2.GetLoadResponse = self._call(
            self._models.GetLoad, model_pb2.GetLoadRequest(), timeout)
        return reply

    def _stream(self, method: Any, request: Any, timeout: float | None) -> Iterator[Any]:
        attempts = Attempts(self._retry, timeout)
        while True:
            call = method(request, timeout=attempts.timeout(), metadata=self._metadata)
            began = False
            try:
                for response in call:
                    began = True
                    yield response
                return
            except grpc.RpcError as error:
                if began:
                    raise error_from(error) from error
                wait = attempts.wait(error)
                if wait is None:
                    raise error_from(error, self._endpoint.hint(error)) from error
            finally:
                call.cancel()
            self._sleep(wait)

    def _call(self, method: Any, request: Any, timeout: float | None) -> Any:
        attempts = Attempts(self._retry, timeout)
        while True:
            try:
                return method(request, timeout=attempts.timeout(), metadata=self._metadata)
            except grpc.RpcError as error:
                wait = attempts.wait(error)
                if wait is None:
                    raise error_from(error, self._endpoint.hint(error)) from error
            self._sleep(wait)
