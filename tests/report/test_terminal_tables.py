"""What a terminal of 80 columns shows."""

import io
import re

import polars as pl
import pytest
from rich.console import Console

from ipvit.analysis.columns import COMMON, Column
from ipvit.core.manifest import RANDOM_WEIGHTS
from ipvit.report.tables.cells import for_people, text
from ipvit.report.tables.names import shortened
from ipvit.report.tables.terminal import terminal_tables

COLUMNS = {
    **COMMON,
    "level": Column(unit="share", level=True),
    "block": Column(special={"-1": "clean"}),
    "score": Column(digits=3),
}
LONG = [f"deit_small_with_a_long_name_of_a_checkpoint_epoch_{i}_of_run" for i in range(3)]


def printed(frame: pl.DataFrame, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for shown in terminal_tables({"t": frame}, "Title", COLUMNS, width):
        console.print(shown)
    said = console.export_text()
    assert max(map(len, said.splitlines())) <= width
    return said


def scored(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(n_images=1000, score=0.5, score_low=0.4, score_high=0.6)


def test_names_are_cut_in_the_middle_and_stay_distinct():
    cut = shortened(LONG, 20)
    assert len(set(cut)) == 3 and all(len(name) <= 20 and name.startswith("deit") for name in cut)
    assert shortened(["a", "b"], 3) == ["a", "b"]
    same = [f"{'x' * 30}{i}{'y' * 30}" for i in range(12)]
    assert len(set(shortened(same, 10))) == 12 and max(map(len, shortened(same, 10))) <= 10


def test_random_weights_stay_marked_when_a_name_is_cut():
    (cut, _) = shortened([f"{LONG[0]}{RANDOM_WEIGHTS}", LONG[1]], 30)
    assert cut.endswith("(random)") and len(cut) <= 30


@pytest.mark.parametrize("n_columns", [0, 3, 6])
def test_rows_of_long_names_are_told_apart_and_their_interval_stays_on_one_line(n_columns):
    frame = scored(pl.DataFrame({"model": LONG, **{f"a column {i}": ["some text here"] * 3 for i in range(n_columns)}}))
    said = printed(frame.with_columns(further=1.0))
    assert said.count("0.500 [0.400, 0.600]") == 3
    rows = [line for line in said.splitlines() if line.startswith("│")]
    assert len(rows) == len(set(rows)) == 3


def test_what_does_not_fit_is_named():
    frame = scored(pl.DataFrame({"model": LONG})).with_columns(**{f"measure {i}": 0.123 for i in range(9)})
    said = printed(frame)
    assert "not shown:" in said and "measure 8" in said and "not shown" not in printed(frame, 240)


def test_levels_are_in_numeric_order_whatever_the_first_model_has():
    rows = [("a", 4), ("a", 2), ("b", 3), ("b", 1), ("b", 10)]
    frame = scored(pl.DataFrame(rows, schema=["model", "block"], orient="row").with_columns(level=0.5))
    blocks = re.findall(r"^│ (\d+) ", printed(frame), re.M)
    assert blocks == ["1", "2", "3", "4", "10"]


def test_block_minus_one_is_called_clean_where_it_is():
    frame = scored(pl.DataFrame({"model": ["a", "a"], "block": [-1, 0], "level": [0.0, 0.5]}))
    assert "clean" in printed(frame) and "-1" not in printed(frame)
    assert text(-1, "block", {}) == "-1"


def test_thousands_are_written_one_way():
    frame = pl.DataFrame({"model": ["a", "b"], "n_images": [1000, 999_999], "n_runs": [1, 2]})
    heads, rows = for_people(frame)
    assert [row[heads.index("n images")] for row in rows] == ["1,000", "999,999"]
    assert "n = 1,000 to 999,999 images" in printed(scored(frame).with_columns(n_images=frame["n_images"]))


def test_a_column_without_values_is_not_shown():
    frame = pl.DataFrame({"model": ["a"], "top1": [50.0], "top1_low": [40.0], "top1_high": [60.0], "top5": [None]})
    frame = frame.with_columns(top5_low=pl.lit(None), top5_high=pl.lit(None), n_images=3)
    assert for_people(frame)[0] == ["model", "top-1 (%)", "n images"]


def test_no_cell_repeats_the_unit_of_its_head():
    frame = pl.DataFrame({"model": ["a"], "x": [50.0], "x_low": [40.0], "x_high": [60.0]})
    (head, (row,)) = for_people(frame, {"x": Column(unit="percent")})
    assert head == ["model", "x (%)"] and "%" not in "".join(row)
