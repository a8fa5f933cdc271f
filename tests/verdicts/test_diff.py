"""Two runs side by side: what is compared, what is refused, and what could have been found."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest
import torch

import ipvit
from helpers.command_line import complaint
from helpers.paths import KEPT
from helpers.small_runs import CLASSES, photos, small_occlusion, told_by
from helpers.tiny import tiny_model
from ipvit.cli import main
from ipvit.data.dataset import MemoryDataset
from ipvit.metrics import holm, mcnemar, paired_proportions

OLD = KEPT / "runs"


def measure(out, model=None, data=None, experiments=None, **options) -> ipvit.Run:
    return ipvit.run(
        experiments or [ipvit.Accuracy(), small_occlusion()],
        models=model or tiny_model(),
        data=data or told_by(tiny_model()),
        out=out,
        progress=False,
        workers=0,
        **options,
    )


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """Two checkpoints of one network, each in a run folder of its own; the first is right on all images as they are."""
    root = tmp_path_factory.mktemp("versions")
    return measure(root / "v1"), measure(root / "v2", tiny_model(seed=3))


def correct(run: ipvit.Run, experiment: str, **condition) -> dict[str, float]:
    """By image, in how many of the runs it was right, as a share; plainly from the records."""
    rows = run.records(experiment).filter(*(pl.col(name) == value for name, value in condition.items()))
    found: dict[str, list[bool]] = {}
    for image, right in rows.select("image", "correct").iter_rows():
        found.setdefault(str(image), []).append(right)
    return {image: sum(values) / len(values) for image, values in found.items()}


def test_a_row_is_the_paired_test_of_its_condition(versions):
    a, b = versions
    found = ipvit.diff(a.out, b.out)
    (row,) = found.tables["accuracy"].to_dicts()
    old, new = correct(a, "accuracy"), correct(b, "accuracy")
    first, second = ([side[image] for image in sorted(old)] for side in (old, new))
    paired = paired_proportions(second, first)
    assert row["value_a"] == pytest.approx(100 * sum(first) / 30) and row["value_b"] == pytest.approx(
        100 * sum(second) / 30
    )
    assert [row["difference"], row["difference_low"], row["difference_high"]] == pytest.approx(
        [100 * paired.difference, 100 * paired.low, 100 * paired.high]
    )
    assert row["p"] == row["p_holm"] == pytest.approx(mcnemar(second, first).p_value)
    assert (row["gained"], row["lost"]) == (
        sum(two > one for one, two in zip(first, second, strict=True)),
        sum(two < one for one, two in zip(first, second, strict=True)),
    )
    assert found.pairs == (("v1:tiny", "v2:tiny"),)


def test_rows_of_a_table_are_corrected_together_and_have_their_drops(versions):
    found = ipvit.diff(*versions)
    rows = found.tables["occlusion"].to_dicts()
    assert [row["information_loss"] for row in rows] == [0, 0.3, 0.5, 0.9]
    assert [row["p_holm"] for row in rows] == pytest.approx(holm([row["p"] for row in rows]).tolist())
    for row in rows[1:]:
        old, new = (
            {loss: correct(run, "occlusion", information_loss=loss) for loss in (0.0, row["information_loss"])}
            for run in versions
        )
        lost = [
            (new[0.0][i] - new[row["information_loss"]][i]) - (old[0.0][i] - old[row["information_loss"]][i])
            for i in old[0.0]
        ]
        assert row["drop_difference"] == pytest.approx(100 * np.mean(lost))
    assert rows[0]["drop_difference"] is None


def test_a_profile_has_the_area_of_each_and_their_difference(versions):
    a, b = versions
    rows = {row["question"]: row for row in ipvit.diff(a, b).profile.to_dicts()}
    for question, table, column in (
        ("clean", "accuracy", "top1"),
        ("occlusion-random", "occlusion-area", "area_retained"),
    ):
        values = [run.tables[table][column][0] for run in (a, b)]
        if None in values:
            continue
        assert [rows[question]["value_a"], rows[question]["value_b"]] == pytest.approx(values)
        assert rows[question]["difference"] == pytest.approx(values[1] - values[0])


def test_flipped_images_are_those_that_one_model_has_right_the_most_confident_first(versions):
    a, b = versions
    flips = ipvit.diff(a, b).flips
    old, new = correct(a, "accuracy"), correct(b, "accuracy")
    wrong = flips.filter(pl.col("now") == "wrong")
    assert set(wrong["image"]) == {image for image in old if old[image] > new[image]} != set()
    assert set(flips.filter(pl.col("now") == "right")["image"]) == {i for i in old if old[i] < new[i]}
    assert wrong["confidence_b"].to_list() == sorted(wrong["confidence_b"], reverse=True)
    assert set(wrong["label"]) <= set(CLASSES) and (wrong["prediction_a"] == wrong["label"]).all()


def test_swapping_the_sides_turns_the_signs(versions):
    there, back = ipvit.diff(*versions), ipvit.diff(*reversed(versions))
    for name in ("accuracy", "occlusion"):
        one, other = there.tables[name], back.tables[name]
        assert one["difference"].to_list() == pytest.approx([-value for value in other["difference"]])
        assert one["p"].to_list() == pytest.approx(other["p"].to_list())
        assert one["gained"].to_list() == other["lost"].to_list()
        assert one["detectable"].to_list() == pytest.approx(other["detectable"].to_list())


def test_a_run_and_its_repetition_differ_in_nothing(versions, tmp_path):
    again = measure(tmp_path / "again")
    found = ipvit.diff(versions[0], again)
    for table in found.tables.values():
        assert (table["difference"] == 0).all() and (table["p"] == 1).all()
        assert (table["gained"] + table["lost"] == 0).all()
        assert table["detectable"].is_not_null().all(), "also a test that found nothing could have found something"
    assert found.flips.is_empty()


def test_another_seed_is_told_and_not_refused(versions, tmp_path):
    other = measure(tmp_path / "other", seed=7)
    found = ipvit.diff(versions[0], other)
    assert found.tables["occlusion"].height == 4 and not found.refused
    assert any("Other seeds (0 and 7)" in note for note in found.notes)


def test_one_model_on_each_side_is_compared_whatever_its_name(versions, tmp_path):
    renamed = measure(tmp_path / "v3", tiny_model(seed=3, name="new"))
    assert ipvit.diff(versions[0], renamed).pairs == (("tiny", "new"),)


def test_several_models_are_matched_by_name_and_the_others_told(tmp_path):
    a = measure(tmp_path / "a", [tiny_model(name="one"), tiny_model(1, name="two")])
    b = measure(tmp_path / "b", [tiny_model(2, name="two"), tiny_model(3, name="three")])
    found = ipvit.diff(a, b)
    assert found.pairs == (("a:two", "b:two"),)
    assert any(note.endswith("not compared: one.") for note in found.notes)
    assert any(note.endswith("not compared: three.") for note in found.notes)
    both = ipvit.diff(f"{a.out}:one", f"{a.out}:two")
    assert both.pairs == (("one", "two"),)
    expected = a.differences["accuracy"].row(0, named=True)
    assert both.tables["accuracy"]["difference"][0] == pytest.approx(-expected["difference"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": photos(30, seed=9)}, "accuracy, occlusion: other data: "),
        ({"experiments": small_occlusion(fill="mean")}, "occlusion: other protocol: fill black and mean"),
        ({"experiments": small_occlusion(grid="8x8")}, "occlusion: other protocol: grid 4x4 and 8x8"),
        ({"experiments": ipvit.Shuffle(grids=("2x2",))}, "no experiment in common"),
    ],
)
def test_other_data_and_other_protocols_are_refused_by_name(versions, tmp_path, change, reason, capsys):
    other = measure(tmp_path / "other", **change)
    assert main(["diff", str(versions[0].out), str(other.out)]) == 2
    assert reason in complaint(capsys)


def test_another_answer_space_is_refused_by_name(tmp_path, capsys):
    images = torch.zeros(30, 3, 16, 16, dtype=torch.uint8)
    two = MemoryDataset(images, np.arange(30) % 2, CLASSES[:2], ids=[f"photo {i}" for i in range(30)])
    for name, answers in (("all", "all"), ("data", "data")):
        measure(tmp_path / name, data=two, answers=answers)
    assert main(["diff", str(tmp_path / "all"), str(tmp_path / "data")]) == 2
    assert "other answer space: all:tiny chose among 4 answers, data:tiny among 2" in complaint(capsys)


def test_what_is_measured_alike_is_compared_beside_what_is_not(versions, tmp_path):
    other = measure(tmp_path / "v4", experiments=[ipvit.Accuracy(), small_occlusion(levels=(0, 0.5, 0.7))])
    found = ipvit.diff(versions[0], other)
    assert found.tables["occlusion"]["information_loss"].to_list() == [0, 0.5]
    assert any(
        note.startswith("occlusion: other settings, levels 0, 0.3, 0.5, 0.9 and 0, 0.5, 0.7") for note in found.notes
    )
    part = measure(tmp_path / "v5", experiments=[ipvit.Accuracy(), small_occlusion(fill="mean")])
    found = ipvit.diff(versions[0], part)
    assert list(found.tables) == ["accuracy"]
    assert found.refused == {("occlusion", "v1:tiny and v5:tiny"): "other protocol: fill black and mean"}


def test_a_smaller_run_is_compared_on_the_images_of_both(versions, tmp_path):
    less = measure(tmp_path / "less", limit=12)
    found = ipvit.diff(versions[0], less)
    assert found.tables["accuracy"]["n_images"].to_list() == [12]
    assert any("compared on those that both used" in note for note in found.notes)


def test_a_row_is_found_by_all_of_its_condition_also_where_one_row_is_shared():
    """Of two old folders whose corruptions have the clean images in common only."""
    found = ipvit.diff(OLD / "all-experiments", OLD / "several-studies")
    (row,) = found.tables["corruptions"].to_dicts()
    assert row["difference"] == pytest.approx(row["value_b"] - row["value_a"])
    assert row["difference"] == pytest.approx(found.tables["accuracy"]["difference"][0])


def test_old_run_folders_are_compared_without_measuring_anew():
    found = ipvit.diff(OLD / "all-experiments:deit", f"{OLD / 'all-experiments'}:resnet")
    for name, expected in ipvit.Run(OLD / "all-experiments").differences.items():
        table = found.tables[name]
        assert table["difference"].to_list() == pytest.approx([-value for value in expected["difference"]]), name
        assert table["p"].to_list() == pytest.approx(expected["p"].to_list(), nan_ok=True), name
    assert found.refused["feature-drop", "deit and resnet"].startswith("measured otherwise: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nix", "all-experiments"], "'nix' is not a run folder"),
        (["all-experiments:dei", "several-studies"], "Did you mean 'deit'?"),
        (["all-experiments", "all-experiments"], "are the same results; name two models"),
        (["all-experiments:resnet", "several-studies"], "no name in common; say which to compare"),
        ([".", "all-experiments"], "is a folder of run folders; give one of them"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_line(arguments, said, monkeypatch, capsys):
    monkeypatch.chdir(OLD)
    assert main(["diff", *arguments]) == 2
    assert said in complaint(capsys)


def test_the_terminal_shows_the_tables_within_its_width(versions, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["diff", str(versions[0].out), str(versions[1].out)]) == 0
    told = capsys.readouterr().out
    assert "Smallest difference found with 80 % power: " in told and "B has wrong" in told
    assert max(map(len, told.splitlines())) <= 80


def test_json_has_everything_and_nothing_that_is_no_number(versions, capsys):
    assert main(["diff", str(versions[0].out), str(versions[1].out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    assert found["pairs"] == [{"model_a": "v1:tiny", "model_b": "v2:tiny"}]
    assert set(found["tables"]) == {"accuracy", "occlusion"} and found["flips"] and found["profile"]
    assert all(math.isfinite(row["detectable"]) for rows in found["tables"].values() for row in rows)
