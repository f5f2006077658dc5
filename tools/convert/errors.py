"""The one error that a person is meant to read."""


class ConversionError(Exception):
    """Names the file and what to do; shown without a traceback."""


def unreadable(path, error):
    """An OSError or a fault in a file's text, as one."""
    reason = getattr(error, "strerror", None) or error
    return ConversionError(f"{path}: cannot be read: {reason}")
