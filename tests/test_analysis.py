"""What follows from records without an experiment's own analysis, and what is kept of it in the run folder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import ipvit
from ipvit.analysis.aggregate import accuracy_table, mean_table
from ipvit.errors import InputError
from ipvit.experiments.base import Experiment
from ipvit.experiments.earlier import RENAMED
from ipvit.experiments.registry import experiment_class
from plain_loops import photos, plain, tiny_resnet, wrapped

GREY = """
import dataclasses
import os
import ipvit

if os.environ.get("MARK"):
    open(os.environ["MARK"], "w").close()

@dataclasses.dataclass(frozen=True)
class GreyCondition(ipvit.Condition):
    amount: float
    place: str = "all"

class Grey(ipvit.Experiment):
    name = "grey"
    title = "Loss of colour"
    question = "How much does a network rely on colour?"
    amounts: tuple[float, ...] = (0.0, 1.0)

    def conditions(self, model):
        return [GreyCondition(amount) for amount in self.amounts]

    def measure(self, model, batch):
        grey = batch.images.mean(dim=1, keepdim=True).expand_as(batch.images)
        for condition in batch.conditions:
            images = batch.images.lerp(grey, condition.amount)
            red = images[:, 0].mean(dim=(1, 2))
            red[0] = float("nan")
            yield ipvit.Records(condition, ipvit.classify(model, images, batch.labels) | {"red": red})

    def analysis(self):
        columns = {
            "amount": ipvit.Column(title="colour lost", unit="share", level=True),
            "red": ipvit.Column(average="mean", missing="reds were not numbers."),
        }
        return ipvit.Analysis.of(self, columns, clean={"amount": 0.0})
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ipvit.Run:
    monkeypatch.chdir(tmp_path)
    Path("grey.py").write_text(GREY)
    models = [plain(), wrapped(tiny_resnet().backbone, name="other")]
    return ipvit.run(
        experiment_class("grey.py:Grey")(),
        models=models,
        data=photos(9),
        out=tmp_path / "run",
        workers=0,
        progress=False,
    )


def test_whatever_says_how_it_is_averaged_is_in_the_table_with_its_interval(run):
    records, table = run.records("grey"), run.tables["grey"]
    by = ["model", "amount"]
    accuracies = accuracy_table(records, by).sort("amount", maintain_order=True)
    assert table.select(accuracies.columns).equals(accuracies)
    reds = mean_table(records, by, ["red"]).sort("amount", maintain_order=True)
    assert table.select("red", "red_low", "red_high").equals(reds.select("red", "red_low", "red_high"))
    assert "place" not in table.columns  # it is the same everywhere


def test_models_are_compared_at_every_level_and_missing_values_are_counted(run):
    assert run.differences["grey"]["amount"].to_list() == [0.0, 1.0]
    assert "4 reds were not numbers." in run.notes("grey")  # one of a batch, under two conditions, for two models


def test_a_chart_over_the_level_and_a_sentence_for_each_model_follow(run):
    chart = run.figures["grey"].to_dict()
    assert "colour lost" in json.dumps(chart) and "top-1 (%)" in json.dumps(chart)
    assert [sentence.partition(":")[0] for sentence in run.summary_of("grey")] == [m.name for m in run.manifest.models]


def test_the_analysis_never_sees_the_records_of_two_models(run, monkeypatch):
    seen = []
    reduce = ipvit.Analysis.reduce

    def watched(self, records):
        seen.append(records["model"].unique().to_list())
        return reduce(self, records)

    monkeypatch.setattr(ipvit.Analysis, "reduce", watched)
    ipvit.Run(run.out, [experiment_class("grey.py:Grey")()]).tables  # noqa: B018
    assert len(seen) == 2 and all(len(models) == 1 for models in seen)


