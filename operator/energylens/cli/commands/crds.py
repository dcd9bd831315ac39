"""`energylens crds`: the CustomResourceDefinitions as files, for installations without the chart."""

from __future__ import annotations

from pathlib import Path

import click

from energylens.api.crd import KINDS, crd_text


@click.command()
@click.option(
    "--out",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the files, one per kind; created if missing.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Write nothing; list the files that differ from this version, and exit with code 1 if there are any.",
)
def crds(folder: Path, check: bool) -> None:
    """Write the CustomResourceDefinitions of this version as YAML files, ready for `kubectl apply`."""
    texts = {folder / f"{kind.plural}.yaml": crd_text(kind) for kind in KINDS}
    stale = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path], encoding="utf-8")
        click.echo(f"{path}: {'missing' if not path.is_file() else 'differs' if check else 'written'}")
    if check and stale:
        raise SystemExit(1)
