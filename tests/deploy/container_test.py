"""The Dockerfile passes hadolint; its last stage is built by buildah and serves."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import chart
import container
from report import validated

DOCKERFILE = chart.ROOT / "Dockerfile"
HADOLINT = chart.ROOT / ".cache/deploy/venv/bin/hadolint"
DEBIAN = chart.ROOT / ".cache/deploy/debian"


def hadolint(text):
    done = subprocess.run([HADOLINT, "--format", "json", "-"], input=text, text=True,
                          capture_output=True, check=False)
    return [f"{f['line']}: {f['code']} {f['message']}" for f in json.loads(done.stdout)]


class Dockerfile(unittest.TestCase):
    def test_hadolint_finds_nothing(self):
        self.assertEqual(hadolint(DOCKERFILE.read_text()), [])
        self.assertIn("DL3002", " ".join(hadolint("FROM debian:12.12-slim\nUSER root\n")))
        done = subprocess.run([HADOLINT, "--version"], text=True, capture_output=True, check=True)
        validated("Dockerfile", done.stdout.strip())

    def test_bases_are_pinned_and_users_have_no_rights(self):
        text = DOCKERFILE.read_text()
        bases = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.M)
        self.assertEqual([name for _, name in bases], ["cuda-build", "cuda", "cpu-build", "cpu"])
        for base, _ in bases:
            self.assertRegex(base, r"^scratch$|:\d+\.\d+[\w.-]*$")
        self.assertEqual(text.count("USER 65532:65532\n"), 2)

    def test_the_builder_gets_what_the_build_reads(self):
        kept = re.findall(r"^!(\S+)$", (chart.ROOT / ".dockerignore").read_text(), re.M)
        for path in kept:
            self.assertTrue((chart.ROOT / path).exists(), path)
        self.assertNotIn("models", kept)


@unittest.skipUnless(os.geteuid() == 0, "building and running a container needs root here")
class CpuImage(unittest.TestCase):
    def test_it_is_built_and_serves(self):
        build = os.environ["CATSERVE_BUILD"]
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder)
            image_root = work / "image"
            subprocess.run([chart.ROOT / "tools/image_root.sh", build, image_root], check=True)
            size = sum(p.lstat().st_size for p in image_root.rglob("*") if p.is_file())
            (work / "Dockerfile").write_text(container.last_stage(DOCKERFILE.read_text()))
            buildah = container.Buildah(DEBIAN, work)
            buildah("bud", "--isolation", "chroot", "--format", "docker", "-t", "catserve:test",
                    "-f", work / "Dockerfile", image_root)
            config = json.loads(buildah("inspect", "--type", "image", "catserve:test"))
            config = config["Docker"]["config"]
            self.assertEqual(config["User"], container.USER)
            name = buildah("from", "catserve:test")
            try:
                result = container.run_in_namespaces(
                    buildah("mount", name), chart.ROOT / "models/text", config)
            finally:
                buildah("umount", name)
        self.assertEqual(result["health"], 0, result["log"])
        self.assertTrue(result["answer"], result)
        self.assertEqual(result["exit"], 0, result["log"])
        self.assertEqual(result["writable"], [])
        validated(f"CPU image ({size >> 20} MiB): built, healthy, answers, drains, writes nowhere",
                  f"buildah {buildah('version').split()[1]}, chroot in namespaces of its own")


if __name__ == "__main__":
    unittest.main()
