"""What was validated with which tool: tests add lines, tools/check_deploy.py prints them last."""

_lines = []


def validated(what, tool):
    """Notes that `what` passed `tool` (with its version)."""
    if (what, tool) not in _lines:
        _lines.append((what, tool))


def lines():
    return list(_lines)
