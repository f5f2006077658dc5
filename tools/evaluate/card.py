"""models/NAME/card.json: what is known of a model, and what was measured of it. The server reads
`name`, `dense_twin`, `quality` and `tasks`; docs/quality.md and the READMEs are made from the rest.

A *column* is one figure for each chunk size with the dense twin's beside it:
{"values": [{"chunk_size": 4, "value": 1.65}, ...], "dense_twin": 1.54}
"""

import json
import os

from evaluate import DENSE, EvaluationError

DIGITS = 4
TOLERANCE = 1.5 * 10 ** -DIGITS  # what rounding leaves open
COLUMNS = 100
LEAST, LOSS_MOST = 1e-300, 1e6
# Sections that --check compares: what depends on the model and the text alone.
STEADY = ("parameters", "quality", "tasks", "positions", "chunk_starts", "facts", "distances")


def column(figures):
    """The column of {chunk size: figure}, DENSE standing for the twin."""
    made = {"values": [{"chunk_size": size, "value": round(float(figure), DIGITS)}
                       for size, figure in figures.items() if size != DENSE]}
    if DENSE in figures:
        made["dense_twin"] = round(float(figures[DENSE]), DIGITS)
    return made


def figures(made):
    """What `column` was made of."""
    found = {value["chunk_size"]: value["value"] for value in made["values"]}
    if "dense_twin" in made:
        found[DENSE] = made["dense_twin"]
    return found


def losses(known, better):
    """Of {chunk size: figure}: how much worse each is than the best, as a fraction of the best.
    Where the best is 0 any other loses LOSS_MOST, as in server/quality.cc."""
    known = {size: value for size, value in known.items() if size != DENSE}
    best = min(known.values()) if better == "lower" else max(known.values())
    return {size: min(LOSS_MOST, abs(value - best) / (best or LEAST))
            for size, value in known.items()}


def task(card, name):
    return next(each for each in card["tasks"] if each["name"] == name)


def load(directory):
    path = directory / "card.json"
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EvaluationError(f"{path} is no JSON ({error}): mend or remove it") from error
    if not isinstance(card, dict):
        raise EvaluationError(f"{path} must hold an object: mend or remove it")
    twin = card.get("dense_twin") or {}
    if not isinstance(twin, dict) or not isinstance(twin.get("path") or "", str):
        raise EvaluationError(f"{path}: dense_twin must be an object, its path a string: mend it")
    if not isinstance(card.get("quality") or [], list):
        raise EvaluationError(f"{path}: quality must be a list: mend or remove it")
    return card


def check_writable(directory):
    """Before hours of measuring, not after them."""
    card = directory / "card.json"
    if not os.access(directory, os.W_OK) or card.exists() and not os.access(card, os.W_OK):
        raise EvaluationError(f"{card} cannot be written: copy the model to where you may write")


def pretty(value, indent=0):
    """JSON with whatever fits on a line on one line."""
    flat = json.dumps(value, ensure_ascii=False)
    if indent + len(flat) < COLUMNS or not isinstance(value, (dict, list)) or not value:
        return flat
    pad = " " * (indent + 1)
    if isinstance(value, list):
        inner = [pad + pretty(each, indent + 1) for each in value]
    else:
        inner = [f"{pad}{json.dumps(key)}: {pretty(each, indent + 1)}"
                 for key, each in value.items()]
    opening, closing = "[]" if isinstance(value, list) else "{}"
    return opening + "\n" + ",\n".join(inner) + "\n" + " " * indent + closing


def save(directory, card):
    """The card appears whole or stays as it was; what a server could not read is not written."""
    try:
        json.dumps(card, allow_nan=False)
    except ValueError:
        raise EvaluationError("something measured is no finite number: is the text long enough? "
                              "Give another as TEXT=file") from None
    partial = directory / ".card.json.part"
    try:
        partial.write_text(pretty(card) + "\n", encoding="utf-8")
        partial.replace(directory / "card.json")
    except OSError as error:
        raise EvaluationError(f"{directory}/card.json cannot be written ({error.strerror}); it is "
                              "as it was") from error
    finally:
        partial.unlink(missing_ok=True)


def merged_rows(old, new):
    """Rows of chunk sizes: what `old` says of a size beside what `new` says of it."""
    known = {row.get("chunk_size"): row for row in old if isinstance(row, dict)}
    return [{**known.get(row["chunk_size"], {}), **row} for row in new]


def merged(old, new):
    """The card with everything measured put in place; what training wrote beside it stays."""
    card = {**old, **new}
    if "quality" in new:
        card["quality"] = merged_rows(old.get("quality") or [], new["quality"])
    if "dense_twin" in new:
        card["dense_twin"] = {**(old.get("dense_twin") or {}), **new["dense_twin"]}
    return card


def differences(card, measured, path=""):
    """Where a card says something else than what was measured: 'path: card, measured'."""
    if isinstance(measured, dict):
        keys = measured if path else [key for key in STEADY if key in measured]
        known = card if isinstance(card, dict) else {}
        return [d for key in keys
                for d in differences(known.get(key), measured[key], f"{path}.{key}".strip("."))]
    if isinstance(measured, list):
        known = card if isinstance(card, list) else []
        if len(known) != len(measured):
            return [f"{path}: {len(known)} rows, {len(measured)} measured"]
        return [d for i, (a, b) in enumerate(zip(known, measured))
                for d in differences(a, b, f"{path}[{i}]")]
    if isinstance(measured, float) and isinstance(card, (int, float)):
        return [] if abs(card - measured) <= TOLERANCE else [f"{path}: {card}, {measured}"]
    return [] if card == measured else [f"{path}: {card!r}, {measured!r}"]
