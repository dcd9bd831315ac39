"""The state directory of one cluster: where everything lies, and the choices that a later `dev up` keeps."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from energylens_dev.devcluster.errors import DevClusterError
from energylens_dev.devcluster.folders import user_folder
from energylens_dev.devcluster.nodes import DEFAULT_POOLS, NodePool, pools_from_data, pools_to_data
from energylens_dev.devcluster.progress import Progress
from energylens_dev.devcluster.stages import PodStages


def default_directory(environ: Mapping[str, str]) -> Path:
    """Return the state directory: $ENERGYLENS_DEV_DIR, else energylens/dev under $XDG_STATE_HOME or ~/.local/state."""
    chosen = environ.get("ENERGYLENS_DEV_DIR")
    if chosen:
        return Path(chosen).absolute()
    return user_folder(environ, "XDG_STATE_HOME", ".local/state") / "energylens" / "dev"


@dataclass
class State:
    """What is remembered between two runs of `dev up`.

    Attributes:
        ports: Port of each server on 127.0.0.1.
        pods: Which pod stages kwok runs.
        pools: The node pools.
        operator: Whether the operator belongs to this cluster.
        operator_arguments: Further arguments of `energylens operator`.
        chart: Digest of the chart and its values as installed, or None.
        programs: Path of kubectl and helm as used by the last `dev up`.
    """

    ports: dict[str, int] = field(default_factory=dict)
    pods: PodStages = PodStages.LIFE_LIKE
    pools: tuple[NodePool, ...] = DEFAULT_POOLS
    operator: bool = False
    operator_arguments: tuple[str, ...] = ()
    chart: str | None = None
    programs: dict[str, str] = field(default_factory=dict)

    def choose(
        self,
        pods: PodStages | None,
        pools: Sequence[NodePool] | None,
        operator_arguments: Sequence[str] | None,
        *,
        operator: bool,
    ) -> None:
        """Take over the choices of a `dev up`; None keeps the earlier choice."""
        self.pods = pods or self.pods
        self.pools = self.pools if pools is None else tuple(pools)
        self.operator = operator
        if operator_arguments is not None:
            self.operator_arguments = tuple(operator_arguments)


class StateDirectory:
    """Paths of one cluster's files, its lock and its remembered choices."""

    def __init__(self, path: Path) -> None:
        """Name the directory; nothing is made yet."""
        self.path = path
        self.pki = path / "pki"
        self.records = path / "run"
        self.logs = path / "logs"
        self.etcd = path / "etcd"
        self.tool_caches = path / "cache"
        self.kubeconfig = path / "kubeconfig"
        self.operator_kubeconfig = path / "operator.kubeconfig"
        self.audit_log = path / "logs" / "audit.log"
        self.audit_policy = path / "audit-policy.yaml"
        self.bootstrap = path / "bootstrap.yaml"
        self._state = path / "state.json"
        self._lock = path / "lock"

    def component_kubeconfig(self, name: str) -> Path:
        """Return where the kubeconfig of one of the control plane's own programs is."""
        return self.path / f"{name}.kubeconfig"

    def load(self) -> State:
        """Return the remembered choices, or the defaults when there are none.

        Raises:
            DevClusterError: When the file is damaged.
        """
        try:
            data = json.loads(self._state.read_text(encoding="utf-8"))
            return State(
                ports={str(name): int(port) for name, port in data["ports"].items()},
                pods=PodStages(data["pods"]),
                pools=pools_from_data(data["pools"]),
                operator=bool(data["operator"]),
                operator_arguments=tuple(data["operator_arguments"]),
                chart=data["chart"],
                programs={str(name): str(path) for name, path in data["programs"].items()},
            )
        except FileNotFoundError:
            return State()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DevClusterError(
                f"{self._state} is damaged ({error!r}): run `energylens dev down --purge` and `energylens dev up`"
            ) from error

    def save(self, state: State) -> None:
        """Write the choices, whole or not at all."""
        data: dict[str, Any] = {**asdict(state), "pools": pools_to_data(state.pools)}
        partial = self._state.with_suffix(".tmp")
        partial.write_text(json.dumps(data, indent=2), encoding="utf-8")
        partial.rename(self._state)

    @contextlib.contextmanager
    def locked(self, progress: Progress) -> Iterator[None]:
        """Hold the directory, made when missing, so that two commands never change one cluster at a time."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            opened = self._lock.open("w")
        except OSError as error:
            raise DevClusterError(f"cannot use the state directory {self.path}: {error.strerror}") from error
        with opened as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress.say(f"waiting: another energylens dev command holds {self.path}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def purge(self) -> None:
        """Remove what was written here, and the directory when nothing else is in it."""
        for folder in (self.pki, self.records, self.logs, self.etcd, self.tool_caches):
            shutil.rmtree(folder, ignore_errors=True)
        files = [self.audit_policy, self.bootstrap, self._state, self._lock, self.kubeconfig]
        for path in (*files, *self.path.glob("*.kubeconfig")):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()
