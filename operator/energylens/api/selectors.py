"""Labels against what selects them, as Kubernetes matches them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from energylens.api.energybudget import LabelSelector


def carries(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Return whether labels have every value that is wanted, as a node selector and ``matchLabels`` ask for."""
    return all(labels.get(key) == value for key, value in wanted.items())


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector selects an object with these labels."""
    if not carries(labels, selector.match_labels):
        return False
    for requirement in selector.match_expressions:
        present = requirement.key in labels
        inside = present and labels[requirement.key] in requirement.values
        if {
            "In": not inside,
            "NotIn": inside,
            "Exists": not present,
            "DoesNotExist": present,
        }[requirement.operator]:
            return False
    return True
