"""Which of two states of an object is the newer one, and whether two objects of one name are the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from energylens.cluster.port import Identity
from energylens.decide.trimmed import PackedObject


def identity_of(body: Mapping[str, Any]) -> Identity:
    """Return the uid and the resource version of an object, "" for what it has not."""
    if isinstance(body, PackedObject):
        return Identity(body.uid, body.version)
    metadata = body["metadata"]
    return Identity(metadata.get("uid") or "", metadata.get("resourceVersion") or "")


def is_same_object(deleted: Mapping[str, Any], known: Mapping[str, Any] | None) -> bool:
    """Return whether a deletion is of the object that is known.

    The deletion of an object may be heard of after the creation of its successor of the same name: kopf has one stream
    per uid, and they do not wait for each other.
    """
    if known is None:
        return True
    uids = identity_of(deleted).uid, identity_of(known).uid
    return uids[0] == uids[1] or not all(uids)


def is_newer(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Return whether a state is newer than one that is known, or of another object of the same name."""
    now, before = identity_of(new), identity_of(old)
    if now.uid != before.uid:
        return True
    try:
        return int(now.version) > int(before.version)
    except ValueError:
        return True
