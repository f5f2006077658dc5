"""The client for asyncio: the interface of `Client`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
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


class AsyncClient:
    """As `Client`; make and use it in one event loop."""

    def __init__(self, address: str, *, tls: Tls | None = None, token: str | None = None,
                 plaintext_token: bool = False, retry: Retry | None = None) -> None:
        self._endpoint = Endpoint(address, tls, token, plaintext_token)
        self._metadata = self._endpoint.metadata()
        self._retry = retry or Retry()
        self._sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        self._channel = self._endpoint.open_async()
        self._generation = generation.GenerationStub(self._channel)
        self._models = model.ModelsStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends every call that runs."""
        await self._channel.close()

    async def generate(self, prompt: str | Sequence[int], *, timeout: float | None = None,
                       **options: Unpack[GenerateOptions]) -> AsyncIterator[Event]:
        """Streams events. To stop early, close the iterator (`contextlib.aclosing`) or cancel the
        task: either cancels the request."""
        request = generate_request(prompt, options)
        async for response in self._stream(self._generation.Generate, request, timeout):
            event = event_from(response)
            if event is not None:
                yield event

    async def complete(self, prompt: str | Sequence[int], *, timeout: float | None = None,
                       **options: Unpack[GenerateOptions]) -> Completion:
        """The whole answer."""
        completion = Completion()
        async for event in self.generate(prompt, timeout=timeout, **options):
            completion.add(event)
        return completion

    async def score(self, text: str | Sequence[int], *, chunk_size: int | None = None,
                    top_logprobs: int | None = None, timeout: float | None = None) -> Scores:
        """Log-probabilities of a text at a chunk size (None for a dense model alone)."""
        request = pb.ScoreRequest(text=prompt_from(text), chunk_size=chunk_size,
                                  top_logprobs=top_logprobs)
        scores = Scores()
        async for response in self._stream(self._generation.Score, request, timeout):
            scores.add(response)
        return scores

    async def tokenize(self, text: str, *, add_bos: bool = False,
                       parse_special: bool = False,
                       timeout: float | None = None) -> list[int]:
        """Token ids of a text."""
        request = pb.TokenizeRequest(text=text, add_bos=add_bos, parse_special=parse_special)
        reply: pb.TokenizeResponse = await self._call(self._generation.Tokenize, request, timeout)
        return list(reply.token_ids)

    async def detokenize(self, token_ids: Sequence[int], *, timeout: float | None = None) -> str:
        """The text of token ids."""
        request = pb.DetokenizeRequest(token_ids=token_ids)
        reply: pb.DetokenizeResponse = await self._call(
            self._generation.Detokenize, request, timeout)
        return reply.text

    async def abort(self, request_id: str, *, timeout: float | None = None) -> bool:
        """Ends a running request of the same caller; false if there is none."""
        request = pb.AbortRequest(request_id=request_id)
        reply: pb.AbortResponse = await self._call(self._generation.Abort, request, timeout)
        return reply.found

    async def model(self, *, timeout: float | None = None) -> model_pb2.GetModelResponse:
        """What is served, with its dial."""
        reply: model_pb2.GetModelResponse = await self._call(
            self._models.GetModel, model_pb2.GetModelRequest(), timeout)
        return reply

    async def load(self, *, timeout: float | None = None) -> model_pb2.GetLoadResponse:
        """How busy the server is."""
        reply: model_pb2.GetLoadResponse = await self._call(
            self._models.GetLoad, model_pb2.GetLoadRequest(), timeout)
        return reply

    async def _stream(self, method: Any, request: Any, timeout: float | None) -> AsyncIterator[Any]:
        attempts = Attempts(self._retry, timeout)
        while True:
            call = method(request, timeout=attempts.timeout(), metadata=self._metadata)
            began = False
            try:
                async for response in call:
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
            await self._sleep(wait)

    async def _call(self, method: Any, request: Any, timeout: float | None) -> Any:
        attempts = Attempts(self._retry, timeout)
        while True:
            try:
                return await method(request, timeout=attempts.timeout(), metadata=self._metadata)
            except grpc.RpcError as error:
                wait = attempts.wait(error)
                if wait is None:
                    raise error_from(error, self._endpoint.hint(error)) from error
            await self._sleep(wait)
