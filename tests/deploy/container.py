"""Builds the Dockerfile's last stage with buildah from the programs built here, and runs it.

No base image can be fetched here, and none is needed: that stage starts from nothing and holds what
tools/image_root.sh gathers, the same script that the Dockerfile's build stage runs. Needs root.
"""

import fcntl
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import time

USER = "65532:65532"


class Buildah:
    """Debian's buildah with a store of its own in `work`."""

    def __init__(self, debian, work):
        self._program = debian / "usr/bin/buildah"
        self._store = ["--root", str(work / "store"), "--runroot", str(work / "run"),
                       "--storage-driver", "vfs"]
        self._environment = {**os.environ, "CONTAINERS_REGISTRIES_CONF":
                             str(debian / "etc/containers/registries.conf"),
                             "LD_LIBRARY_PATH": str(debian / "usr/lib/x86_64-linux-gnu")}
        self._policy = str(debian / "etc/containers/policy.json")

    def __call__(self, command, *args):
        """Its standard output; raises with its standard error."""
        policy = ["--signature-policy", self._policy] if command in ("bud", "from") else []
        done = subprocess.run([self._program, *self._store, command, *policy, *map(str, args)],
                              env=self._environment, text=True, capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"buildah {command}: {done.stderr}")
        return done.stdout.strip()


def last_stage(dockerfile):
    """The stage `cpu` alone, its contents copied from the build's context."""
    stage = dockerfile[dockerfile.index("FROM scratch AS cpu\n"):]
    alone = stage.replace("COPY --from=cpu-build /image/ /", "COPY . /")
    if alone == stage:
        raise ValueError("the stage cpu copies nothing from cpu-build")
    return alone


def run_in_namespaces(root, model, config):
    """Starts the container's command as its user, in namespaces of its own, and calls it.

    Returns what happened: health code and answer of a generate, exit code after SIGTERM.
    """
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child",
         sys.executable, __file__, str(root), str(model)],
        input=json.dumps(config), text=True, capture_output=True, timeout=120, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the container did not run: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def _prepare(root, model):
    """The root read-only, the model at /model, the loopback interface up."""
    for args in (["--bind", root, root], ["--bind", "-o", "ro", model, f"{root}/model"],
                 ["-t", "proc", "proc", f"{root}/proc"], ["-o", "remount,bind,ro", root]):
        subprocess.run(["mount", *args], check=True)
    with socket.socket() as any_socket:
        get_flags, set_flags, up = 0x8913, 0x8914, 1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
        request = fcntl.ioctl(any_socket, get_flags, struct.pack("16sH14x", b"lo", 0))
        flags = struct.unpack("16sH14x", request)[1] | up
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sH14x", b"lo", flags))


def _main(root, model):
    config = json.load(sys.stdin)
    _prepare(root, model)
    chroot = ["chroot", f"--userspec={USER}", root]
    starts = subprocess.run(chroot + ["/usr/bin/catctl", "help"], stdout=subprocess.DEVNULL,
                           check=False)
    if starts.returncode != 0:
        sys.exit("catctl does not start: is a library missing?")
    server = subprocess.Popen(chroot + config["Entrypoint"] + config["Cmd"],
                              stderr=subprocess.PIPE, text=True)
    check = chroot + config["Healthcheck"]["Test"][1:]
    for _ in range(60):
        health = subprocess.run(check, capture_output=True, check=False).returncode
        if health == 0 or server.poll() is not None:
            break
        time.sleep(0.2)
    answer = subprocess.run(
        chroot + ["/usr/bin/catctl", "generate", "--seed=7", "--max_tokens=8", "In the beginning"],
        text=True, capture_output=True, check=False)
    writable = [p for p in ("/", "/etc", "/tmp", "/model") if os.access(root + p, os.W_OK)]
    server.send_signal(signal.SIGTERM)
    _, log = server.communicate(timeout=60)
    print(json.dumps({"health": health, "answer": answer.stdout, "error": answer.stderr,
                      "exit": server.returncode, "writable": writable, "log": log}))


if __name__ == "__main__":
    _main(str(pathlib.Path(sys.argv[1])), str(pathlib.Path(sys.argv[2])))
