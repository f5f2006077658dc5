"""Client of catserve: text from compressed-context language models, streamed, with the chunk size
as a dial on each request. `Client` blocks, `AsyncClient` is for asyncio; both have one interface.
"""

from catserve._channel import Tls
from catserve._retry import CatserveError, Retry
from catserve.aio import AsyncClient
from catserve.client import Client
from catserve.events import (
    BudgetChanged,
    ChoiceFinished,
    Completion,
    Event,
    Finished,
    FinishReason,
    Scores,
    Started,
    TokenInfo,
    Tokens,
    Usage,
)
from catserve.options import GenerateOptions

__all__ = [
    "AsyncClient",
    "BudgetChanged",
    "CatserveError",
    "ChoiceFinished",
    "Client",
    "Completion",
    "Event",
    "Finished",
    "FinishReason",
    "GenerateOptions",
    "Retry",
    "Scores",
    "Started",
    "Tls",
    "TokenInfo",
    "Tokens",
    "Usage",
]
