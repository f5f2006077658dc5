"""A release started on this machine: the chart's own arguments and configuration file make the real
server serve, its probes answer, and the Pod of `helm test` gets its text."""

import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import unittest

import chart
import grpc
import prometheus
from catserved import MODEL, make_secrets, programs
from report import validated

SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse{status: SERVING}


def health(address, service):
    """What a kubelet's gRPC probe does."""
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        return check(b"\x0a" + bytes([len(service)]) + service.encode(), wait_for_ready=True,
                     timeout=60)


class LocalRelease:
    """The Pod of a release as a process: mounts become folders, addresses loopback."""

    def __init__(self, release, folder, secrets):
        self._release = release
        self._folder = pathlib.Path(folder)
        self._health_port = prometheus.free_port()
        self._mounts = {"/etc/catserve/": f"{folder}/config/", "/model": str(MODEL), **secrets}
        self.health_address = f"127.0.0.1:{self._health_port}"

    def local(self, text):
        """A text of the Pod with its paths and addresses on this machine."""
        longest_first = sorted(self._mounts, key=len, reverse=True)
        text = re.sub("|".join(map(re.escape, longest_first)),
                      lambda found: self._mounts[found[0]], text)
        text = re.sub(r"0\.0\.0\.0:8501", self.health_address, text)
        return re.sub(r"0\.0\.0\.0:\d+", "127.0.0.1:0", text)

    def __enter__(self):
        config = self._folder / "config/catserve.yaml"
        config.parent.mkdir()
        config.write_text(self.local(
            self._release.find("ConfigMap")["data"]["catserve.yaml"]))
        arguments = [self.local(a) for a in self._release.container["args"]]
        with open(self._folder / "log", "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [programs() / "catserved", *arguments, f"--port_file={self._folder}/port"],
                stderr=log)
        while not (self._folder / "port").exists():
            if self._process.poll() is not None:
                raise RuntimeError((self._folder / "log").read_text())
            time.sleep(0.05)
        self.port = (self._folder / "port").read_text().strip()
        return self

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def helm_test(self, environment):
        """The exit code and text of the test's Pod."""
        container = self._release.find("Pod", "catserve-test")["spec"]["containers"][0]
        arguments = [self.local(re.sub(r"=.*svc:8500", f"=localhost:{self.port}", a))
                     for a in container["args"]]
        done = subprocess.run([programs() / "catctl", *arguments], text=True, capture_output=True,
                              env={**os.environ, **environment}, check=False)
        return done.returncode, done.stdout, done.stderr


class ReleaseServes(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(tempfile.TemporaryDirectory())

    def serve(self, values, secrets=None, environment=None):
        release = chart.Release(**values)
        with LocalRelease(release, self.folder, secrets or {}) as local:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                service = release.container[probe]["grpc"]["service"]
                while health(local.health_address, service) != SERVING:
                    time.sleep(0.05)
            code, text, error = local.helm_test(environment or {})
        self.assertEqual(code, 0, error)
        self.assertTrue(text.strip())

    def test_plaintext(self):
        self.serve({"resources": {"requests": {"cpu": "2"}}})
        validated("a release: arguments, configuration, probes, helm test", "catserved, catctl")

    def test_tls_and_tokens(self):
        secrets = pathlib.Path(self.folder) / "secrets"
        secrets.mkdir()
        token = make_secrets(secrets)
        self.serve({**chart.value_sets()["tls-tokens"],
                    "resources": {"requests": {"cpu": "2"}}},
                   {"/etc/catserve-tls": str(secrets), "/etc/catserve-tokens": str(secrets),
                    "/tls/": f"{secrets}/"}, {"CATSERVE_TOKEN": token})
        validated("a release with TLS and tokens", "catserved, catctl, openssl")


if __name__ == "__main__":
    unittest.main()
