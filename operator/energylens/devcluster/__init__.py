"""A real Kubernetes control plane on this machine, built from Go modules and run on loopback.

The command line is `energylens dev`; tests call `up` and `down`.
"""

from energylens.devcluster.errors import DevClusterError
from energylens.devcluster.interrupts import Interrupted
from energylens.devcluster.kubectl import Kubectl, KubectlError, eventually
from energylens.devcluster.lifecycle import ClusterStatus, RunningCluster, down, running, status, up
from energylens.devcluster.nodes import DEFAULT_POOLS, NodePool, parse_pools
from energylens.devcluster.progress import Progress, StreamProgress
from energylens.devcluster.stages import PodStages

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
    "parse_pools",
    "running",
    "status",
    "up",
]
