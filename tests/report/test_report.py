import csv
import io
import json
import math
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from helpers.pages import manifest
from ipvit.analysis import charts
from ipvit.analysis.columns import COMMON, Column
from ipvit.core.files import path_component
from ipvit.report import (
    Example,
    Gallery,
    Section,
    inline_svg,
    save_figure,
    terminal_tables,
    to_latex,
    to_markdown,
    to_records,
    write_report,
    write_table,
)
from ipvit.report.figures import specification_of

COLUMNS = {**COMMON, "information_loss": Column(unit="share", level=True)}
EVIL = "net<script>alert(1)</script>&\"'</b>"


def table(models: list[str], levels: int = 10, mode: str = "random") -> pl.DataFrame:
    rows = [
        {
            "model": model,
            "mode": mode,
            "information_loss": level / levels,
            "n_images": 1000,
            "top1": 80.0 - 7 * level - i,
            "top1_low": 78.0 - 7 * level - i,
            "top1_high": 82.0 - 7 * level - i,
        }
        for i, model in enumerate(models)
        for level in range(levels)
    ]
    return pl.DataFrame(rows)


def png() -> bytes:
    """One red pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0"))
        + chunk(b"IEND", b"")
    )


def section(models: list[str], **changes: object) -> Section:
    frame = table(models)
    content = {
        "name": "occlusion",
        "title": "Occlusion",
        "reproduces": "Figure 3",
        "question": "How much can be lost?",
        "summary": ["It keeps half."],
        "tables": {"occlusion": frame},
        "columns": COLUMNS,
        "figures": {"occlusion-random": charts.curve(frame, charts.Encoding(x="information_loss", y="top1"))},
        "galleries": [Gallery(tuple(models), (Example("half dropped", png()),))],
    }
    return Section(**(content | changes))


class Elements(HTMLParser):
    """All tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text += data


def page_of(tmp_path: Path, models: list[str], sections: list[Section], **changes: object) -> str:
    path = write_report(
        tmp_path / "report.html", title="A run", manifest=manifest(models, **changes), sections=sections
    )
    return path.read_text("utf-8")


