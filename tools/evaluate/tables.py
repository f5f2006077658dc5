"""Tables in Markdown, made of a model's card alone: each function takes the card, gives lines."""

import re

from evaluate import DENSE, card


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head),
            *("| " + " | ".join(row) + " |" for row in rows)]


def names(sizes):
    return [f"C = {size}" if size else "dense twin" for size in sizes]


def sizes_of(card_json):
    """Chunk sizes, and DENSE last where there is a twin."""
    known = card.figures(card_json["tasks"][0])
    return [size for size in known if size != DENSE] + [DENSE] * (DENSE in known)


def percent(fraction):
    return f"{100 * fraction:+.1f}%"


def median(spread, digits):
    """Median, and from lowest to highest."""
    return (f"{spread['median']:,.{digits}f} ({spread['low']:,.{digits}f}–"
            f"{spread['high']:,.{digits}f})")


def by_rows(card_json, label, rows, form):
    """A row for each of (what, column), a column for each chunk size and the twin."""
    sizes = sizes_of(card_json)
    return table([label, *names(sizes)],
                 [[what, *(form(card.figures(column)[size]) for size in sizes)]
                  for what, column in rows])


def training(card_json):
    """How large both models are, and what training took."""
    rows = []
    for name, model in ((card_json["name"], card_json), ("dense twin", card_json["dense_twin"])):
        run = model.get("training")
        if run is None:
            continue
        rows.append([name, f"{model['parameters']:,}", f"{run['tokens'] / 1e6:.2f} million",
                     f"{run['minutes']:.0f}", f"{run['peak_learning_rate']:g}"])
    return table(["model", "parameters", "tokens trained on", "minutes", "peak learning rate"],
                 rows)


def bits(card_json):
    """Bits per byte of each text, with the difference to the twin."""
    tasks = [task for task in card_json["tasks"] if task["better"] == "lower"]
    twins = [card.figures(task).get(DENSE) for task in tasks]
    head = ["chunk size"]
    for task in tasks:
        head += [task["measure"], "against the twin"]
    rows = []
    for size in sizes_of(card_json):
        row = [str(size) if size else "dense twin"]
        for task, twin in zip(tasks, twins):
            value = card.figures(task)[size]
            row += [f"{value:.4f}", percent(value / twin - 1) if twin and size else ""]
        rows.append(row)
    return table(head, rows)


def positions(card_json, task):
    return by_rows(card_json, "tokens of the context before", [
        (f"{row['from']}–{row['to'] - 1}", row) for row in card_json["positions"][task]],
        lambda value: f"{value:.3f}")


def heldout_positions(card_json):
    """Bits per byte of the held-out text by position."""
    return positions(card_json, "text")


def outside_positions(card_json):
    """Bits per byte of the outside text by position."""
    return positions(card_json, "wikitext2")


def chunk_starts(card_json):
    """The loss of chunks' first tokens beside the unigram level."""
    level = card_json["unigram_nll"]
    return table(
        ["chunk size", "first token of a chunk", "the twin at the same tokens", "unigram level",
         "below unigram"],
        [[str(row["chunk_size"]), f"{row['nats']:.3f}",
          "" if row["dense_twin_nats"] is None else f"{row['dense_twin_nats']:.3f}",
          f"{level:.3f}", f"{level - row['nats']:.3f}"] for row in card_json["chunk_starts"]])


def facts(card_json):
    """What a planted fact saves, by distance."""
    section = card_json["facts"]
    rows = [(str(row["distance"]), row) for row in section["rows"]]
    found = by_rows(card_json, "distance in tokens", rows, lambda value: f"{value:+.2f}")
    without = card.figures(section["without"])
    return [*found, "| *loss without the fact* | " + " | ".join(
        f"{without[size]:.2f}" for size in sizes_of(card_json)) + " |"]


def accuracy(card_json):
    """Recall by pairs."""
    tasks = sorted((t for t in card_json["tasks"] if t["better"] == "higher"),
                   key=lambda t: int(t["name"].split("_")[1]))
    return by_rows(card_json, "pairs", [(t["name"].split("_")[1], t) for t in tasks],
                   lambda value: f"{value:.3f}")


