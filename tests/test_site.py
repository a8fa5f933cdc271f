"""The built site: no broken tables, no dead links, no code wider than its column, and what people type is found."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
COLUMN = 120
"""Characters of a line of Python, YAML or output; commands are broken by the page."""

pytestmark = pytest.mark.slow
pytest.importorskip("sphinx_design")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = Path(os.environ.get("IPVIT_SITE") or tmp_path_factory.mktemp("site"))
    if (folder / "index.html").is_file():
        return folder  # .ci/run has built it with the same command
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def pages(site: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(site.rglob("*.html")):
        name = path.relative_to(site).as_posix()
        if not name.startswith(("_", "genindex", "search", "py-modindex")):
            yield name, path.read_text("utf-8")


def test_no_paragraph_is_a_broken_table(site):
    broken = [name for name, text in pages(site) if re.search(r"<p>\s*\|", text)]
    assert not broken


def test_no_link_inside_the_site_is_dead(site):
    anchors = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in pages(site)}
    dead: list[str] = []
    for name, text in pages(site):
        for target in re.findall(r'<a [^>]*href="([^"]+)"', text):
            address, _, anchor = html.unescape(target).partition("#")
            if re.match(r"[a-z]+:", address):
                continue
            path = (site / name).parent / address if address else site / name
            if not path.exists():
                dead.append(f"{name} -> {target}")
            elif anchor and (key := path.resolve().relative_to(site.resolve()).as_posix()) in anchors:
                dead += [] if anchor in anchors[key] else [f"{name} -> {target}"]
    assert not dead


def test_no_line_of_code_is_wider_than_its_column():
    wide = [
        f"{page.relative_to(ROOT)}: {line}"
        for page in DOCS.rglob("*.md")
        for block in re.findall(r"^```(?:console|text|python|yaml)\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
        for line in block.splitlines()
        if len(line) > COLUMN and not line.startswith("ipvit: ")
    ]
    assert not wide


def test_no_two_pages_have_one_title(site):
    titles = Counter(re.search(r"<h1>(.*?)<", text, re.S)[1].strip() for _, text in pages(site) if "<h1>" in text)  # pyright: ignore[reportOptionalSubscript]
    assert not [title for title, times in titles.items() if times > 1]


def test_every_page_lies_there_as_markdown_and_llms_txt_lists_it(site):
    listed = (site / "llms.txt").read_text("utf-8")
    for name, _ in pages(site):
        if name.startswith("_modules"):
            continue
        page = name.removesuffix(".html") + ".md"
        assert (site / page).exists(), page
        assert f"({page})" in listed, page


def test_copy_buttons_leave_prompts_and_output_out(site):
    script = (site / "_static" / "copybutton.js").read_text("utf-8")
    assert re.search(r"formatCopyText\(.*'\$ ', false, true, true", script), (
        "the prompt is `$ `, and only its lines count"
    )


QUERIES = {
    "PatchDrop": "experiments/occlusion",
    "occlusion": "experiments/occlusion",
    "confidence interval": "howto/read-a-result",
    "error bars": "howto/read-a-result",
    "latex": "howto/paper-figures",
    "resume": "howto/continue",
    "multi gpu": "howto/index scale",
    "speed": "performance howto/estimate",
    "cache": "install",
    "custom model": "howto/own-model howto/index models",
    "citation": "citing",
    "licence": "licences citing",
    "license": "licences citing",
    "glossary": "glossary",
    "ImageNet-C": "experiments/corruptions",
    "mCE": "experiments/corruptions",
    "shape bias": "experiments/shape-bias",
    "texture bias": "experiments/shape-bias",
    "attention map": "experiments/attention",
    "PGD": "experiments/attack",
    "adversarial": "experiments/attack",
    "linear probe": "experiments/probe",
    "few-shot": "experiments/fewshot",
    "positional encoding": "experiments/shuffle",
    "ObjectNet": "experiments/shift howto/get-data",
    "Windows": "install",
    "offline": "install",
    "Parquet": "howto/records reference/run-folder",
    "exit code": "reference/exit-codes",
    "fine-tuned": "howto/own-model",
    "YAML": "howto/study-file reference/study",
    "changelog": "changelog",
    "typical values": "typical",
    "alternatives": "peers",
}
"""What people type, and the pages of which one must be among the first three."""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if not Path("/usr/bin/chromium").exists():
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as api:
        started = api.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def test_the_search_finds_what_people_type(site, browser):
    page = browser.new_page()
    missed: dict[str, list[str]] = {}
    for query, expected in QUERIES.items():
        page.goto(f"file://{site}/search.html?q={query.replace(' ', '+')}")
        page.wait_for_selector("#search-results .search-summary, #search-results p", timeout=20_000)
        page.wait_for_function(
            "document.querySelector('#search-results h2')?.textContent != 'Searching'", timeout=20_000
        )
        found = page.eval_on_selector_all(
            "#search-results ul.search > li > a", "links => links.map(a => a.getAttribute('href'))"
        )
        names = list(dict.fromkeys(re.sub(r"\.html.*$", "", link) for link in found))[:3]
        if not set(names) & set(expected.split()):
            missed[query] = names
    page.close()
    assert not missed, json.dumps(missed, indent=1)


@pytest.mark.parametrize("width", [1400, 400])
def test_no_page_scrolls_sideways(site, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    wide: list[str] = []
    for name, _ in pages(site):
        if name.startswith(("api/", "_modules")):
            continue
        page.goto(f"file://{site}/{name}")
        if page.evaluate("document.documentElement.scrollWidth") > width + 1:
            wide.append(name)
    page.close()
    assert not wide
