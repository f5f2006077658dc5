#!/usr/bin/env python3
"""Where the time of a prefill and of a decode step goes, as SVG, from the output of step_profile.

    build/release/bench/step_profile >bench/results/profile/cat-1536.txt
    tools/plot_profile.py [PROFILE [IMAGE]]
"""

import pathlib
import re
import sys

from svg_drawing import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Drawing

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROFILE = ROOT / "bench" / "results" / "profile" / "cat-1536.txt"
IMAGE = ROOT / "docs" / "images" / "step_profile.svg"
PHASES = (("prefill", "the whole prefill"), ("decode", "one decode step"))
NAMES_WIDTH = 150  # of the column with the parts' names
ROW_MAX = 30


def parse(text):
    """The heading, and by phase {part: (seconds, floor seconds)} with "total" among the parts."""
    heading = text.splitlines()[0].removeprefix("# ")
    phases = {}
    for line in text.splitlines()[1:]:
        found = re.fullmatch(r"(\w+)\.([\w ]+)(?:\.(floor|median|high))?=(\S+) s", line)
        if not found:
            raise ValueError(f"expected PHASE.PART=SECONDS s, not {line!r}")
        phase, part, kind, seconds = found.groups()
        phases.setdefault(phase, {}).setdefault(part, {})[kind or "seconds"] = float(seconds)
    for parts in phases.values():
        parts["total"]["floor"] = sum(p["floor"] for name, p in parts.items() if name != "total")
    return heading, {phase: {name: (part["seconds"], part["floor"]) for name, part in parts.items()}
                     for phase, parts in phases.items()}


def milliseconds(seconds):
    return f"{seconds * 1e3:.3g} ms"


def draw_phase(page, left, right, title, parts):
    """One bar for each part, the slowest first; a mark where its floor is."""
    total, floor = parts["total"]
    page.text(left, TOP, f"{title}: {milliseconds(total)}, floor {milliseconds(floor)} "
              f"({floor / total:.0%})")
    rows = sorted(((n, p) for n, p in parts.items() if n != "total"), key=lambda row: -row[1][0])
    step = min(ROW_MAX, (HEIGHT - BOTTOM - TOP) / len(rows))
    start = left + NAMES_WIDTH
    scale = (right - start - 84) / max(max(p) for _, p in rows)
    for i, (name, (seconds, least)) in enumerate(rows):
        y = TOP + 14 + i * step
        width = max(seconds, 0) * scale
        page.text(start - 8, y + step / 2 + 2, name, "tick", "end")
        page.parts.append(f'<rect x="{start:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" '
                          f'height="{step - 8:.1f}" rx="2" fill="{COLOURS[0]}"/>')
        if least > 0:
            x = start + least * scale
            page.line(x, y - 2, x, y + step - 6, "mark", 'stroke-width="2"')
        page.text(start + max(seconds, least) * scale + 6, y + step / 2 + 2,
                  f"{milliseconds(seconds)}, {seconds / total:.0%}", "tick")


def draw(text):
    heading, phases = parse(text)
    model, machine = heading.split("; ", 1)
    page = Drawing(f"Where the time goes: {model}", machine)
    page.text(LEFT - 48, 64, "bars: time by part, the fastest of the runs · marks: its floor",
              "tick")
    middle = WIDTH / 2
    for (phase, title), (left, right) in zip(PHASES, ((LEFT - 48, middle - 8),
                                                      (middle + 8, WIDTH - RIGHT))):
        draw_phase(page, left, right, title, phases[phase])
    return page


def main():
    profile = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else PROFILE
    image = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else IMAGE
    draw(profile.read_text(encoding="utf-8")).save(image)


if __name__ == "__main__":
    main()
