"""A real Kubernetes control plane on this machine, built from Go modules and run on loopback.

The command line is `energylens dev`; tests call `up` and `down`.
"""

from energylens_dev.devcluster.errors import DevClusterError
from energylens_dev.devcluster.guard import guarded
from energylens_dev.devcluster.interrupts import Interrupted
from energylens_dev.devcluster.kubectl import Kubectl, KubectlError, eventually
from energylens_dev.devcluster.lifecycle import ClusterStatus, RunningCluster, down, running, status, up
from energylens_dev.devcluster.nodes import DEFAULT_POOLS, NodePool, parse_pools
from energylens_dev.devcluster.progress import Progress, StreamProgress
from energylens_dev.devcluster.stages import PodStages

__all__ = [
    "DEFAULT_POOLS",
    "ClusterStatus",
    "DevClusterError",
    "Interrupted",
    "Kubectl",
    "KubectlError",
    "NodePool",
    "PodStages",
    "Progress",
    "RunningCluster",
    "StreamProgress",
    "down",
    "eventually",
    "guarded",
    "parse_pools",
    "running",
    "status",
    "up",
]
