"""`make image-test`: build the Dockerfile as it is, twice to the same image, and run that until an example is Ready.

No container daemon: buildah builds with chroot isolation, and crun runs the image as the chart's Deployment would: its
arguments, user 65532, a read-only root, no capabilities, a token of the chart's service account. The rest of the
cluster is the development control plane. Everything is removed at the end, also after Ctrl-C.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tools.image import build_arguments, origin
from tools.image_test.base import ensure_base, named_base
from tools.image_test.bundle import SERVICE_ACCOUNT, bundle
from tools.image_test.programs import BUILDAH, CRUN, Buildah, Crun, ImageTestError, check

from energylens_dev import devcluster
from energylens_dev.devcluster import DevClusterError, Interrupted, Kubectl, StreamProgress, eventually
from energylens_dev.devcluster.folders import user_folder
from energylens_dev.devcluster.interrupts import deferred, raising
from energylens_dev.devcluster.ports import LOOPBACK, free_port

ROOT = Path(__file__).resolve().parents[2]
TAG = "energylens:image-test"
EXAMPLE, NAME = ROOT / "examples" / "llama-3.1-70b.yaml", "llama-3-1-70b"
NAMESPACE, RELEASE, LEASE = "energylens-system", "energylens", "energylens-operator"
POD = "energylens-image-test"
BUILD_SECONDS, READY_SECONDS, STOP_SECONDS = 1800.0, 180.0, 20.0

_start = time.monotonic()


def say(text: str) -> None:
    """Print one line at once."""
    sys.stdout.write(f"[{time.monotonic() - _start:6.1f} s] {text}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the test; return the exit code."""
    work = Path(tempfile.mkdtemp(prefix="energylens-image-test-"))
    buildah = Buildah(work / "storage")
    try:
        check((BUILDAH, CRUN))
        with raising():
            image = build(buildah)
            with cluster(work) as (found, kubectl):
                operate(Mounted(buildah, image, work), found, kubectl)
        say("passed")
        return 0
    except (ImageTestError, DevClusterError, devcluster.KubectlError, AssertionError) as error:
        sys.stderr.write(f"image-test: {error}\n")
        return 1
    except Interrupted as error:
        sys.stderr.write(f"image-test: {error}\n")
        return 130
    finally:
        with deferred():
            buildah.remove()
            shutil.rmtree(work, ignore_errors=True)


def build(buildah: Buildah) -> str:
    """Build the image and return its id."""
    cache = user_folder(os.environ, "XDG_CACHE_HOME", ".cache") / "energylens" / "image-base"
    base = ensure_base(buildah, named_base(ROOT / "Dockerfile"), cache, say)
    say(f"base: {base}")
    images = [_built(buildah) for _ in range(2)]
    if len(set(images)) != 1:
        raise ImageTestError(f"two builds of one commit gave two images: {', '.join(images)}")
    say(f"built {TAG} twice, both {images[0][:12]}")
    return TAG


def _built(buildah: Buildah) -> str:
    """Build the Dockerfile and return the image's id, a digest of its layers and settings."""
    arguments = build_arguments("buildah", TAG, origin(ROOT))
    buildah.run(*arguments[:-1], "--isolation=chroot", "--pull-never", "--quiet", *_handed_in(), arguments[-1],
                seconds=BUILD_SECONDS, cwd=ROOT)  # fmt: skip
    return str(json.loads(buildah.run("inspect", "--type=image", TAG))["FromImageID"])


def _handed_in() -> list[str]:
    """Return what this machine needs to reach its package registry: an authority of its own, pip's configuration."""
    bundle_file = os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt"
    files = {"/etc/ssl/certs/ca-certificates.crt": Path(bundle_file), "/etc/pip.conf": Path("/etc/pip.conf")}
    return [f"--volume={source}:{path}:ro" for path, source in files.items() if source.is_file()]


@contextmanager
def cluster(work: Path) -> Iterator[tuple[devcluster.RunningCluster, Kubectl]]:
    """Run a control plane with the chart, and without an operator."""
    try:
        found = devcluster.up(
            work / "cluster", pods=devcluster.PodStages.FAST, operator=False, progress=StreamProgress(sys.stdout)
        )
        yield found, Kubectl(found.kubectl, found.kubeconfig, work / "kubectl")
    finally:
        devcluster.down(work / "cluster", purge=True)


@dataclass(frozen=True)
class Mounted:
    """A built image, and where to run it."""

    buildah: Buildah
    name: str
    work: Path

    def rootfs(self) -> Path:
        """Mount the image and return where."""
        return Path(self.buildah.run("mount", self.buildah.run("from", "--pull-never", self.name)))

    def config(self) -> dict[str, Any]:
        """Return the image's config."""
        found: dict[str, Any] = json.loads(self.buildah.run("inspect", "--type=image", self.name))["OCIv1"]["config"]
        return found