def test_the_page_loads_nothing_from_anywhere(tmp_path):
    elements = Elements(page_of(tmp_path, ["a"], [section(["a"])]))
    for tag, attributes in elements.tags:
        for name in ("src", "href", "action", "data", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    policy = [
        a["content"] for t, a in elements.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policy) == 1 and "default-src 'none'" in policy[0] and "http" not in policy[0]


def test_hostile_names_are_only_text(tmp_path):
    bad = section(
        [EVIL],
        title=EVIL,
        question=EVIL,
        summary=[EVIL],
        notes=[EVIL],
        headline=EVIL,
        findings=[EVIL],
        galleries=[
            Gallery(("a",), (Example(EVIL, png()),)),
            Gallery((EVIL,), (Example(EVIL, png()),)),
            Gallery((EVIL,), ()),
        ],
        differences=pl.DataFrame({EVIL: [EVIL]}),
        comparison=pl.DataFrame({EVIL: [EVIL]}),
    )
    faults = {
        "skipped": [{"image": EVIL, "reason": EVIL}],
        "failures": [{"experiment": "occlusion", "model": EVIL, "error": EVIL}],
    }
    hostile, plain = page_of(tmp_path, [EVIL], [bad], **faults), page_of(tmp_path, ["a"], [section(["a"])])
    assert "<script>alert(1)" not in hostile
    assert hostile.count("</script") == plain.count("</script")
    elements = Elements(hostile)
    assert EVIL in elements.text
    assert not [tag for tag, _ in elements.tags if tag == "b"]


def test_a_limited_run_says_so_and_a_whole_one_does_not(tmp_path):
    limited = Elements(page_of(tmp_path, ["a"], [section(["a"])], limited=True, images_used=100)).text
    assert "Limited run: 100 of 50,000 images" in limited
    assert "Limited run" not in Elements(page_of(tmp_path, ["a"], [section(["a"])])).text


def test_the_page_names_skipped_images_and_failures(tmp_path):
    text = Elements(
        page_of(
            tmp_path,
            ["a"],
            [section(["a"])],
            skipped=[{"image": "cat/1.jpg", "reason": "truncated"}],
            failures=[{"experiment": "occlusion", "model": "b", "error": "out of memory"}],
        )
    ).text
    assert "1 unreadable image was left out" in text and "cat/1.jpg" in text and "truncated" in text
    assert "occlusion failed on b:" in text and "out of memory" in text


def test_missing_numbers_are_empty_cells_and_nulls(tmp_path):
    frame = table(["a"], 3).with_columns(top1=pl.Series([math.nan, 50.0, None]), top1_low=pl.Series([math.nan] * 3))
    chart = charts.curve(frame, charts.Encoding(x="information_loss", y="top1"))
    chart.data.values[0]["top1"] = math.nan  # a chart of a user's own experiment may hold anything
    page = page_of(tmp_path, ["a"], [section(["a"], tables={"t": frame}, figures={"f": chart})])
    assert "nan" not in Elements(page).text.lower() and "NaN" not in page


def test_a_page_without_figures_needs_no_library(tmp_path):
    page = page_of(tmp_path, ["a"], [section(["a"], figures={})])
    assert len(page) < 30_000 and "<script" not in page


def test_every_mark_says_its_series_and_value(tmp_path):
    svg = inline_svg(section(["a", EVIL]).figures["occlusion-random"], "x")
    marks = [attributes for tag, attributes in Elements(svg).tags if attributes.get("data-series")]
    (drawing,) = [attributes for tag, attributes in Elements(svg).tags if tag == "svg"]
    assert {mark["data-series"] for mark in marks} == {"0", "1"}
    assert json.loads(drawing["data-names"]) == ["a", EVIL]
    said = [mark["aria-label"] for mark in marks if "aria-label" in mark]
    assert len(said) == 20 and "model: a\ninformation loss: 0.3\ntop1: 59.0\n95 % interval: 57.0 to 61.0" in said[3]


def test_drawings_on_one_page_do_not_share_ids(tmp_path):
    figure = section(["a", "b"]).figures["occlusion-random"]
    page = page_of(tmp_path, ["a", "b"], [section(["a", "b"], figures={"one": figure, "two": figure})])
    ids = [attributes["id"] for _, attributes in Elements(page).tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 4
    for used in re.findall(r"url\(#([^)]+)\)", page):
        assert used in ids


def test_a_drawing_leaves_the_specification_that_others_are_made_of_as_it_is(tmp_path):
    chart = section(["a", "a network with a name that is far too long for the axis of any figure" * 2])
    for figure in chart.figures.values():
        specification = specification_of(figure)
        before = json.dumps(specification)
        drawn = [inline_svg(specification, "x", narrow=narrow) for narrow in (False, True)]
        save_figure(specification, tmp_path / "figure", ("svg",))
        assert json.dumps(specification) == before
        assert drawn == [inline_svg(figure, "x", narrow=narrow) for narrow in (False, True)]


def test_a_narrow_drawing_fits_a_narrow_screen():
    frame = pl.concat([table(["a", "b"], mode=mode) for mode in ("random", "salient", "block")])
    figure = charts.curve(frame, charts.Encoding(x="information_loss", y="top1", facet="mode"))
    wide, narrow = (inline_svg(figure, "x", narrow=flag) for flag in (False, True))
    widths = [float(re.search(r'<svg[^>]* width="([0-9.]+)"', svg)[1]) for svg in (wide, narrow)]
    assert widths[0] > 700 and widths[1] < 380


def test_the_same_run_gives_the_same_page(tmp_path):
    assert page_of(tmp_path, ["a", "b"], [section(["a", "b"])]) == page_of(tmp_path, ["a", "b"], [section(["a", "b"])])


def test_a_browser_draws_the_page_without_complaint_or_request(tmp_path, browser):
    models = ["a", EVIL]
    page_of(tmp_path, models, [section(models)])
    page = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme="dark")
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    assert complaints == []
    assert [url for url in requests if not url.startswith(("data:", "file:", "blob:"))] == []

    assert page.evaluate("document.documentElement.scrollWidth") <= 400, "wide things scroll inside their box"
    assert page.locator(".chart .wide").is_hidden() and page.locator(".chart .narrow").is_visible()
    chart = page.locator(".chart .narrow svg")
    ink, paper = page.evaluate(
        "[getComputedStyle(document.querySelector('.role-axis-label text')).fill,"
        " getComputedStyle(document.querySelector('.plot')).backgroundColor]"
    )
    assert ink == "rgb(230, 237, 243)" and paper == "rgb(23, 29, 36)", "light text on the page's dark ground"
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('.role-axis-label text')).fill") == "rgb(87, 96, 106)"
    assert page.locator(".chart .wide").is_visible() and page.locator(".chart .narrow").is_hidden()
    page.emulate_media(media="screen")

    def shown() -> list[str]:
        lines = chart.locator(".mark-line path").all()
        return [models[int(line.get_attribute("data-series") or 0)] for line in lines if line.is_visible()]

    legend = chart.locator(".role-legend-entry [role=button]")
    assert shown() == models and legend.count() == 2
    legend.first.click()
    assert shown() == [EVIL] and legend.first.get_attribute("aria-pressed") == "false"
    legend.first.focus()
    page.keyboard.press("Enter")
    assert shown() == models, "the keyboard does the same"
    legend.last.click(modifiers=["Shift"])
    assert shown() == [EVIL], "Shift shows one alone"
    legend.last.click(modifiers=["Shift"])
    assert shown() == models

    chart.locator(".mark-symbol.role-mark path").nth(2).hover()
    assert "top1: 66.0" in page.locator("#tip").inner_text() and "95 % interval: 64.0 to 68.0" in page.inner_text(
        "#tip"
    )
    page.mouse.move(2, 2)
    assert page.locator("#tip").is_hidden()

    legend.first.click()
    with page.expect_download() as download:
        page.locator(".chart .save").click()
    saved = Path(download.value.path()).read_text("utf-8")
    assert download.value.suggested_filename == "occlusion-random.svg"
    assert saved.startswith("<svg") and 'data-series="0"' not in saved and 'data-series="1"' in saved
    assert complaints == []


