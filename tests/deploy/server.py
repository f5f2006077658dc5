"""A catserved of the build folder, on ports that the system chooses."""

import os
import pathlib
import signal
import subprocess
import tempfile
import time

import chart

MODEL = chart.ROOT / "models/english-tiny"


class Server:
    """Runs until the end of the `with` block, then drains."""

    def __init__(self, *flags):
        self._flags = flags
        self._folder = tempfile.TemporaryDirectory()
        self._process = None

    def __enter__(self):
        folder = pathlib.Path(self._folder.name)
        programs = pathlib.Path(os.environ["CATSERVE_BUILD"]) / "server"
        with open(folder / "log", "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [programs / "catserved", f"--model={MODEL}", "--listen_address=127.0.0.1:0",
                 "--metrics_address=127.0.0.1:0", f"--port_file={folder}/port", *self._flags],
                stderr=log)
        while not (folder / "port").exists():
            if self._process.poll() is not None:
                raise RuntimeError((folder / "log").read_text())
            time.sleep(0.05)
        self.address = f"127.0.0.1:{(folder / 'port').read_text().strip()}"
        self.metrics_address = f"127.0.0.1:{(folder / 'port.metrics').read_text().strip()}"
        subprocess.run([programs / "catctl", "wait", f"--server={self.address}"], check=True)
        return self

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=60)
        self._folder.cleanup()
