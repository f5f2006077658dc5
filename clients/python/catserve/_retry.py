"""When to try again. Only what was refused before it began is tried again; the server's own word on
when (`grpc-retry-pushback-ms`) goes before any policy here."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import grpc

PUSHBACK = "grpc-retry-pushback-ms"


class CatserveError(Exception):
    """A call that failed: its gRPC status code and the server's message."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


def error_from(error: grpc.RpcError, hint: str = "") -> CatserveError:
    """What callers see of a transport's error."""
    return CatserveError(error.code(), (error.details() or "") + hint)


@dataclass(frozen=True)
class Retry:
    """How often, and how long to wait where the server does not say."""

    attempts: int = 5
    first_wait_seconds: float = 0.1
    wait_seconds_max: float = 5.0


class Attempts:
    """The attempts of one call. `timeout` is for all of them together."""

    def __init__(self, retry: Retry, timeout: float | None) -> None:
        self._retry = retry
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._failed = 0

    def timeout(self) -> float | None:
        """Seconds that the next attempt may take; None: for ever."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - time.monotonic())

    def wait(self, error: grpc.RpcError) -> float | None:
        """Seconds to wait before the next attempt; None: `error` stands."""
        self._failed += 1
        if self._failed >= self._retry.attempts:
            return None
        seconds = self._seconds(error)
        left = self.timeout()
        if seconds is None or (left is not None and seconds >= left):
            return None
        return seconds

    def _seconds(self, error: grpc.RpcError) -> float | None:
        for key, value in error.trailing_metadata() or ():
            if key == PUSHBACK:
                # Negative or unreadable means, as everywhere in gRPC: do not come back.
                milliseconds = int(value) if str(value).isdecimal() else -1
                return milliseconds / 1000 if milliseconds >= 0 else None
        if error.code() != grpc.StatusCode.UNAVAILABLE:
            return None
        longest = min(self._retry.first_wait_seconds * 2 ** (self._failed - 1),
                      self._retry.wait_seconds_max)
        return random.uniform(longest / 2, longest)  # so that clients do not come back together