def test_figures_are_written_in_every_format_and_alike_each_time(tmp_path):
    chart = section(["a"]).figures["occlusion-random"]
    paths = save_figure(chart, tmp_path / "net.v1-random", formats=("svg", "png", "pdf"))
    assert [path.name for path in paths] == ["net.v1-random.svg", "net.v1-random.png", "net.v1-random.pdf"]
    starts = [path.read_bytes()[:5] for path in paths]
    assert starts[0].startswith(b"<svg") and starts[1] == b"\x89PNG\r" and starts[2] == b"%PDF-"
    before = paths[0].read_bytes()
    save_figure(chart, tmp_path / "net.v1-random")
    assert paths[0].read_bytes() == before
    with pytest.raises(ValueError, match="gif"):
        save_figure(chart, tmp_path / "x", formats=("gif",))


def test_a_table_is_written_as_csv_json_and_markdown(tmp_path):
    frame = table(["a|b"], 2).with_columns(top5=pl.Series([math.nan, 1.5]))
    paths = write_table(frame, tmp_path / "occlusion.v2")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "occlusion.v2.csv",
        "occlusion.v2.json",
        "occlusion.v2.md",
        "occlusion.v2.tex",
    ]
    rows = json.loads(paths[1].read_text("utf-8"), parse_constant=pytest.fail)
    assert [row["top5"] for row in rows] == [None, 1.5]
    assert rows == to_records(frame)
    with paths[0].open(newline="") as file:
        assert [float(row["top1"]) for row in csv.DictReader(file)] == frame["top1"].to_list()
    assert "80.0 [78.0, 82.0]" in paths[2].read_text("utf-8")


