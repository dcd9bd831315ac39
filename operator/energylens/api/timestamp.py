"""Times as Kubernetes writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp(moment: datetime) -> str:
    """Return a moment as ``metav1.Time`` is written: RFC 3339, in UTC, to the second.

    Args:
        moment: A time with a time zone.
    """
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp(moment: datetime) -> str:
    """Return a moment as ``metav1.MicroTime`` is written: RFC 3339, in UTC, to the microsecond."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment_of(text: str | None) -> datetime | None:
    """Return the moment that an RFC 3339 text names; None for none.

    Raises:
        ValueError: The text is not a time.
    """
    return None if text is None else datetime.fromisoformat(text)