def operate(image: Mounted, found: devcluster.RunningCluster, kubectl: Kubectl) -> None:
    """Run the operator's image until the example is Ready, then stop it."""
    own = kubectl.within(NAMESPACE)
    deployment = own.get("deployment", RELEASE)
    if deployment is None:
        raise ImageTestError(f"the chart has no Deployment {RELEASE}")
    pod = deployment["spec"]["template"]["spec"]
    port, rootfs = free_port(), image.rootfs()
    files = _files(image.work, found, own, pod["serviceAccountName"])
    server = str(yaml.safe_load(found.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
    host, _, api_port = server.removeprefix("https://").rpartition(":")
    spec = bundle(
        image.config(),
        pod,
        rootfs,
        metrics_port=port,
        fields={"metadata.name": POD, "metadata.namespace": NAMESPACE},
        environment={"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": api_port},
        folders=files,
    )
    folder = image.work / "bundle"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(spec))
    log = image.work / "operator.log"
    crun = Crun(image.work / "crun")
    command = crun.command("run", "--bundle", str(folder), POD)
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL) as process:
        try:
            _follow(process, crun, kubectl, port)
        except BaseException:
            sys.stderr.write(log.read_text(errors="replace"))
            raise
        finally:
            with deferred():
                crun.remove(POD)
                process.wait()


def _follow(process: subprocess.Popen[bytes], crun: Crun, kubectl: Kubectl, port: int) -> None:
    def ready() -> bool:
        if process.poll() is not None:
            raise ImageTestError(f"the operator ended with code {process.returncode}; its log is above")
        return _readiness(port) == "200 ok"

    eventually(ready, READY_SECONDS)
    pid = json.loads(crun.run("state", POD))["pid"]
    facts = _facts(int(pid))
    say(f"ready as user {facts['user']}, capabilities {facts['capabilities']}, root {facts['root']}")
    expected = {"user": "65532", "capabilities": "0000000000000000", "root": "ro"}
    wrong = {name: facts[name] for name in expected if facts[name] != expected[name]}
    if wrong:
        raise ImageTestError(f"expected {expected}, got {wrong}")
    lease = kubectl.within(NAMESPACE).get("lease", LEASE) or {"spec": {}}
    if lease["spec"].get("holderIdentity") != POD:
        raise ImageTestError(f"the lease is held by {lease['spec'].get('holderIdentity')!r}, not by {POD}")
    kubectl.run("apply", "-f", str(EXAMPLE))
    kubectl.run(
        "wait", f"llmd/{NAME}", "--for=condition=Ready", f"--timeout={READY_SECONDS:.0f}s", timeout=READY_SECONDS
    )
    for line in kubectl.run("get", "llmd", NAME).splitlines():
        say(line.rstrip())
    say(f"{_facts(int(pid))['resident']} resident")
    began = time.monotonic()
    crun.run("kill", POD, "TERM")
    try:
        code = process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ImageTestError(f"SIGTERM did not end the operator within {STOP_SECONDS:.0f} s") from error
    say(f"SIGTERM ended it after {time.monotonic() - began:.1f} s with code {code}")
    if code != 0:
        raise ImageTestError(f"SIGTERM ended the operator with code {code}")


def _files(work: Path, found: devcluster.RunningCluster, kubectl: Kubectl, account: str) -> dict[str, Path]:
    """Write what the kubelet would mount; return the folders by their paths in the pod."""
    token, settings = work / "token", work / "settings"
    user = yaml.safe_load(found.kubeconfig.read_text())["clusters"][0]["cluster"]
    config = kubectl.get("configmap", RELEASE) or {"data": {}}
    contents = {
        token / "token": kubectl.run("create", "token", account).strip(),
        token / "namespace": NAMESPACE,
        settings / "config.yaml": config["data"].get("config.yaml", ""),
    }
    for path, text in contents.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (token / "ca.crt").write_bytes(base64.b64decode(user["certificate-authority-data"]))
    # The container's user is not the one who wrote them.
    work.chmod(0o755)
    return {SERVICE_ACCOUNT: token, "/etc/energylens": settings}


def _readiness(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/readyz", timeout=5) as answer:
            return f"{answer.status} {answer.read().decode().strip()}"
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode().strip()}"
    except OSError as error:
        return str(error)


def _facts(pid: int) -> dict[str, str]:
    """Return what the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    mounts = [line.split() for line in Path(f"/proc/{pid}/mounts").read_text().splitlines()]
    options = next(fields[3] for fields in mounts if fields[1] == "/")
    return {
        "user": status["Uid"].split()[0],
        "capabilities": status["CapEff"],
        "root": options.split(",")[0],
        "resident": status["VmRSS"],
    }


if __name__ == "__main__":
    sys.exit(main())