def distances(card_json):
    """Recall by how far back the pair is."""
    return by_rows(card_json, "distance in tokens", [
        (f"{row['from']}–{row['to'] - 1} ({row['questions']} questions)", row)
        for row in card_json["distances"]["rows"]], lambda value: f"{value:.3f}")


def cost(card_json):
    """Speed, wait and memory, each with the ratio to the twin of the same round."""
    section = card_json["cost"]
    head = ["", "KV bytes per token", "of the twin's", "tokens/s", "of the twin's",
            "first token, ms", "of the twin's", "processor ms", "of the twin's"]
    rows = []
    for row in [*section["rows"], *([section["dense_twin"]] if "dense_twin" in section else [])]:
        ratio = "kv_bytes_to_twin" in row
        rows.append([
            names([row.get("chunk_size", DENSE)])[0], f"{row['kv_bytes_per_token']:,.0f}",
            f"{row['kv_bytes_to_twin']:.2f}" if ratio else "",
            median(row["tokens_per_second"], 0),
            median(row["tokens_per_second_to_twin"], 2) if ratio else "",
            median(row["first_token_ms"], 1),
            median(row["first_token_to_twin"], 2) if ratio else "",
            median(row["processor_ms"], 1),
            median(row["processor_to_twin"], 2) if ratio else ""])
    return table(head, rows)


def made(card_json):
    """Where the figures come from: one sentence."""
    section, cost_of = card_json["evaluation"], card_json["cost"]
    machine = section["machine"]
    tokens = ", ".join(f"{count:,} ({name})" for name, count in section["tokens"].items())
    return [f"`{section['command']}`, {section['date']}, {machine['cpu']}, {machine['cores']} "
            f"cores shared with other work. Tokens measured: {tokens}. Cost: "
            f"{cost_of['rounds']} rounds, the models in turn, of {cost_of['prompt_tokens']} prompt "
            f"tokens and {cost_of['generated_tokens']} generated ones, servers of "
            f"{cost_of['threads']} worker thread; medians with lowest and highest."]


def kept(card_json):
    """What the server used under each bound, and what that loses on other data."""
    section, rows = card_json["bound"], []
    def listed(sizes):
        return ", ".join(map(str, sizes)) or "none"
    for row in section["rows"]:
        used = {*row["used_idle"], *row["used_pressed"]}
        inside = (used <= set(row["allowed"])
                  and row["worst_elsewhere"] <= row["quality_loss_max"])
        rows.append([f"{row['quality_loss_max']:g}", listed(row["allowed"]),
                     listed(row["used_idle"]),
                     f"{listed(row['used_pressed'])} ({row['changes_pressed']} changes)",
                     f"{row['worst_on_card']:.4f}", f"{row['worst_elsewhere']:.4f}",
                     "yes" if inside else "**no**"])
    return table(["`quality_loss_max`", "the card allows", "used when idle", "used under pressure",
                  "worst of these on the card", "worst on other data", "kept"], rows)


def other_loss(card_json):
    """The dial on the data of the bound's check, beside the card's."""
    task, other = card_json["tasks"][0], card_json["bound"]["other"]
    pairs = [(task["measure"], card.figures(task)), ("other data", card.figures(other))]
    fractions = [card.losses(figures, task["better"]) for _, figures in pairs]
    return table(
        ["chunk size", *(f for name, _ in pairs for f in (name, "loss"))],
        [[str(size), *(f for (_, figures), loss in zip(pairs, fractions)
                       for f in (f"{figures[size]:.4f}", f"{loss[size]:.4f}"))]
         for size in fractions[0]])


def escaped(text):
    """Text of a model, so that Markdown shows it as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", " ".join(text.split()))


def written(card_json):
    """What each chunk size made of the same beginnings."""
    lines = []
    for row in card_json["samples"]["rows"]:
        lines += ["", f"> {escaped(row['prompt'])} **…**", ""]
        lines += [f"* {names([text['chunk_size']])[0]}: {escaped(text['text'])}"
                  for text in row["texts"]]
    return lines[1:]


TABLES = {each.__name__: each for each in (
    training, bits, heldout_positions, outside_positions, chunk_starts, facts, accuracy,
    distances, cost, made, kept, other_loss, written)}
