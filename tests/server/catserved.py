"""A catserved of the build folder, on ports that the system chooses."""

import os
import pathlib
import signal
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/text"


def programs():
    """The folder of catserved and catctl."""
    return pathlib.Path(os.environ["CATSERVE_BUILD"]) / "server"


def make_secrets(folder):
    """Fills a folder: tls.crt, tls.key and ca.crt of localhost, tokens.yaml. The caller's token."""
    folder = pathlib.Path(folder)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=catserve",
                    "-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "tls.key",
                    "-out", folder / "tls.crt"], check=True, capture_output=True)
    (folder / "ca.crt").write_bytes((folder / "tls.crt").read_bytes())
    made = subprocess.run([programs() / "catctl", "token", "--owner=team-a",
                           f"--token_file={folder}/token"], check=True, capture_output=True)
    (folder / "tokens.yaml").write_bytes(made.stdout)
    return (folder / "token").read_text().strip()


class Server:
    """Runs until the end of the `with` block, then drains."""

    def __init__(self, *flags):
        self._flags = flags
        self._folder = tempfile.TemporaryDirectory()
        self._process = None

    def __enter__(self):
        folder = pathlib.Path(self._folder.name)
        with open(folder / "log", "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [programs() / "catserved", f"--model={MODEL}", "--listen_address=127.0.0.1:0",
                 "--metrics_address=127.0.0.1:0", f"--port_file={folder}/port", *self._flags],
                stderr=log)
        while not (folder / "port").exists() or not self._ready():
            if self._process.poll() is not None:
                raise RuntimeError((folder / "log").read_text())
            time.sleep(0.05)
        self.port = (folder / "port").read_text().strip()
        self.address = f"127.0.0.1:{self.port}"
        return self

    @property
    def metrics_address(self):
        """Where its metrics are read."""
        return f"127.0.0.1:{(pathlib.Path(self._folder.name) / 'port.metrics').read_text().strip()}"

    def _ready(self):
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics") as page:
            return b"\ncatserve_ready 1\n" in page.read()

    def pause(self):
        """Returns when every thread of it stands still: a signal alone may take its time."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def resume(self):
        """Ends a pause; does nothing where there is none."""
        self._process.send_signal(signal.SIGCONT)

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=60)
        self._folder.cleanup()
