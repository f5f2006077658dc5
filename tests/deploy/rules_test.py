"""The recording and alerting rules: checked and tested by promtool, each alert with a runbook."""

import pathlib
import re
import subprocess
import tempfile
import unittest

import chart
import prometheus
import yaml
from report import validated

RULES = chart.CHART / "files/rules.yaml"
STORIES = pathlib.Path(__file__).with_name("alerts.test.yaml")


def rules():
    return [r for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"]]


def alerts():
    return [rule for rule in rules() if "alert" in rule]


def promtool(*args):
    done = subprocess.run([prometheus.PROMTOOL, *args], text=True, capture_output=True, check=False)
    return done.returncode, done.stdout + done.stderr


class Rules(unittest.TestCase):
    def test_promtool_accepts_them(self):
        code, output = promtool("check", "rules", RULES)
        self.assertEqual(code, 0, output)
        found = re.search(r"(\d+ rules) found", output)
        validated(found[1], f"promtool {prometheus.version()} check rules")

    def test_each_alert_fires_when_it_must_and_only_then(self):
        stories = STORIES.read_text()
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "alerts.test.yaml"
            file.write_text(stories.replace("[RULES]", f"[{RULES}]"))
            code, output = promtool("test", "rules", file)
        self.assertEqual(code, 0, output)
        fired = {test["alertname"] for story in yaml.safe_load(stories)["tests"]
                 for test in story.get("alert_rule_test", []) if test.get("exp_alerts")}
        self.assertEqual(fired, {alert["alert"] for alert in alerts()})
        validated(f"unit tests of {len(fired)} alerts",
                  f"promtool {prometheus.version()} test rules")

    def test_each_alert_has_a_runbook(self):
        text = (chart.ROOT / "docs/runbooks.md").read_text()
        sections = {title.lower() for title in re.findall(r"^## (.*)$", text, re.M)}
        self.assertEqual(sections, {alert["alert"].lower() for alert in alerts()})
        for alert in alerts():
            page, _, section = alert["annotations"]["runbook_url"].partition("#")
            self.assertEqual((page, section), ("docs/runbooks.md", alert["alert"].lower()))

    def test_they_use_metrics_that_exist(self):
        used = prometheus.metrics_in(" ".join(rule["expr"] for rule in rules()))
        self.assertIn("catserve_inter_token_seconds_bucket", used)
        self.assertEqual(used - prometheus.documented_metrics(), set())


if __name__ == "__main__":
    unittest.main()
