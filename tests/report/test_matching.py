"""A number of the paper is compared with what was measured in its way, and with nothing else."""

from typing import Any

import polars as pl
import pytest

import ipvit
from helpers.comparison import compared, manifest, occlusion_table
from ipvit.analysis.paper_numbers import LAST, SetNamed, TableCell
from ipvit.analysis.verdicts import NotComparableError
from ipvit.experiments.registry import experiment_class, paper_numbers
from ipvit.report import comparison
from ipvit.report.matching import check_protocol

CELLS = {
    f"{cell.experiment} {cell.table} {number.key} {sorted(cell.conditions)}": cell
    for number in paper_numbers()
    for cell in number.cells
}
"""One cell of each kind."""


def as_the_paper(cell: TableCell) -> tuple[Any, list[str]]:
    """The experiment in the paper's protocol, and the columns of a table in which nothing varies but its conditions."""
    experiment = experiment_class(cell.experiment)()
    settings = {
        name: f"{value.scheme}:PATH/train" if isinstance(value, SetNamed) else value
        for name, value in cell.settings.items()
    }
    columns = [name for name in cell.conditions if name not in cell.implied and cell.conditions[name] != LAST]
    return experiment.model_copy(update=settings), [cell.measure, *columns]


def another(value: Any) -> Any:
    """A value that is not this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, tuple):
        return (*value, 3) if value and value[0] == -1 else ("another",)
    return "another"


def test_727_and_60_of_the_papers_numbers_can_be_measured_and_21_cannot():
    drawn = [number for number in paper_numbers() if number.key == "fig5_superclass"]
    assert len(drawn) == 60 and all(number.cells for number in drawn)
    assert sum(bool(number.cells) for number in paper_numbers()) == 727 + 60
    others = [number for number in paper_numbers() if not number.cells]
    assert len(others) == 21 and all(number.why_not for number in others)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_the_papers_protocol_is_accepted_and_every_other_value_of_a_parameter_refused(cell):
    experiment, columns = as_the_paper(cell)
    check_protocol(cell, columns, experiment)
    asked = {name for parameters in cell.implied.values() for name in parameters}
    free = set(type(experiment).model_fields) if cell.free is None else set(cell.free) - asked
    for name in type(experiment).model_fields.keys() - free - set(columns):
        changed = experiment.model_copy(update={name: another(getattr(experiment, name))})
        with pytest.raises(NotComparableError, match=name):
            check_protocol(cell, columns, changed)


def test_only_the_last_block_is_the_one_of_table_1():
    rows = [
        {"model": "paper:deit_base", "information_loss": 0.5, "correlation": value, "block": block, "grid": "14x14"}
        for block, value in ((3, 0.1), (11, 0.7))
    ]
    where, about = ("Table 1", "correlation, mean, 50 % dropped"), manifest("paper:deit_base")

    def found(rows: list[dict], blocks: tuple[int, ...]) -> dict:
        tables = {"correlation": {"correlation": pl.DataFrame(rows)}}
        return compared(tables, about, correlation=ipvit.Correlation(blocks=blocks))

    assert found(rows, (3, -1))[where]["ours"] == 0.7
    assert where not in found(rows[:1], (3,)) and where not in found([dict(rows[0], block=None)], (3,))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 112}, "paper:deit_small takes 112x112 pixels, the paper's takes 224x224"),
        ({"published": ""}, "imagenet/val is not ImageNet's validation set"),
        ({"loaded": ("demo:deit_micro",)}, "not measured here"),
        ({"loaded": ("",)}, "not measured here"),
        ({"loaded": ("paper:deit_small?depth=3",)}, "paper:deit_small?depth=3 is built in another way: depth"),
    ],
)
def test_another_input_network_or_data_is_refused_with_the_reason(changes, words):
    tables, run = occlusion_table("paper:deit_small", [("random", 0.5, 0.5, 70.0)]), {"occlusion": ipvit.Occlusion()}
    frame = comparison.compare(tables, manifest("paper:deit_small", **changes), run, everything=True)
    assert frame["ours"].null_count() == frame.height
    row = frame.filter(where="Figure 3", network="DeiT-S", what="top-1 (%), random PatchDrop, 50 % dropped")
    assert words in row["note"].item()


def test_weights_from_a_file_are_said_unless_they_are_the_published_ones():
    name = "paper:deit_small@mine.pth"
    tables, run = occlusion_table(name, [("random", 0.5, 0.5, 70.0)]), {"occlusion": ipvit.Occlusion()}
    about = manifest(name)
    row = compared(tables, about, **run)["Figure 3", "top-1 (%), random PatchDrop, 50 % dropped"]
    assert row["note"] == "weights from mine.pth"
    model = about.models[0].model_copy(update={"weights_sha256": "cd65a155" + "0" * 56})
    published = about.model_copy(update={"models": (model,)})
    row = compared(tables, published, **run)["Figure 3", "top-1 (%), random PatchDrop, 50 % dropped"]
    assert row["note"] is None


def test_a_part_of_the_data_is_compared_and_always_too_uncertain():
    tables, run = occlusion_table("paper:deit_small", [("random", 0.5, 0.5, 10.0)]), {"occlusion": ipvit.Occlusion()}
    whole = compared(tables, manifest("paper:deit_small"), **run)
    part = compared(tables, manifest("paper:deit_small", images=5_000), **run)
    where = ("Figure 3", "top-1 (%), random PatchDrop, 50 % dropped")
    assert whole[where]["verdict"] == "outside" and part[where]["verdict"] == "too uncertain"
    assert part[where]["note"] == "on a part of the data"


def test_an_interval_that_holds_everything_agrees_with_nothing():
    rows = [("random", 0.5, 0.5, 50.0)]
    tables = occlusion_table("paper:deit_small", rows)
    table = tables["occlusion"]["occlusion"].with_columns(top1_low=pl.lit(0.0), top1_high=pl.lit(100.0))
    frame = comparison.compare(
        {"occlusion": {"occlusion": table}}, manifest("paper:deit_small"), {"occlusion": ipvit.Occlusion()}
    )
    assert set(frame["verdict"]) == {"too uncertain"}
    assert "all 2 are too uncertain to disagree" in comparison.summary(frame)


def test_a_reason_is_told_where_something_was_measured_and_weights_from_a_file_stand_beside_the_network(capsys):
    name = "paper:deit_small@mine.pth"
    tables, run = occlusion_table(name, [("random", 0.5, 0.5, 70.0)]), {"occlusion": ipvit.Occlusion()}
    frame = comparison.compare(tables, manifest(name), run, everything=True)
    shown = comparison.for_people(frame.filter(pl.col("ours").is_not_null()))
    assert set(shown["network"]) == {"DeiT-S (weights from mine.pth)"}
    assert comparison.reasons(frame.filter(pl.col("ours").is_null()), refused=True) == [], (
        "nothing of the others is here"
    )
    other = comparison.compare(tables, manifest(name, published=""), run, everything=True)
    (line,) = comparison.reasons(other, refused=True)
    assert line.endswith("Figure 3: not compared: imagenet/val is not ImageNet's validation set")
