"""Quality and cost of models at every chunk size, measured through the running server."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
DENSE = 0  # where a chunk size stands, a model without any


class EvaluationError(Exception):
    """Something that the caller can mend; the message says how."""
