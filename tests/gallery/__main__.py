"""``python -m tests.gallery write`` regenerates every expected.txt and the samples of docs/cli.md; ``play FILE`` plays
one scenario."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.gallery import samples
from tests.gallery.scenario import play
from tests.gallery.transcript import ROOT, transcripts, write

USAGE = "usage: python -m tests.gallery write | play examples/NAME/scenario.yaml"


def main(arguments: list[str]) -> int:
    """Run one command; return the exit code."""
    match arguments:
        case ["write"]:
            for path in transcripts():
                changed = write(path)
                sys.stdout.write(f"{'changed' if changed else 'same   '}  {path.relative_to(ROOT)}\n")
            changed = samples.write()
            sys.stdout.write(f"{'changed' if changed else 'same   '}  {samples.PAGE.relative_to(ROOT)}\n")
        case ["play", path]:
            sys.stdout.write(play(Path(path)))
        case _:
            sys.stderr.write(USAGE + "\n")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
