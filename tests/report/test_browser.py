"""Every kind of page in a real browser: wide and narrow, light and dark, with a keyboard.

The browser is Playwright's own, else one of this machine, else one that is fetched now.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest
from playwright.sync_api import Error, sync_playwright

from clue_jax.leases import lease
from clue_jax.report.embeddings import people_section
from clue_jax.report.page import write_report
from clue_jax.report.people import Neighbourhood, Person
from tests.embeddings.exports import write_export
from tests.report.test_embeddings import near_views, write_labels
from tests.report.test_page import fill_evaluation, fill_run
from tests.report.test_scaling import fill_study

INSTALLED = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FETCH_SECONDS = 120
WIDTHS = {"desktop": 1280, "phone": 390}
LEAST_TEXT = 8.5  # pixels

# What a person would see, asked of the page itself.
LOOK = """
() => {
  const wrong = [];
  const box = e => e.getBoundingClientRect();
  const shown = e => e.checkVisibility() && box(e).width > 0;
  if (document.documentElement.scrollWidth > window.innerWidth)
    wrong.push(`the page is ${document.documentElement.scrollWidth} wide`);
  for (const svg of document.querySelectorAll("svg"))
    if (!svg.getAttribute("aria-label") && svg.getAttribute("aria-hidden") !== "true")
      wrong.push("a picture without a label");
  for (const image of document.querySelectorAll("img"))
    if (!image.alt || !image.naturalWidth) wrong.push(`an image that shows nothing: ${image.alt}`);
  let last = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const level = Number(heading.tagName[1]);
    if (level > last + 1) wrong.push(`${heading.tagName} after H${last}: ${heading.innerText}`);
    last = level;
  }
  if (document.querySelectorAll("h1").length !== 1) wrong.push("not one title");

  const parsed = colour => colour.match(/[\\d.]+/g).map(Number);
  const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const bright = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = parsed(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, said = walker.currentNode.data.trim();
    if (!said || !shown(e)) continue;
    const svg = e.closest("svg"), style = getComputedStyle(e);
    const ink = bright(parsed(svg ? style.fill : style.color)), paper = bright(behind(svg || e));
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (contrast < 4.5) wrong.push(`contrast ${contrast.toFixed(2)}: ${said}`);
    const grown = svg ? box(svg).width / svg.viewBox.baseVal.width : 1;
    const size = parseFloat(style.fontSize) * grown;
    if (size < LEAST_TEXT) wrong.push(`${size.toFixed(1)} pixels: ${said}`);
  }

  for (const svg of document.querySelectorAll("svg[role=img]")) {
    const texts = [...svg.querySelectorAll("text")].filter(shown);
    const frame = box(svg);
    texts.forEach((text, n) => {
      const a = box(text);
      if (a.left < frame.left - 1 || a.right > frame.right + 1)
        wrong.push(`cut off: ${text.textContent} in ${svg.getAttribute("aria-label")}`);
      for (const other of texts.slice(n + 1)) {
        const b = box(other);
        const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (x > 1 && y > 4) wrong.push(`${text.textContent} over ${other.textContent}`);
      }
    });
  }
  return wrong;
}
""".replace("LEAST_TEXT", str(LEAST_TEXT))


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        found = launched(playwright)
        yield found
        found.close()


def launched(playwright):
    """A browser, or a skip that says why there is none."""
    installed = next(filter(None, map(shutil.which, INSTALLED)), None)
    problems = []
    for path in (None, installed):
        try:
            return playwright.chromium.launch(executable_path=path)
        except Error as error:
            problems.append(error.message.splitlines()[0])
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=FETCH_SECONDS)
        return playwright.chromium.launch()
    except (Error, subprocess.SubprocessError) as error:
        pytest.skip(f"no browser here, and none can be fetched: {problems}; {error}")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of each kind."""
    root, users = tmp_path_factory.mktemp("pages"), near_views(300)
    fill_run(root / "run")
    fill_run(root / "live", steps=200)
    config = {"train": {"batch_users": 32, "steps": 20_000}}
    (root / "live" / "config.json").write_text(json.dumps(config))
    fill_evaluation(root / "evaluation")
    fill_study(root / "study")
    write_export(root / "export", users)
    fill_run(root / "quickstart" / "run")
    fill_evaluation(root / "quickstart" / "evaluation")
    write_export(root / "quickstart" / "embeddings", users)
    names = [f"category-{n:03d}" for n in range(12)]
    write_labels(root / "quickstart/logs/labels/favourite", users, "favourite", names)
    with lease(root / "live" / "lock"):
        return {folder.name: write_report(folder) for folder in sorted(root.iterdir())}


@pytest.fixture
def seen(browser, request):
    """Opens pages of a width and a scheme; fails on what a page complains of, or asks for."""
    complaints = []

    def opened(path, width, scheme):
        complaints.clear()
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        request.addfinalizer(page.close)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: complaints.append(asked.url[:80]))
        page.goto(path.as_uri())
        # But for the page itself, and pictures that lie within.
        wanted = path.as_uri()[:80]
        assert [c for c in complaints if c != wanted and not c.startswith("data:")] == []
        return page

    return opened


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("kind", ["run", "live", "evaluation", "study", "export", "quickstart"])
def test_a_page_can_be_read(pages, seen, kind, width):
    page = seen(pages[kind], width, "light")
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    papers = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(LOOK) == []
        papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(papers) == 2


def test_the_look_finds_what_is_wrong(seen, tmp_path):
    page_file = tmp_path / "page.html"
    page_file.write_text(
        "<body style='background: #fff'><h2 style='color: #999'>Pale</h2>"
        "<p style='font-size: 5px'>small</p><div style='width: 900px; height: 9px'></div>"
        "<svg viewBox='0 0 100 50'></svg><svg role='img' aria-label='x' viewBox='0 0 100 50'>"
        "<text x='10' y='20'>one</text><text x='12' y='21'>two</text>"
        "<text x='95' y='40'>beyond</text></svg></body>"
    )
    found = "; ".join(seen(page_file, 390, "light").evaluate(LOOK))
    for wrong in (
        "the page is 9",
        "without a label",
        "H2 after H0",
        "not one title",
        ": Pale",
        "5.0 pixels: small",
        "cut off: beyond",
        "one over two",
    ):
        assert wrong in found


def test_a_keyboard_opens_what_is_folded(pages, seen):
    page = seen(pages["quickstart"], 1280, "light")
    folded = page.query_selector_all("details")
    assert len(folded) >= 4
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.parentElement.open === false"):
            page.keyboard.press("Enter")
    assert all(details.evaluate("e => e.open") for details in folded)


def test_texts_of_users_can_be_read(pages, seen, tmp_path):
    person = Person({"shop": ["a pen " * 30, "x" * 200], "news": []}, 0.5)
    section = people_section([Neighbourhood(person, [person, person])])
    whole = pages["export"].read_text().replace("</main>", f"{section}</main>")
    page_file = tmp_path / "page.html"
    page_file.write_text(whole)
    for width in WIDTHS.values():
        assert seen(page_file, width, "light").evaluate(LOOK) == []


@pytest.mark.skipif("CLUE_SCREENSHOTS" not in os.environ, reason="for people who want to look")
def test_pictures_of_the_pages(pages, seen):
    for kind, path in pages.items():
        for name, width in WIDTHS.items():
            for scheme in ("light", "dark"):
                target = f"{os.environ['CLUE_SCREENSHOTS']}/{kind}-{name}-{scheme}.png"
                seen(path, width, scheme).screenshot(path=target, full_page=True)
