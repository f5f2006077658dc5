"""Keyword options of a request, and the message they make. Defaults are the server's: what is not
given is not sent (docs/api.md lists defaults and ranges)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from catserve.v1 import generation_pb2 as pb


class GenerateOptions(TypedDict, total=False):
    """Every option of `generate` and `complete`."""

    request_id: str
    # The prompt.
    add_bos: bool
    parse_special: bool
    # The budget: either a chunk size, or bounds within which the server chooses.
    chunk_size: int
    chunk_size_min: int
    chunk_size_max: int
    kv_bytes_max: int
    quality_loss_max: float
    quality_task: str
    # Sampling.
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    seed: int
    n: int
    # Stopping.
    max_tokens: int
    min_tokens: int
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    include_stop: bool
    # The rest.
    logprobs: int
    priority: int
    cache_salt: str
    bypass_prefix_cache: bool
    time_limit_ms: int


_PROMPT = {"add_bos", "parse_special"}
_AUTO = {"chunk_size_min", "chunk_size_max", "kv_bytes_max", "quality_loss_max", "quality_task"}
_SAMPLING = {"temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty",
             "frequency_penalty", "seed", "n"}
_STOPPING = {"max_tokens", "min_tokens", "ignore_eos", "include_stop"}


def prompt_from(prompt: str | Sequence[int]) -> pb.Prompt:
    """A prompt of text, or of token ids."""
    if isinstance(prompt, str):
        return pb.Prompt(text=prompt)
    return pb.Prompt(token_ids=pb.TokenIds(ids=prompt))


def generate_request(prompt: str | Sequence[int], options: GenerateOptions) -> pb.GenerateRequest:
    """Raises TypeError for an option that there is not or of another type, ValueError for a
    contradiction or a number that the contract's type cannot hold."""
    request = pb.GenerateRequest(prompt=prompt_from(prompt))
    if "chunk_size" in options and not _AUTO.isdisjoint(options):
        raise ValueError("give either chunk_size or bounds for the server to choose within")
    known = GenerateOptions.__annotations__
    for name, value in options.items():
        if name not in known:
            raise TypeError(f"there is no option {name!r}; there are {', '.join(sorted(known))}")
        try:
            _set(request, name, value)
        except TypeError as error:  # protobuf's own words leave the name out
            raise TypeError(f"{name}: {error}") from None
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return request


def _set(request: pb.GenerateRequest, name: str, value: Any) -> None:
    if name == "chunk_size":
        request.budget.chunk_size = value
    elif name in _AUTO:
        setattr(getattr(request.budget, "auto"), name, value)
    elif name in _PROMPT:
        setattr(request.prompt, name, value)
    elif name in _SAMPLING:
        setattr(request.sampling, name, value)
    elif name == "logit_bias":
        request.sampling.logit_bias.extend(
            pb.LogitBias(token_id=token, bias=bias) for token, bias in value.items())
    elif name == "stop":
        request.stopping.stop.extend([value] if isinstance(value, str) else value)
    elif name == "stop_token_ids":
        request.stopping.stop_token_ids.extend(value)
    elif name in _STOPPING:
        setattr(request.stopping, name, value)
    else:
        setattr(request, name, value)
