"""The operator of another release, which serves with other images: ``python -m tests.support.upgraded_operator``."""

from __future__ import annotations

from energylens.cli import main
from energylens.serving.images import ENGINE_IMAGES

REGISTRY = "next.example"


def upgrade() -> None:
    """Let the images of all engines come from another registry."""
    for engine, image in list(ENGINE_IMAGES.items()):
        ENGINE_IMAGES[engine] = f"{REGISTRY}/{image}"


if __name__ == "__main__":
    upgrade()
    main()
