"""The chart's README table and the schema's part for the configuration file, made from their
sources: values.yaml and server/config.schema.json."""

import json
import re
import sys

import chart
import yaml

sys.path.insert(0, str(chart.ROOT / "tools"))
import make_dashboard  # noqa: E402

README = chart.CHART / "README.md"
SCHEMA = chart.CHART / "values.schema.json"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
# Keys of the configuration file that the chart writes itself.
OWN = {"tls", "access", "health", "plaintext_allowed"}


def described_values(text):
    """(path, default, description) of each value under a `# --` comment, in order."""
    values = yaml.safe_load(text)
    rows, parents, note = [], [], None
    for line in text.splitlines():
        comment = re.match(r"\s*# (-- )?(.*)$", line)
        key = re.match(r"( *)([A-Za-z_]\w*):", line)
        if comment:
            if comment[1]:
                note = comment[2]
            elif note is not None:
                note += " " + comment[2]
        elif key:
            parents = parents[: len(key[1]) // 2] + [key[2]]
            if note is not None:
                default = values
                for name in parents:
                    default = default[name]
                rows.append((".".join(parents), default, note))
            note = None
    return rows


def undocumented(values, documented, path=()):
    """Values that no row describes."""
    missing = []
    for key, value in values.items():
        here = (*path, key)
        if any(".".join(here[:n]) in documented for n in range(1, len(here) + 1)):
            continue
        if isinstance(value, dict) and value:
            missing += undocumented(value, documented, here)
        else:
            missing.append(".".join(here))
    return missing


def table(text):
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for path, default, note in described_values(text):
        rows.append(f"| `{path}` | `{json.dumps(default)}` | {note} |")
    return "\n".join(rows)


def readme():
    """The README with its table made anew."""
    text = README.read_text()
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{table((chart.CHART / 'values.yaml').read_text())}\n{END}" + \
        rest.split(END)[1]


def schema():
    """values.schema.json with `config` as the server's schema has it."""
    values = json.loads(SCHEMA.read_text())
    keys = json.loads((chart.ROOT / "server/config.schema.json").read_text())["properties"]
    values["properties"]["config"]["properties"] = {
        key: value for key, value in keys.items() if key not in OWN}
    return json.dumps(values, indent=2) + "\n"


def write():
    README.write_text(readme())
    SCHEMA.write_text(schema())
    (chart.CHART / "files/dashboard.json").write_text(make_dashboard.text())
    chart.loaded.cache_clear()
    for name, values in chart.value_sets().items():
        (chart.RENDERED / f"{name}.yaml").write_text(chart.rendered_set(name, values))


if __name__ == "__main__":
    write()