def test_markdown_has_one_column_per_measure_and_survives_odd_names():
    lines = to_markdown(table(["a|b"], 2)).splitlines()
    assert "top-1 (%)" in lines[0] and "low" not in lines[0]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"\|", lines[0])) for line in lines)


@pytest.mark.parametrize("n_models", [1, 3, 8])
def test_a_terminal_of_eighty_columns_shows_every_value_on_one_line(n_models):
    models = [f"swin_tiny_patch4_window7_224.ms_in22k_ft_in1k_{i}" for i in range(n_models)]
    console = Console(width=80, record=True, file=io.StringIO())
    for shown in terminal_tables({"occlusion": table(models)}, title="Occlusion"):
        console.print(shown)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    values = re.findall(r"(\d+\.\d) \[\d+\.\d, \d+\.\d\]", text)
    assert sorted(map(float, values)) == sorted(table(models)["top1"])


@pytest.mark.parametrize("name", ["a/b", "../../etc", "model:x@y", "...", "résumé"])
def test_any_name_becomes_a_path_component(name):
    assert re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9._+-]*", path_component(name))


def test_latex_has_levels_side_by_side_and_escapes_names():
    text = to_latex(table(["net_a&b", "c%"], 3), COLUMNS)
    over, *lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert r"\multicolumn{3}{c}{information loss}" in over
    assert lines[0] in (r"model & mode & 0 \% & 33 \% & 67 \% \\", r"model & 0 \% & 33 \% & 67 \% \\")
    assert lines[1].startswith(r"net\_a\&b & ") and "$80.0_{78.0}^{82.0}$" in lines[1]
    assert lines[2].startswith(r"c\% & ") and len(lines) == 3
    assert "".join(lines).count("&") - text.count(r"\&") == 3 * lines[0].count("&")


def test_latex_of_a_table_without_levels_is_a_plain_list():
    text = to_latex(pl.DataFrame({"model": ["a~b", "c^d"], "value": [0.5, None]}))
    assert r"a\textasciitilde{}b & 0.5 \\" in text and r"c\textasciicircum{}d &  \\" in text


def test_the_page_shows_levels_side_by_side_and_says_n_once(tmp_path):
    text = Elements(page_of(tmp_path, ["a", "b"], [section(["a", "b"])])).text
    assert "Table 1." in text and "top-1 (%) by information loss, n = 1,000 images" in text
    assert "All columns of table 1" in text and "Figure 1." in text


def test_no_cell_of_a_csv_file_is_a_formula(tmp_path):
    cells = [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\uff1d1",
        "-1.5",
        "+2e-3",
        "deit-small",
        None,
    ]
    frame = pl.DataFrame({"model": cells, "=head": range(11), "top1": [-1.0] * 11})
    write_table(frame, tmp_path / "t")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        heads, *rows = csv.reader(file)
    assert heads == ["model", "'=head", "top1"]
    assert [row[0] for row in rows] == [*(f"'{cell}" for cell in cells[:7]), "-1.5", "+2e-3", "deit-small", ""]
    assert {row[2] for row in rows} == {"-1.0"}, "a number stays one"
    categories = frame.with_columns(pl.col("model").cast(pl.Categorical))
    write_table(categories, tmp_path / "c")
    assert (tmp_path / "c.csv").read_bytes() == (tmp_path / "t.csv").read_bytes()
    assert json.loads((tmp_path / "t.json").read_text())[0]["model"] == "=1+1"


@pytest.mark.parametrize(
    "label",
    [
        "[free](https://example.org)",
        "![](https://example.org/x.png)",
        "[a\\](https://example.org)",
        "\\[a](javascript:alert(1))",
        "https://example.org",
        "WWW.example.org",
        "<a href=x>",
        "a | b \\| c",
    ],
)
def test_no_label_is_a_link_or_a_column_in_markdown(label):
    text = to_markdown(pl.DataFrame({"model": [label], "x": [1]}))
    row = text.splitlines()[2]
    assert "](" not in row and "://" not in row and "www." not in row.lower() and "<" not in row
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3, "two columns"
