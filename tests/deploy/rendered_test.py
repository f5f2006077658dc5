"""The sets of deploy/values: rendered as deploy/rendered says, valid for several Kubernetes."""

import collections
import importlib.metadata
import json
import pathlib
import unittest

import chart
import helm_python
import jsonschema
import kubernetes_validate
import yaml
from report import validated

# The oldest that the chart allows, one between, the newest that the validator knows.
KUBERNETES = ["1.31", "1.34", kubernetes_validate.latest_version().rsplit(".", 1)[0]]
CUSTOM = json.loads(pathlib.Path(__file__).with_name("custom_resources.schema.json").read_text())
VALIDATOR = f"kubernetes-validate {kubernetes_validate.__version__}, strict"


class RenderedSets(unittest.TestCase):
    def setUp(self):
        self.sets = chart.value_sets()
        self.assertGreaterEqual(len(self.sets), 8)

    def test_the_rendered_files_are_what_helm_renders(self):
        kept = {p.stem for p in chart.RENDERED.glob("*.yaml")}
        self.assertEqual(kept, set(self.sets))
        for name, values in self.sets.items():
            with self.subTest(set=name):
                self.assertEqual(
                    (chart.RENDERED / f"{name}.yaml").read_text(),
                    chart.rendered_set(name, values),
                    "if the change is meant: tools/check_deploy.sh --write, then read the diff")
        validated(f"{len(self.sets)} rendered sets as kept in deploy/rendered", chart.HELM)

    def test_every_object_fits_kubernetes_schemas(self):
        checked = collections.Counter()
        for name, values in self.sets.items():
            for item in chart.objects(values):
                if item["kind"] in CUSTOM["$defs"]:
                    continue
                for version in KUBERNETES:
                    with self.subTest(set=name, kind=item["kind"], version=version):
                        kubernetes_validate.validate(item, version, strict=True)
                        checked[version] += 1
        for version, count in checked.items():
            validated(f"{count} objects against Kubernetes {version}", VALIDATOR)

    def test_custom_resources_fit_what_their_references_say(self):
        seen = collections.Counter()
        for values in self.sets.values():
            for item in chart.objects(values):
                if item["kind"] in CUSTOM["$defs"]:
                    jsonschema.validate(item, {**CUSTOM, "$ref": f"#/$defs/{item['kind']}"})
                    seen[item["kind"]] += 1
        self.assertEqual(set(seen), set(CUSTOM["$defs"]), "some kind is in no set")
        validated(f"custom resources: {', '.join(sorted(seen))}",
                  "own schema (tests/deploy/custom_resources.schema.json), not their CRDs")

    def test_every_configuration_file_fits_the_servers_schema(self):
        schema = json.loads((chart.ROOT / "server/config.schema.json").read_text())
        files = [yaml.safe_load(item["data"]["catserve.yaml"])
                 for values in self.sets.values() for item in chart.objects(values)
                 if "catserve.yaml" in item.get("data", {})]
        self.assertEqual(len(files), len(self.sets))
        for file in files:
            jsonschema.validate(file, schema)
        validated(f"{len(files)} configuration files", "server/config.schema.json, jsonschema "
                  + importlib.metadata.version("jsonschema"))

    def test_the_validator_finds_a_misspelt_field(self):
        pod = chart.Release().find("Deployment")
        pod["spec"]["template"]["spec"]["terminationGraceSeconds"] = 3
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(pod, KUBERNETES[0], strict=True)

    def test_helm_lint_finds_nothing(self):
        for name, values in self.sets.items():
            with self.subTest(set=name):
                report = helm_python.lint(chart.CHART, values, strict=True)
                found = [m for m in report["messages"] if m["severity"] > 1]
                self.assertEqual(found + report["errors"], [])
        validated(f"lint of the chart with {len(self.sets)} sets", chart.HELM)


if __name__ == "__main__":
    unittest.main()
