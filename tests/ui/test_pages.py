"""The pages of `energylens ui` in a real Chromium: widths, dark and print, the keyboard, links, and nothing from
elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PAGES = (
    "/",
    "/deployments/team-a/llama",
    "/plan/team-a/llama",
    "/fleet",
    "/budgets",
    "/drift",
    "/audit",
    "/nowhere",
)
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 900}
CONTRAST = 4.5
"""Least ratio of text to its background: WCAG 2.2, success criterion 1.4.3."""
READ_CONTRASTS = """() => {
  const part = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const parse = (text) => text.match(/[0-9.]+/g).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const back = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = parse(getComputedStyle(at).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const low = {};
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || element.closest("svg, style") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const pair = [luminance(parse(style.color)), luminance(back(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < LEAST) low[element.tagName + "." + element.className] = ratio.toFixed(2) + ": " + style.color;
  }
  return low;
}""".replace("LEAST", str(CONTRAST))


@contextmanager
def tab(browser: Any, **options: Any) -> Iterator[Any]:
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    # A page of the fleet takes a second, and a minute on a machine that does twenty other things.
    context.set_default_timeout(120_000)
    try:
        yield context.new_page()
    finally:
        context.close()


@pytest.mark.parametrize("path", PAGES)
def test_a_phone_scrolls_in_one_direction_only(browser: Any, address: str, path: str) -> None:
    with tab(browser, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        page.goto(address + path)
        width = page.evaluate("document.documentElement.scrollWidth")
        outside = page.evaluate(
            "() => [...document.querySelectorAll('body *')].filter((e) => !e.closest('figure, .table') &&"
            " e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.tagName + e.textContent.slice(0, 60))"
        )
    assert (width, outside) == (PHONE["width"], [])


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_text_covers_other_text(browser: Any, address: str, width: int) -> None:
    with tab(browser, viewport={"width": width, "height": 900}) as page:
        for path in PAGES:
            page.goto(address + path)
            crossing = page.evaluate(
                """() => {
                  const cells = [...document.querySelectorAll('td, th, .tile, p, h1, h2, nav a')]
                    .filter((e) => e.checkVisibility() && e.getClientRects().length && !e.closest('thead'));
                  const boxes = cells.map((e) => [e, e.getBoundingClientRect()]);
                  const found = [];
                  for (const [a, x] of boxes) for (const [b, y] of boxes)
                    if (a !== b && !a.contains(b) && !b.contains(a) && x.left + 1 < y.right && y.left + 1 < x.right
                        && x.top + 1 < y.bottom && y.top + 1 < x.bottom && a.compareDocumentPosition(b) & 4)
                      found.push(a.textContent.slice(0, 30) + ' | ' + b.textContent.slice(0, 30));
                  return found.slice(0, 5);
                }"""
            )
            assert crossing == [], path


@pytest.mark.parametrize("media", ["screen", "print"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_background(browser: Any, address: str, scheme: str, media: str) -> None:
    with tab(browser, color_scheme=scheme) as page:
        page.emulate_media(media=media, color_scheme=scheme)
        for path in PAGES:
            page.goto(address + path)
            assert page.evaluate(READ_CONTRASTS) == {}, path
        # A dark page on paper wastes toner, and is grey on grey where backgrounds are not printed.
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        is_dark = sum(map(int, re.findall(r"\d+", back)[:3])) < 3 * 128
        assert is_dark == (scheme == "dark" and media == "screen")


def test_paper_has_every_column(browser: Any, address: str) -> None:
    # A4 upright with Chromium's margins, at 96 pixels an inch.
    with tab(browser, viewport={"width": 718, "height": 1000}) as page:
        page.emulate_media(media="print")
        for path in PAGES:
            page.goto(address + path)
            assert not page.locator("nav").is_visible() or path == "/nowhere", path
            cut = page.evaluate(
                "() => [...document.querySelectorAll('td, th')].filter((e) => e.checkVisibility() &&"
                " e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.textContent.slice(0, 40))"
            )
            assert cut == [], path
        assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize("path", PAGES)
def test_tab_walks_through_all_links_in_the_order_of_the_page(browser: Any, address: str, path: str) -> None:
    with tab(browser) as page:
        page.goto(address + path)
        links = page.evaluate("() => [...document.querySelectorAll('a[href]')].map((e) => e.getAttribute('href'))")
        assert links
        seen, unmarked = [], []
        for _ in range(3 * len(links) + 10):
            page.keyboard.press("Tab")
            at = page.evaluate(
                "() => { const e = document.activeElement; const s = getComputedStyle(e);"
                " const isMarked = s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0;"
                " return [e.tagName, e.getAttribute('href'), isMarked]; }"
            )
            if at[0] == "BODY":
                break
            # Chromium lets the keyboard scroll a table that is wider than the page.
            if at[0] == "A":
                seen.append(at[1])
            if not at[2]:
                unmarked.append(at[:2])
    assert seen == links
    assert unmarked == []


def test_enter_follows_a_link(browser: Any, address: str) -> None:
    with tab(browser) as page:
        page.goto(address)
        page.locator("nav a", has_text="Budgets").focus()
        page.keyboard.press("Enter")
        page.wait_for_url(f"{address}/budgets")
        assert page.locator("nav a[aria-current=page]").inner_text() == "Budgets"


def test_no_link_is_dead_and_nothing_is_loaded(browser: Any, address: str) -> None:
    asked: list[str] = []
    with tab(browser) as page:
        page.on("request", lambda request: asked.append(request.url))
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        waiting, seen = ["/"], set[str]()
        while waiting:
            path = waiting.pop()
            seen.add(path)
            answer = page.goto(address + path)
            assert answer.status == 200, path
            links = page.evaluate("() => [...document.querySelectorAll('a[href]')].map((e) => e.getAttribute('href'))")
            waiting += [link for link in dict.fromkeys(links) if link not in seen and link not in waiting]
    assert {"/audit", "/fleet", "/deployments/team-a/llama", "/plan/team-a/llama"} <= seen
    assert [url for url in asked if url.removeprefix(address) not in seen and not url.endswith("/favicon.ico")] == []
    assert said == []


def test_the_audit_shows_what_a_prometheus_measured(browser: Any, address: str) -> None:
    with tab(browser) as page:
        page.goto(address + "/audit")
        row = page.locator("tr", has_text="team/chat").first.inner_text()
        assert "1,200" in row
        assert "H100-80GB-HBM3 TP8" in row
        text = page.locator("main").inner_text()
        for expected in (
            "2 served models on 9 GPUs: 1,320 W",
            "node-0: 3,200 W at the meter (Kepler, by Redfish), of which its 8 GPUs drew 1,200 W",
            "node-1: not measured: no meter names this node",
            "Measured from Prometheus http://127.0.0.1:",
        ):
            assert expected in text
        box = page.locator("svg.chart").first.bounding_box()
        assert box["width"] > 300
