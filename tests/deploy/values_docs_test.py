"""Every value is described once, and the README and the schema follow their sources."""

import unittest

import chart
import values_docs
import yaml
from report import validated

REMEDY = "tools/check_deploy.sh --write makes it anew"


class Documentation(unittest.TestCase):
    def test_the_readme_lists_every_value(self):
        text = (chart.CHART / "values.yaml").read_text()
        rows = values_docs.described_values(text)
        missing = values_docs.undocumented(yaml.safe_load(text), {path for path, _, _ in rows})
        self.assertEqual(missing, [])
        self.assertEqual(values_docs.README.read_text(), values_docs.readme(), REMEDY)
        validated(f"README rows of {len(rows)} values", "own check against values.yaml")

    def test_the_schema_knows_the_configuration_file(self):
        self.assertEqual(values_docs.SCHEMA.read_text(), values_docs.schema(), REMEDY)
        validated("`config` in values.schema.json", "own check against server/config.schema.json")


class RowsAreRead(unittest.TestCase):
    def test_comments_of_several_lines_belong_to_the_next_value(self):
        text = "a:\n  # -- first\n  # line\n  b: 1\n  # no row\n  c: 2\n"
        self.assertEqual(values_docs.described_values(text), [("a.b", 1, "first line")])
        self.assertEqual(values_docs.undocumented(yaml.safe_load(text), {"a.b"}), ["a.c"])


if __name__ == "__main__":
    unittest.main()
