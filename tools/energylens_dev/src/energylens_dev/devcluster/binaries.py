"""Finds the control plane's programs, or builds them once into the user's cache folder.

Looked for in KUBEBUILDER_ASSETS, on PATH (in both, compatible versions only) and in the cache; else built.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from energylens_dev.devcluster.components import (
    BUILD_FLAGS,
    COMPONENTS,
    CONTROL_PLANE,
    KWOK_PACKAGE,
    ON_DEMAND,
    Component,
    acceptable,
    cache_key,
    parse_version,
    pinned_version,
)
from energylens_dev.devcluster.errors import DevClusterError
from energylens_dev.devcluster.folders import user_folder
from energylens_dev.devcluster.progress import Progress
from energylens_dev.devcluster.stages import STAGE_FOLDERS

_MODULES_FOLDER = Path("tools") / "controlplane"
_TARGET = f"{platform.system().lower()}/{platform.machine()}"


def repository_root(start: Path | None = None) -> Path:
    """Return the root of the clone: the folder that has tools/controlplane.

    Args:
        start: Where to look from, upward; default: this file, then the working directory.

    Raises:
        DevClusterError: When no folder above `start` has it, as after an install from a wheel.
    """
    starts = [start] if start is not None else [Path(__file__).resolve(), Path.cwd()]
    for origin in starts:
        for folder in (origin, *origin.parents):
            if (folder / _MODULES_FOLDER / "kubernetes" / "go.mod").is_file():
                return folder
    raise DevClusterError(
        "energylens dev works from a clone of the repository: no folder tools/controlplane above "
        + " or ".join(str(origin) for origin in starts)
    )


def cache_root(environ: Mapping[str, str]) -> Path:
    """Return the folder of built programs: $XDG_CACHE_HOME/energylens/controlplane, by default under ~/.cache."""
    return user_folder(environ, "XDG_CACHE_HOME", ".cache") / "energylens" / "controlplane"


@dataclass(frozen=True)
class Module:
    """One Go module under tools/controlplane and where its programs are cached."""

    folder: Path
    go_mod: str
    cache: Path

    @classmethod
    def load(cls, name: str, root: Path, cache: Path) -> Module:
        """Read the pins of one module.

        Args:
            name: Folder under tools/controlplane.
            root: Root of the clone.
            cache: The folder of all built programs, see `cache_root`.
        """
        folder = root / _MODULES_FOLDER / name
        go_mod = (folder / "go.mod").read_text(encoding="utf-8")
        go_sum = (folder / "go.sum").read_text(encoding="utf-8")
        members = tuple(c for c in (*CONTROL_PLANE, *ON_DEMAND) if c.module == name)
        return cls(folder, go_mod, cache / f"{name}-{cache_key(go_mod, go_sum, members, _TARGET)}")


class Binaries:
    """Finds programs for one environment, and builds those that are missing."""

    def __init__(
        self,
        progress: Progress,
        environ: Mapping[str, str] | None = None,
        root: Path | None = None,
        *,
        poll_seconds: float = 1.0,
    ) -> None:
        """Look at nothing yet.

        Args:
            progress: Told about each build.
            environ: Environment variables; default: this process's.
            root: Root of the clone; default: found from this file.
            poll_seconds: How often progress is told during a build.
        """
        self._progress = progress
        self._environ = dict(os.environ if environ is None else environ)
        self._root = root or repository_root()
        self._cache = cache_root(self._environ)
        self._poll_seconds = poll_seconds
        self._rejected: dict[str, str] = {}

    def ensure(self, names: Sequence[str]) -> dict[str, Path]:
        """Return the path of each named program, building what is found nowhere.

        Raises:
            DevClusterError: For an unknown name, a missing Go, or a failed build.
        """
        unknown = [name for name in names if name not in COMPONENTS]
        if unknown:
            raise DevClusterError(f"unknown program {unknown[0]!r}: allowed are {', '.join(COMPONENTS)}")
        return {name: self.find(COMPONENTS[name]) or self._build(COMPONENTS[name]) for name in names}

    def find(self, component: Component) -> Path | None:
        """Return where a usable program is, or None when it has to be built."""
        module = self._module(component)
        pinned = pinned_version(module.go_mod, component.pin)
        assets = self._environ.get("KUBEBUILDER_ASSETS")
        candidates = [str(Path(assets) / component.name)] if assets else []
        candidates.append(shutil.which(component.name, path=self._environ.get("PATH")) or "")
        for candidate in candidates:
            if not _executable(Path(candidate)):
                continue
            reported = self._reported_version(candidate, component)
            if acceptable(component, reported, pinned):
                return Path(candidate).absolute()
            version = parse_version(reported)
            found = "of unknown version" if version is None else ".".join(map(str, version))
            allowed = component.allowed.format(minor=".".join(pinned.removeprefix("v").split(".")[:2]))
            self._rejected[component.name] = f"{candidate} is {found}, wanted is {allowed}: not used"
        built = module.cache / component.name
        return built if _executable(built) else None

    def stages(self) -> Path:
        """Return a folder with kwok's stage files: that in KUBEBUILDER_ASSETS, else the pinned kwok's in the cache.

        They are copied into the cache from kwok's Go module on first use.

        Raises:
            DevClusterError: When they are in neither and Go is missing.
        """
        assets = self._environ.get("KUBEBUILDER_ASSETS")
        if assets and (Path(assets) / "stages").is_dir():
            return Path(assets).absolute() / "stages"
        module = self._module(COMPONENTS["kwok"])
        wanted = module.cache / "stages"
        if wanted.is_dir():
            return wanted
        with self._locked(module, "kwok's stages"):
            if not wanted.is_dir():
                source = self._module_source(module)
                partial = module.cache / ".stages.tmp"
                shutil.rmtree(partial, ignore_errors=True)
                for folder in STAGE_FOLDERS:
                    shutil.copytree(source / "kustomize" / folder, partial / folder)
                # The module cache is read-only, and copies keep that: a later clean-up could not remove them.
                for path in (partial, *partial.rglob("*")):
                    path.chmod(0o755 if path.is_dir() else 0o644)
                partial.rename(wanted)
        return wanted

    def _module(self, component: Component) -> Module:
        return Module.load(component.module, self._root, self._cache)

    def _module_source(self, module: Module) -> Path:
        pin = f"{KWOK_PACKAGE}@{pinned_version(module.go_mod, KWOK_PACKAGE)}"
        answer = subprocess.run(
            [self._go("stages"), "mod", "download", "-json", pin],
            cwd=module.folder, env=self._build_environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if answer.returncode != 0:
            raise DevClusterError(f"could not download {pin}: {_tail(answer.stderr or answer.stdout)}")
        return Path(json.loads(answer.stdout)["Dir"])

    def _reported_version(self, program: str, component: Component) -> str:
        try:
            answer = subprocess.run(
                [program, *component.version_args],
                env=self._environ, capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return answer.stdout

    def _go(self, what: str) -> str:
        go = shutil.which("go", path=self._environ.get("PATH"))
        if go is None:
            raise DevClusterError(
                f"go is not on PATH and {what} must be built: install Go 1.26 or later (https://go.dev/dl), "
                f"or point KUBEBUILDER_ASSETS at a folder that has {what}"
            )
        return go

    def _build_environment(self) -> dict[str, str]:
        # A workspace file above the clone, or flags meant for the user's own projects, would change what is built.
        return {**self._environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""}

    @contextlib.contextmanager
    def _locked(self, module: Module, what: str) -> Iterator[None]:
        """Hold the module's lock, so that two builders never write one file."""
        try:
            module.cache.mkdir(parents=True, exist_ok=True)
            opened = (module.cache / ".lock").open("w")
        except OSError as error:
            raise DevClusterError(f"cannot use the cache folder {module.cache}: {error.strerror}") from error
        with opened as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._progress.say(f"waiting: another process is building {what}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _build(self, component: Component) -> Path:
        module = self._module(component)
        version = pinned_version(module.go_mod, component.pin)
        wanted = module.cache / component.name
        go = self._go(component.name)
        with self._locked(module, component.name):
            if _executable(wanted):
                return wanted
            if component.name in self._rejected:
                self._progress.say(self._rejected[component.name])
            for leftover in module.cache.glob(f".{component.name}.*.tmp"):
                leftover.unlink()
            partial = module.cache / f".{component.name}.{os.getpid()}.tmp"
            flags = [*BUILD_FLAGS, "-ldflags", component.ldflags(version)]
            command = [go, "build", *flags, "-o", str(partial), component.package]
            try:
                with self._progress.step(f"building {component.name} {version.removeprefix('v')}") as tick:
                    code, output = _run_group(
                        command, module.folder, self._build_environment(), tick, self._poll_seconds
                    )
                    if code != 0:
                        raise DevClusterError(f"go build of {component.name} failed:\n{_tail(output)}")
                partial.rename(wanted)
            finally:
                partial.unlink(missing_ok=True)
        return wanted


def _run_group(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    tick: Callable[[], None],
    poll_seconds: float,
) -> tuple[int, str]:
    """Run a command in a process group of its own and end the whole group when interrupted.

    `go build` starts compilers, which would go on for minutes after a Ctrl-C that reached only their parent.

    Returns:
        The exit status and everything that was written.
    """
    with subprocess.Popen(
        command, cwd=folder, env=environment, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            while True:
                try:
                    output, _ = process.communicate(timeout=poll_seconds)
                except subprocess.TimeoutExpired:
                    tick()
                else:
                    return process.returncode, output
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise


def _executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
