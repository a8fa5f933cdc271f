"""Tables in LaTeX, and that TeX takes them."""

import re
import shutil
import subprocess

import polars as pl
import pytest

from ipvit.analysis.columns import COMMON, Column
from ipvit.report.tables.latex import to_latex

COLUMNS = {**COMMON, "information_loss": Column(unit="share", level=True), "jaccard": Column(unit="percent", digits=1)}
HOSTILE = [
    "a_b&c%d#e$f",
    "x{y}~z^w\\v",
    "[0] first",
    "*star",
    "ε ≤ 8 × 2²",
    "naïve–résumé…",
    "<b> | \"q\" 'r'",
    "中文",
    "--x",
]

pdflatex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not there (texlive-latex-base)")


def leveled(models: list[str], levels: int = 4) -> pl.DataFrame:
    rows = [
        {"model": model, "information_loss": level / levels, "n_images": 1000, "n_runs": 5, "top1": 80.0 - level}
        for model in models
        for level in range(levels)
    ]
    frame = pl.DataFrame(rows)
    return frame.with_columns(top1_low=pl.col("top1") - 2, top1_high=pl.col("top1") + 2, top1_std=pl.lit(None))


def flat(models: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"model": models, "n_images": 1234, "jaccard": 45.5, "jaccard_low": 40.0, "jaccard_high": 50.0})


def test_the_caption_says_what_and_how_many_and_heads_are_named():
    text = to_latex(leveled(["deit", "resnet"]), COLUMNS, title="Occlusion, photos", name="occlusion")
    caption = re.search(r"\\caption\{(.*)\}", text)[1]
    assert "Occlusion, photos: top-1 (\\%) by information loss" in caption and "n = 1,000 images" in caption
    assert "n runs: 5" in caption and "95 \\% confidence intervals" in caption
    assert r"\label{tab:occlusion}" in text and r"\multicolumn{4}{c}{information loss}" in text
    assert r"model & 0 \% & 25 \% & 50 \% & 75 \% \\" in text and r"\cmidrule(l){2-5}" in text


def test_a_table_without_levels_has_its_count_in_the_caption_alone():
    text = to_latex(flat(["deit"]), COLUMNS, title="Segmentation")
    assert "n = 1,234 images" in text and r"model & jaccard (\%) \\" in text
    assert r"deit & $45.5_{40.0}^{50.0}$ \\" in text


def test_different_counts_are_a_range_and_a_column():
    frame = flat(["a", "b"]).with_columns(n_images=pl.Series([9, 1271]))
    text = to_latex(frame, COLUMNS)
    assert "n = 9 to 1,271 images" in text and "n images &" in text and "& 1,271 &" in text


def test_no_cell_is_a_list_of_196_numbers():
    cells = str([0.005] * 196)
    text = to_latex(pl.DataFrame({"model": ["vit"], "head": [0], "map": [cells]}), COLUMNS, title="Maps")
    assert "0.005" not in text and "% left out" in text and "map" in text


def test_a_wide_table_goes_over_both_columns_and_a_long_one_over_pages():
    assert r"\begin{table*}" in to_latex(leveled(["a"], 12), COLUMNS)
    assert r"\begin{table}" in to_latex(leveled(["a"], 2), COLUMNS)
    assert r"\begin{longtable}" in to_latex(flat([f"net{i}" for i in range(60)]), COLUMNS)


def test_nothing_of_a_name_is_taken_for_a_command():
    text = to_latex(flat(HOSTILE), COLUMNS)
    assert (
        "{[}0] first" in text
        and "{*}star" in text
        and "{[}U+4E2D][U+6587]" in text
        and r"$\varepsilon$ $\leq$ 8" in text
    )
    assert "-{}-x" in text


@pdflatex
@pytest.mark.parametrize(
    "frame", [leveled(HOSTILE), flat(HOSTILE * 8), leveled(["a", "b"], 2)], ids=["wide", "long", "small"]
)
def test_tex_takes_the_table(frame, tmp_path):
    document = (
        r"\documentclass{article}\usepackage{booktabs,longtable}\begin{document}"
        + "\n"
        + to_latex(frame, COLUMNS, title="Occlusion 100% & more_", name="a_b c")
        + r"\end{document}"
    )
    (tmp_path / "t.tex").write_text(document, "utf-8")
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0 and (tmp_path / "t.pdf").is_file(), done.stdout[-2000:]
    assert "Missing character" not in (tmp_path / "t.log").read_text("utf-8", errors="replace")
