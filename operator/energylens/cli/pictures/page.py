"""A self-contained HTML page: no script, nothing from the network, light or dark as the reader's system is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from xml.sax.saxutils import quoteattr

from energylens.records import dataclass

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --muted: #5f6b7a; --grid: #e3e7ec; --surface: #ffffff;
  --back: #f4f6f8; --bad: #b9380b; --series-0: #0072b2; --series-1: #c65500; --series-2: #00835f; --series-3: #b0568a;
  --series-4: #8a6a00; --series-5: #2f8fca; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e8ebef; --muted: #98a4b3; --grid: #2c343e;
  --surface: #171c22; --back: #0e1216; --bad: #ff8a5c; --series-0: #5db8f5; --series-1: #f59a4c; --series-2: #3ecf9f;
  --series-3: #e59fc6; --series-4: #e0bd4a; --series-5: #9bd4f7; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 34px 0 6px; }
h3 { font-size: 15px; margin: 20px 0 4px; }
p { margin: 6px 0; max-width: 78ch; }
.muted { color: var(--muted); }
a { color: var(--series-0); }
a:focus-visible { outline: 2px solid var(--series-0); outline-offset: 2px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 16px; padding-bottom: 10px;
  border-bottom: 1px solid var(--grid); }
nav a { text-decoration: none; padding: 4px 0; }
nav a[aria-current] { color: var(--ink); font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px; margin: 18px 0; }
.tile, figure, .table { background: var(--surface); border: 1px solid var(--grid); border-radius: 10px; }
.tile { padding: 12px 14px; }
.tile b { display: block; font-size: 22px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: 13px; }
.charts { columns: 430px 2; column-gap: 14px; margin: 12px 0; }
figure { margin: 0 0 14px; padding: 12px; min-width: 0; break-inside: avoid; }
figcaption { color: var(--muted); font-size: 13px; margin-top: 6px; }
svg.chart { width: 100%; height: auto; display: block; font-family: inherit; }
footer { margin-top: 36px; padding-top: 10px; border-top: 1px solid var(--grid); color: var(--muted); font-size: 13px; }
.table { overflow-x: auto; margin: 10px 0; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th, td { padding: 7px 8px; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--grid); }
th { color: var(--muted); font-weight: 600; }
thead th { white-space: normal; vertical-align: bottom; }
tbody tr:last-child td { border-bottom: 0; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.wide { white-space: normal; min-width: 170px; }
.facts th { width: 150px; }
tr.pick td { font-weight: 600; }
.bad { color: var(--bad); }
@media (max-width: 640px) {
  main { padding: 16px 10px 40px; }
  .charts { columns: 1; }
  figure { padding: 8px; overflow-x: auto; }
  svg.chart { min-width: 430px; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(126px, 1fr)); padding: 8px 6px;
    border-bottom: 1px solid var(--grid); }
  tbody tr:last-child { border-bottom: 0; }
  td, td.number { display: block; padding: 2px 4px; border: 0; text-align: left; white-space: normal; }
  td.wide { grid-column: 1 / -1; }
  .facts tr { display: block; }
  .facts th { display: block; width: auto; padding: 2px 4px; border: 0; }
  .facts td::before { content: none; }
  td::before { content: attr(data-label) " "; color: var(--muted); font-weight: 400; }
}
@media print { :root { color-scheme: light; } nav { display: none; } body { background: #fff; }
  main { max-width: none; padding: 0; } .table { overflow: visible; } table { font-size: 9px; }
  th, td { white-space: normal; overflow-wrap: anywhere; padding: 4px; } td.wide { min-width: 0; } }
"""


_LONG = 32
"""Characters beyond which a cell wraps."""
_MAIN = "<main>\n"


@dataclass(frozen=True)
class Link:
    """Text that leads to another page."""

    text: str
    href: str

    @property
    def html(self) -> str:
        """The link as an element."""
        return f"<a href={quoteattr(self.href)}>{escape(self.text)}</a>"


Cell = str | Link


def page(title: str, body: Iterable[str], made: str) -> str:
    """Return a whole document.

    Args:
        title: In the window and as the heading.
        body: HTML of its parts.
        made: When, from what and by which version: the foot of the page.
    """
    parts = "\n".join(body)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{_MAIN}<h1>{escape(title)}</h1>\n{parts}\n"
        f"<footer>{escape(made)}</footer>\n</main>\n</body>\n</html>\n"
    )


def navigated(document: str, entries: Iterable[Link], current: str) -> str:
    """Return a document of :func:`page` with links to the other pages above its heading.

    Args:
        document: The document.
        entries: Links to all pages that readers choose from.
        current: Address of the entry that the document belongs to.
    """
    links = "".join(
        entry.html.replace("<a ", '<a aria-current="page" ', 1) if entry.href == current else entry.html
        for entry in entries
    )
    return document.replace(_MAIN, f'{_MAIN}<nav aria-label="Pages">{links}</nav>\n', 1)


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Return large figures, each with a label."""
    cells = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>' for value, what in figures
    )
    return f'<div class="tiles">{cells}</div>'


def charts(found: Iterable[tuple[str, str]]) -> str:
    """Return SVG charts, side by side if the window is wide enough; screen readers read out their captions."""
    cells = "".join(
        f"<figure>{svg.replace('<svg ', f'<svg aria-label={quoteattr(caption)} ', 1)}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for svg, caption in found
    )
    return f'<div class="charts">{cells}</div>'


def table(header: Sequence[str], rows: Iterable[Sequence[Cell]], *, picked: int | None = None) -> str:
    """Return a table; columns of numbers are right-aligned, and columns with a long cell wrap.

    On a narrow screen each row becomes a block in which every cell names its column, so that no column is cut off.

    Args:
        header: Column names.
        rows: Cells as text, or as links.
        picked: Index of the highlighted row.
    """
    body = [list(row) for row in rows]
    texts = [[cell.text if isinstance(cell, Link) else cell for cell in row] for row in body]
    numbers = [_is_numeric([row[i] for row in texts]) for i in range(len(header))]
    wide = [any(len(row[i]) > _LONG for row in texts) for i in range(len(header))]
    head = "".join(f"<th{_class(n)}>{escape(name)}</th>" for name, n in zip(header, numbers, strict=True))
    lines = [
        ('<tr class="pick">' if at == picked else "<tr>")
        + "".join(
            f"<td{_class(n, w)} data-label={quoteattr(name)}>{_html(cell)}</td>"
            for name, cell, n, w in zip(header, row, numbers, wide, strict=True)
        )
        + "</tr>"
        for at, row in enumerate(body)
    ]
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Return labels, each with a text beside it."""
    lines = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td class="wide">{escape(text)}</td></tr>' for label, text in rows
    )
    return f'<div class="table facts"><table><tbody>{lines}</tbody></table></div>'


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; ``kind`` is ``muted``, ``bad`` or nothing."""
    opening = f'<p class="{kind}">' if kind else "<p>"
    return f"{opening}{escape(text)}</p>"


def heading(text: str, level: int = 2) -> str:
    """Return a heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def _html(cell: Cell) -> str:
    return cell.html if isinstance(cell, Link) else escape(cell)


def _class(number: bool, wide: bool = False) -> str:
    return ' class="number"' if number else ' class="wide"' if wide else ""


def _is_numeric(cells: Sequence[str]) -> bool:
    """Return whether a column has only numbers and blanks."""
    found = [text for text in cells if text not in ("", "-")]
    return bool(found) and all(map(_is_number, found))


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "", 1).lstrip("+-").removesuffix(" %").isdecimal()
