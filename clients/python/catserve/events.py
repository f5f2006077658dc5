"""What a stream tells, as plain values."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from catserve.v1 import generation_pb2 as pb


class FinishReason(enum.Enum):
    """Why a choice ended."""

    STOP = pb.FINISH_REASON_STOP
    LENGTH = pb.FINISH_REASON_LENGTH
    TIME_LIMIT = pb.FINISH_REASON_TIME_LIMIT
    ABORTED = pb.FINISH_REASON_ABORTED
    KV_LIMIT = pb.FINISH_REASON_KV_LIMIT


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A token's natural log-probability, and the likeliest tokens with theirs if asked for."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """The request was accepted; always first."""

    request_id: str
    prompt_tokens: int
    cached_tokens: int
    chunk_size: int  # 0 for a dense model
    seed: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """New tokens of a choice. The text is whole characters and may lag behind the ids."""

    choice: int
    token_ids: tuple[int, ...]
    text: str
    info: tuple[TokenInfo, ...] = ()  # one for each id, if log-probabilities were asked for


@dataclass(frozen=True, slots=True)
class BudgetChanged:
    """The server changed the chunk size; tokens already sent stand."""

    from_chunk_size: int
    to_chunk_size: int
    at_token: int


@dataclass(frozen=True, slots=True)
class ChoiceFinished:
    """A choice ended."""

    choice: int
    reason: FinishReason
    generated_tokens: int
    stop: str | None = None
    stop_token_id: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost."""

    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    chunk_size: int
    chunks_compressed: int
    kv_bytes_peak: int
    kv_bytes_dense_twin: int
    kv_bytes_dense_same_width: int
    queued_seconds: float
    prefill_seconds: float
    decode_seconds: float
    budget_changes: tuple[BudgetChanged, ...]
    preemptions: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event: why, and what it cost."""

    reason: FinishReason
    usage: Usage


Event = Started | Tokens | BudgetChanged | ChoiceFinished | Finished


@dataclass(slots=True)
class Completion:
    """A whole answer: the text of each choice, why each ended, and the usage."""

    texts: list[str] = field(default_factory=list)
    reasons: list[FinishReason] = field(default_factory=list)
    usage: Usage | None = None

    def add(self, event: Event) -> None:
        """Takes the next event of the stream."""
        if isinstance(event, (Tokens, ChoiceFinished)):
            missing = event.choice + 1 - len(self.texts)
            self.texts += [""] * missing
            self.reasons += [FinishReason.ABORTED] * missing
        if isinstance(event, Tokens):
            self.texts[event.choice] += event.text
        elif isinstance(event, ChoiceFinished):
            self.reasons[event.choice] = event.reason
        elif isinstance(event, Finished):
            self.usage = event.usage

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.texts[0] if self.texts else ""


@dataclass(slots=True)
class Scores:
    """Log-probabilities of a text's tokens, from its second on."""

    tokens: list[TokenInfo] = field(default_factory=list)
    sum_logprob: float = 0.0
    scored_bytes: int = 0
    usage: Usage | None = None

    def add(self, response: pb.ScoreResponse) -> None:
        """Takes the next message of the stream."""
        kind = response.WhichOneof("event")
        if kind == "scores":
            self.tokens += map(_token_info, response.scores.tokens)
        elif kind == "finished":
            self.sum_logprob = response.finished.sum_logprob
            self.scored_bytes = response.finished.scored_bytes
            self.usage = _usage(response.finished.usage)


def _token_info(info: pb.TokenInfo) -> TokenInfo:
    top = tuple((t.token_id, t.logprob) for t in info.top)
    return TokenInfo(info.token_id, info.logprob, top)


def _budget_changed(change: pb.BudgetChanged) -> BudgetChanged:
    return BudgetChanged(change.from_chunk_size, change.to_chunk_size, change.at_token)


def _usage(usage: pb.Usage) -> Usage:
    plain = {name: getattr(usage, name) for name in Usage.__dataclass_fields__
             if name != "budget_changes"}
    return Usage(budget_changes=tuple(map(_budget_changed, usage.budget_changes)), **plain)


def _tokens(tokens: pb.Tokens) -> Tokens:
    return Tokens(tokens.choice_index, tuple(tokens.token_ids), tokens.text,
                  tuple(map(_token_info, tokens.info)))


def _choice_finished(end: pb.ChoiceFinished) -> ChoiceFinished:
    return ChoiceFinished(
        end.choice_index, FinishReason(end.reason), end.generated_tokens,
        end.stop if end.HasField("stop") else None,
        end.stop_token_id if end.HasField("stop_token_id") else None)


def event_from(response: pb.GenerateResponse) -> Event | None:
    """The event of a message; None for one that a newer server added."""
    kind = response.WhichOneof("event")
    if kind == "started":
        s = response.started
        return Started(s.request_id, s.prompt_tokens, s.cached_tokens, s.chunk_size, s.seed)
    if kind == "tokens":
        return _tokens(response.tokens)
    if kind == "budget_changed":
        return _budget_changed(response.budget_changed)
    if kind == "choice_finished":
        return _choice_finished(response.choice_finished)
    if kind == "finished":
        return Finished(FinishReason(response.finished.reason), _usage(response.finished.usage))
    return None
