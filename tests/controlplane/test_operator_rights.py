"""An operator from which a right is taken says so in its readiness, goes on with the rest, and recovers by itself."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.operator_cluster import OperatorCluster, Team, layout

from energylens_dev.devcluster import eventually

ROLE = ("clusterrole", "energylens")


def probe(operator: OperatorCluster, name: str) -> tuple[int, str]:
    """Return the status and the text of a probe."""
    assert operator.cluster.metrics_url is not None
    url = operator.cluster.metrics_url.removesuffix("/metrics")
    try:
        with urllib.request.urlopen(f"{url}/{name}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextmanager
def without(operator: OperatorCluster, *rights: tuple[str, str]) -> Iterator[None]:
    """Take rights, a verb and a resource each, out of the operator's role; they are back afterwards."""
    role = operator.api.get(*ROLE)
    assert role is not None
    kept = {name: role["metadata"][name] for name in ("name", "labels")}
    whole = {"apiVersion": role["apiVersion"], "kind": role["kind"], "metadata": kept, "rules": role["rules"]}
    rules = [
        {**rule, "resources": [resource], "verbs": verbs}
        for rule in role["rules"]
        for resource in rule["resources"]
        if (verbs := [verb for verb in rule["verbs"] if (verb, resource) not in rights])
    ]
    try:
        # As the chart's own, so that an upgrade finds no other owner of its fields.
        operator.api.apply({**whole, "rules": rules}, "--field-manager=helm")
        yield
    finally:
        operator.api.apply(whole, "--field-manager=helm")


def test_rights_to_write_that_were_taken_away_show_in_readiness_until_they_are_back(
    operator: OperatorCluster, team: Team
) -> None:
    team.apply()
    team.ready()
    before = team.standing()
    with without(operator, ("patch", "deployments"), ("create", "events")):
        said = "the rights of the operator: not granted: patch deployments.apps, create events.events.k8s.io\n"
        eventually(lambda: probe(operator, "readyz") == (503, said))
        assert probe(operator, "healthz")[0] == 200
        team.apply(planning=layout(replicas=3))
        assert "deployments" in team.wait("Degraded", "True", "ApplyRefused")["message"]
        assert team.standing() == before
    eventually(lambda: probe(operator, "readyz")[0] == 200)
    # What could not be written is written soon.
    eventually(lambda: team.condition("Ready")["status"] == "True" and len(team.pods()) == 3)
