"""What all charts of this repository have in common: a page as SVG that reads well in light and in
dark, without any dependency."""

import html
import math

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 84, 56  # margins of a plot
# Told apart by eyes that see few colours (Okabe and Ito), on white and on black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; }
.sub, .tick { fill: #59636e; font-size: 12px; }
.page { fill: #ffffff; }
.axis { stroke: #59636e; } .grid { stroke: #d1d9e0; } .mark { stroke: #1f2328; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; } .sub, .tick { fill: #9198a1; }
  .page { fill: #0d1117; }
  .axis { stroke: #9198a1; } .grid { stroke: #3d444d; } .mark { stroke: #f0f6fc; }
}
</style>"""


def nice_step(top, ticks=5):
    """A step of 1, 2 or 5 times a power of ten that cuts 0 to `top` into about `ticks`."""
    raw = max(top, 1e-9) / ticks
    power = 10 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)


def number(value):
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


class Drawing:
    """A page with its title; what is drawn is kept in `parts` until it is saved."""

    def __init__(self, title, subtitle):
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}" role="img">',
            f"<title>{html.escape(title)}</title>", STYLE,
            f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" class="page"/>']
        self.text(LEFT - 48, 24, title, "title")
        self.text(LEFT - 48, 44, subtitle, "sub")

    def text(self, x, y, text, kind="", anchor="start"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">'
                          f"{html.escape(text)}</text>")

    def upright(self, x, y, text):
        """Text that reads from below, its middle at (x, y)."""
        self.parts.append(
            f'<text class="tick" text-anchor="middle" transform="translate({x} {y}) '
            f'rotate(-90)">{html.escape(text)}</text>')

    def line(self, x1, y1, x2, y2, kind, extra=""):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
                          f'class="{kind}" {extra}/>')

    def curve(self, points, colour, dashed=False):
        """A line through (x, y) pairs with a dot at each."""
        through = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{through}" fill="none" stroke="{colour}" '
                          f'stroke-width="2.5"' + (' stroke-dasharray="6 4"' if dashed else "")
                          + "/>")
        self.parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'
                       for x, y in points]

    def legend(self, entries):
        """(name, colour, dashed) in one row under the subtitle."""
        x = LEFT
        for name, colour, dashed in entries:
            self.line(x, 63, x + 20, 63, "", f'stroke="{colour}" stroke-width="3"'
                      + (' stroke-dasharray="5 3"' if dashed else ""))
            self.text(x + 26, 67, name, "tick")
            x += 44 + 7 * len(name)

    def svg(self):
        return "\n".join([*self.parts, "</svg>"]) + "\n"

    def save(self, path):
        path.write_text(self.svg(), encoding="utf-8")
        print(path)
