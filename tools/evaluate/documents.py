"""The documents that show figures of cards: everything between `<!-- table MODEL NAME ... -->` and
`<!-- end table -->` is made by tables.NAME of models/MODEL/card.json; charts by charts.py."""

import re

from evaluate import ROOT, EvaluationError, card, charts, tables

MARKED = re.compile(r"(<!-- table ([\w-]+) (\w+)[^\n]*-->\n)(.*?)(<!-- end table -->)", re.S)


def paths():
    return [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")),
            *sorted(ROOT.glob("models/*/README.md"))]


def filled(text, cards):
    """`text` with every table as the cards have it."""
    def lines(found):
        model, name = found[2], found[3]
        if name not in tables.TABLES or model not in cards:
            raise EvaluationError(f"no table {name} of {model}; there are "
                                  f"{', '.join(tables.TABLES)} of {', '.join(cards)}")
        try:
            return "\n".join(["", *tables.TABLES[name](cards[model]), "", ""])
        except KeyError as missing:
            raise EvaluationError(f"models/{model}/card.json has no {missing} for table {name}: "
                                  f"run make evaluate MODEL=models/{model}") from missing
    return MARKED.sub(lambda found: found[1] + lines(found) + found[5], text)


def shipped_cards():
    return {path.parent.name: card.load(path.parent)
            for path in sorted(ROOT.glob("models/*/card.json"))}


def rendered():
    """{path: what it should hold} of documents and charts."""
    cards = shipped_cards()
    made = {path: filled(path.read_text(encoding="utf-8"), cards) for path in paths()}
    for name, drawing in charts.all_of(cards).items():
        made[ROOT / "docs/images" / f"{name}.svg"] = drawing.svg()
    return made


def render():
    for path, content in rendered().items():
        path.write_text(content, encoding="utf-8")


def differences():
    return [f"{path.relative_to(ROOT)} shows other figures than the cards"
            for path, content in rendered().items()
            if not path.is_file() or path.read_text(encoding="utf-8") != content]


def summary(card_json):
    """The dial of one model, to be read in a terminal."""
    return "\n".join(f"{task['name']:12} " + "  ".join(
        f"{name} {value:.4f}" for name, value in
        zip(tables.names(card.figures(task)), card.figures(task).values()))
        for task in card_json["tasks"])