def test_a_folder_gives_the_same_tables_without_the_file_and_runs_none_of_its_code(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MARK", str(tmp_path / "ran"))
    (run.out / "study.yaml").write_text(
        (run.out / "study.yaml").read_text().replace("- grey:", f"- {tmp_path / 'grey.py'}:Grey:")
    )
    again = ipvit.Run(run.out)
    assert again.tables["grey"].equals(run.tables["grey"])
    assert again.summary_of("grey") == run.summary_of("grey") and again.notes("grey") == run.notes("grey")
    page = again.report().read_text()
    assert "Loss of colour" in page and "colour lost" in page
    assert not (tmp_path / "ran").exists()
    (tmp_path / "grey.py").unlink()
    assert ipvit.Run(run.out).tables["grey"].equals(run.tables["grey"])


def test_what_the_columns_mean_is_kept_as_data(run):
    kept = ipvit.Analysis.model_validate_json((run.out / "records" / "grey" / "analysis.json").read_bytes())
    assert kept.columns["amount"] == ipvit.Column(title="colour lost", unit="share", level=True)
    assert kept.clean == {"amount": 0.0} and kept.metric == "correct"
    (run.out / "records" / "grey" / "analysis.json").write_text("{")  # damaged: nothing is known of the columns
    assert "grey" not in ipvit.Run(run.out).analyses


def test_chance_is_one_of_the_answers_where_accuracy_is_measured():
    assert ipvit.Accuracy().analysis().chance(50) == 2.0
    assert ipvit.Correlation().analysis().chance(50) is None


def test_every_level_and_every_quantity_that_is_compared_is_a_column_with_a_meaning():
    for kind in (ipvit.Occlusion, ipvit.FeatureDrop, ipvit.Shuffle, ipvit.Position, ipvit.Attack, ipvit.Corruptions):
        analysis = kind().analysis()
        assert analysis.levels, kind
        assert analysis.clean, kind
        assert analysis.metric_column.unit == "percent", kind


@pytest.mark.parametrize("member", RENAMED)
def test_an_experiment_of_the_earlier_interface_is_refused_with_what_takes_its_place(member, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("old.py").write_text(
        "import ipvit\nclass Old(ipvit.Experiment):\n    name = 'old'\n    title = 'Old'\n"
        f"    def {member}(self, *arguments):\n        return None\n"
    )
    with pytest.raises(InputError, match=f"'old.py:Old' is written for an earlier version: '{member}' is now"):
        experiment_class("old.py:Old")
    assert (
        RENAMED[member].partition("(")[0].split(" and ")[0].split(".")[-1]
        in Path(__file__).parents[1].joinpath("CHANGELOG.md").read_text()
    )


def test_a_parameter_may_have_a_name_that_a_member_once_had(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("new.py").write_text(
        "import ipvit\nclass New(ipvit.Experiment):\n    name = 'new'\n    title = 'New'\n    reads: int = 3\n"
    )
    assert experiment_class("new.py:New")().reads == 3


def test_an_experiment_is_frozen_and_keeps_no_state():
    experiment = ipvit.Occlusion()
    with pytest.raises(ValueError, match="frozen"):
        experiment.runs = 3
    assert not Experiment.__private_attributes__
    assert all(
        not kind.__private_attributes__ for kind in Experiment.__subclasses__() if kind.__module__.startswith("ipvit")
    )


def test_values_of_different_images_meet_on_those_both_have():
    from ipvit.analysis.aggregate import paired_differences
    from ipvit.analysis.reduction import values_of

    def values(images, correct):
        return values_of(pl.DataFrame({"image": images, "correct": correct, "label": [0] * len(images)}), (), "correct")

    a = values(["a", "b", "c", "d"], [True, True, False, True])
    b = values(["d", "b", "x"], [False, True, True])
    table = paired_differences({"A": a, "B": b})
    assert table["n_images"].to_list() == [2] and table["difference"].to_list() == [50.0]
    assert paired_differences({"A": a}) is None
    assert paired_differences({"A": a, "C": values(["y"], [True])}) is None
    assert dataclasses.is_dataclass(a) and not np.isnan(a.means).any()
