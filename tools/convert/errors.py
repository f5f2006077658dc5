"""The one error that a person is meant to read."""


class ConversionError(Exception):
    """Names the file and what to do; shown without a traceback."""
