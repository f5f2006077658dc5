"""Charts of docs/quality.md and the README, made of the cards alone."""

import math

from evaluate import DENSE, card, tables
from svg_drawing import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Drawing, nice_step, number

TWIN_COLOUR = COLOURS[1]
GAP = 84  # between two plots on a page


class Plot:
    """One plot on a drawing, from `left` to `right`: x grows by factors, y evenly."""

    def __init__(self, drawing, left, right):
        self.drawing, self.left, self.right = drawing, left, right

    def axes(self, x_ticks, y_range, labels):
        """`labels`: of x and of y."""
        low, high = y_range
        step = nice_step(high - low)
        self.x_low, self.x_high = (math.log(end) for end in (min(x_ticks), max(x_ticks)))
        self.y_low, self.y_high = step * math.floor(low / step), step * math.ceil(high / step)
        for i in range(round((self.y_high - self.y_low) / step) + 1):
            value = self.y_low + i * step
            y = self.y(value)
            self.drawing.line(self.left, y, self.right, y, "grid" if i else "axis")
            self.drawing.text(self.left - 8, y + 4, number(round(value, 6)), "tick", "end")
        for tick in x_ticks:
            self.drawing.line(self.x(tick), HEIGHT - BOTTOM, self.x(tick), HEIGHT - BOTTOM + 4,
                              "axis")
            self.drawing.text(self.x(tick), HEIGHT - BOTTOM + 18, number(tick), "tick", "middle")
        self.drawing.text((self.left + self.right) / 2, HEIGHT - 14, labels[0], "tick", "middle")
        self.drawing.upright(self.left - 48, (TOP + HEIGHT - BOTTOM) / 2, labels[1])

    def x(self, value):
        share = (math.log(value) - self.x_low) / (self.x_high - self.x_low)
        return self.left + 12 + (self.right - self.left - 24) * share

    def y(self, value):
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share

    def curve(self, points, colour, dashed=False):
        self.drawing.curve([(self.x(x), self.y(y)) for x, y in points], colour, dashed)

    def name(self, x, y, text):
        """Below a point: to its right, where there is room."""
        room = self.right - self.x(x) > 30
        self.drawing.text(self.x(x) + (6 if room else 12), self.y(y) + 16, text, "tick",
                          "start" if room else "end")


def doubling(low, high):
    """Powers of two from below `low` to above `high`."""
    return [2 ** i for i in range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)]


def machine_line(card_json):
    section = card_json["evaluation"]
    return (f"measured through the running server, {section['date']}, "
            f"{section['machine']['cpu']}")


def trade_off(cards):
    """Quality against KV bytes per token: text on the left, recall on the right."""
    drawing = Drawing("What a smaller context costs: quality against KV memory",
                      machine_line(cards["text"]) + "; every point is a chunk size of one model")
    middle = (LEFT + WIDTH - RIGHT) / 2
    places = (("text", "text", LEFT, middle - GAP / 2),
              ("recall", "recall_16", middle + GAP / 2, WIDTH - RIGHT))
    for model, task_name, left, right in places:
        one_trade_off(drawing, cards[model], card.task(cards[model], task_name), (left, right))
    drawing.legend([("CAT, by chunk size C", COLOURS[0], False),
                    ("its dense twin", TWIN_COLOUR, True)])
    return drawing


def one_trade_off(drawing, card_json, task, box):
    values, cost = card.figures(task), card_json["cost"]
    bytes_of = {row["chunk_size"]: row["kv_bytes_per_token"] for row in cost["rows"]}
    if DENSE in values:
        bytes_of[DENSE] = cost["dense_twin"]["kv_bytes_per_token"]
    low, high = min(values.values()), max(values.values())
    span = max(high - low, 0.01)
    y_range = (0, 1) if task["better"] == "higher" else (low - 0.1 * span, high + 0.2 * span)
    plot = Plot(drawing, *box)
    plot.axes(doubling(min(bytes_of.values()), max(bytes_of.values())), y_range,
              ("KV bytes per token (peak of a full context)", task["measure"]))
    points = sorted((bytes_of[size], value, size) for size, value in values.items())
    plot.curve([(x, y) for x, y, size in points if size], COLOURS[0])
    for x, y, size in points:
        if size == DENSE:
            plot.curve([(x, y)], TWIN_COLOUR)
        plot.name(x, y, f"C = {size}" if size else "dense")


def lines(card_json, rows, drawing, labels):
    """A line for each chunk size and the twin over `rows`: (x, column)."""
    plot = Plot(drawing, LEFT, WIDTH - RIGHT)
    values = [value for _, column in rows for value in card.figures(column).values()]
    whole = max(values) <= 1
    plot.axes([x for x, _ in rows], (0, 1) if whole else (min(values), max(values)), labels)
    entries = []
    for size, colour in zip(tables.sizes_of(card_json), (COLOURS[0], *COLOURS[2:], COLOURS[1])):
        colour = TWIN_COLOUR if size == DENSE else colour
        plot.curve([(x, card.figures(column)[size]) for x, column in rows], colour, size == DENSE)
        entries.append((tables.names([size])[0], colour, size == DENSE))
    drawing.legend(entries)
    return drawing


def positions(card_json):
    rows = [(row["to"], row) for row in card_json["positions"]["wikitext2"]]
    return lines(card_json, rows,
                 Drawing("Bits per byte by position in the context, text from outside",
                         machine_line(card_json)),
                 ("position in the context, up to this token", "bits per byte"))


def recall(card_json):
    tasks = sorted((int(t["name"].split("_")[1]), t) for t in card_json["tasks"])
    return lines(card_json, tasks,
                 Drawing("Associative recall: the share of values found, by pairs shown",
                         machine_line(card_json)),
                 ("pairs of key and value in 256 tokens", "accuracy"))


def all_of(cards):
    """{name of the image: drawing} of what the cards have."""
    made = {}
    if "text" in cards:
        made["quality_positions"] = positions(cards["text"])
    if "recall" in cards:
        made["quality_recall"] = recall(cards["recall"])
    if "text" in cards and "recall" in cards:
        made["quality_tradeoff"] = trade_off(cards)
    return made
