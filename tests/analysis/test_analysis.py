"""What follows from records without an experiment's own analysis, and what is kept of it in the run folder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs
import pytest

import ipvit
from helpers.paths import REPOSITORY
from helpers.plain_loops import photos, plain, tiny_resnet, wrapped
from ipvit.analysis.aggregate import accuracy_table, mean_table
from ipvit.analysis.columns import Column
from ipvit.errors import InputError
from ipvit.experiments.base import Experiment
from ipvit.experiments.earlier import RENAMED
from ipvit.experiments.registry import experiment_class

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
    accuracies = accuracy_table(records, by).sort("amount", maintain_order=True).select(cs.exclude("^top5.*$"))
    assert table.select(cs.matches("^top5")).null_count().row(0) == (4, 4, 4, 4), "of four answers five are all"
    assert table.select(accuracies.columns).equals(accuracies)
    reds = mean_table(records, by, ["red"]).sort("amount", maintain_order=True)
    assert table.select("red", "red_low", "red_high").equals(reds.select("red", "red_low", "red_high"))
    assert "place" not in table.columns  # it is the same everywhere


def test_models_are_compared_at_every_level_and_missing_values_are_counted(run):
    assert run.differences["grey"]["amount"].to_list() == [0.0, 1.0]
    assert "net: 2 reds were not numbers." in run.notes["grey"]  # one of a batch, under two conditions, for two models


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
    assert again.summary_of("grey") == run.summary_of("grey")
    assert "as of its last run" in again.notes["grey"][0] and again.notes["grey"][1:] == run.notes["grey"]
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
        in REPOSITORY.joinpath("CHANGELOG.md").read_text()
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
        return values_of(
            pl.DataFrame({"image": images, "correct": correct, "label": [0] * len(images)}),
            (),
            "correct",
            proportions=True,
        )

    a = values(["a", "b", "c", "d"], [True, True, False, True])
    b = values(["d", "b", "x"], [False, True, True])
    table = paired_differences({"A": a, "B": b})
    assert table["n_images"].to_list() == [2] and table["difference"].to_list() == [50.0]
    assert paired_differences({"A": a}) is None
    assert paired_differences({"A": a, "C": values(["y"], [True])}) is None
    assert dataclasses.is_dataclass(a) and not np.isnan(a.means).any()


# --- what an analysis without code of its own does with any columns ---


@dataclasses.dataclass(frozen=True)
class Level(ipvit.Condition):
    level: float
    run: int = 0


def experiment_of(columns, measured, conditions=(Level(0.0), Level(1.0)), **fields) -> ipvit.Experiment:
    """Return an experiment that measures what a function of model, condition and image number says."""

    class Made(ipvit.Experiment):
        """Made up."""

        name = "made"
        title = "Made up"

        def conditions(self, model):
            return conditions

        def measure(self, model, batch):
            numbers = batch.positions
            for condition in batch.conditions:
                yield ipvit.Records(condition, measured(model, condition, numbers))

        def analysis(self):
            return ipvit.Analysis.of(self, columns, **fields)

    return Made()


def run_made(tmp_path, experiment, names=("a", "b")) -> ipvit.Run:
    models = [plain() if name == "a" else wrapped(tiny_resnet().backbone, name=name) for name in names]
    models[0].name = "a"
    return ipvit.run(experiment, models=models, data=photos(8), out=tmp_path / "run", workers=0, progress=False)


def test_without_a_word_about_its_columns_an_experiment_has_its_table_comparison_chart_and_sentences(tmp_path):
    class Bare(ipvit.Experiment):
        """Says nothing."""

        name = "bare"
        title = "Bare"

        def conditions(self, model):
            return [Level(0.0)]

        def measure(self, model, batch):
            for condition in batch.conditions:
                yield ipvit.Records(condition, ipvit.classify(model, batch.images, batch.labels))

    run = run_made(tmp_path, Bare())
    assert run.tables["bare"].height == 2 and run.differences["bare"].height == 1 and run.figures["bare"]
    assert all("top-1 (%) is" in sentence for sentence in run.summary_of("bare"))
    assert run.report().is_file()


def test_a_proportion_of_any_name_is_compared_in_points(tmp_path):
    columns = {"right": ipvit.Column(unit="percent", average="proportion", of="hits")}
    hits = lambda model, condition, n: {"hits": n % 2 == 0 if model.name == "a" else n >= 0}  # noqa: E731
    run = run_made(tmp_path, experiment_of(columns, hits, metric="hits"))
    assert run.tables["made"]["right"].to_list() == [50.0, 100.0] * 2
    assert run.differences["made"]["difference"].to_list() == [-50.0, -50.0]


def test_a_mean_over_images_that_share_masks_keeps_its_unit_and_its_wider_interval(tmp_path):
    def measured(model, condition, n):
        return {
            "size": 100.0 + n // 4 * 10 + (model.name == "a") * 7.5 + 0.1 * n,
            "shared_mask": (n // 4).astype(np.int32),
        }

    run = run_made(tmp_path, experiment_of({"size": ipvit.Column(average="mean")}, measured, metric="size"))
    row = run.differences["made"].row(0, named=True)
    assert row["difference"] == pytest.approx(7.5, abs=1e-4) and row["difference_low"] <= 7.5 <= row["difference_high"]
    table = run.tables["made"].row(0, named=True)
    assert table["size_high"] - table["size_low"] > 60  # two masks: one degree of freedom


def test_flagged_results_are_left_out_of_means_and_comparisons(tmp_path):
    columns = {
        "size": ipvit.Column(average="mean"),
        "sound": ipvit.Column(average="flag", missing="results did not converge; they are left out."),
    }
    measured = lambda model, condition, n: {"size": np.where(n % 2 == 0, 1.0 * n, 1e6), "sound": n % 2 == 0}  # noqa: E731
    run = run_made(tmp_path, experiment_of(columns, measured, metric="size"))
    assert run.tables["made"]["size"].to_list() == [3.0] * 4 and run.tables["made"]["n_images"].to_list() == [4] * 4
    assert "b: 8 results did not converge; they are left out." in run.notes["made"]


def test_two_columns_of_one_record_and_missing_values_under_another_name(tmp_path):
    columns = {
        "raw": ipvit.Column(average="mean", of="x", missing="values of x were no numbers."),
        "again": ipvit.Column(average="mean", of="x"),
        "rare": ipvit.Column(average="mean"),
    }

    def measured(model, condition, n):
        return {"x": np.where(n == 0, np.nan, 1.0 * n), "rare": np.where(n == 3, 2.0, np.nan)}

    run = run_made(tmp_path, experiment_of(columns, measured, metric="x"))
    table = run.tables["made"]
    assert table["raw"].to_list() == table["again"].to_list() == [4.0] * 4
    assert table["raw_n"].to_list() == [7] * 4 and table["rare_n"].to_list() == [1] * 4  # of eight images
    assert "a: 2 values of x were no numbers." in run.notes["made"]


def test_what_is_constant_by_chance_is_no_field_of_the_condition(tmp_path):
    measured = lambda model, condition, n: {"x": 1.0 * n, "extra": n * 0 if model.name == "a" else n}  # noqa: E731
    run = run_made(tmp_path, experiment_of({"x": ipvit.Column(average="mean")}, measured, metric="x"))
    assert "extra" not in run.tables["made"].columns and run.tables["made"].height == 4
    assert run.differences["made"].height == 2
    assert ipvit.Run(run.out).tables["made"].equals(run.tables["made"])


def test_models_that_share_no_condition_are_not_compared_and_it_is_said(tmp_path):
    class Other(Level):
        pass

    experiment = experiment_of({"x": ipvit.Column(average="mean")}, lambda model, c, n: {"x": 1.0 * n}, metric="x")

    class Apart(type(experiment)):
        """Has other levels for other models."""

        name = "apart"

        def conditions(self, model):
            return [Level(0.0 if model.name == "a" else 1.0)]

    run = run_made(tmp_path, Apart())
    assert "apart" not in run.differences
    assert any("are not compared" in note for note in run.notes["apart"])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"clean": {"levle": 0.0}}, "clean of its analysis names 'levle', .* Did you mean 'level'"),
        ({"compare_by": ("level", "grid")}, "compare_by of its analysis names 'grid'"),
    ],
)
def test_an_analysis_that_names_what_no_condition_has_is_refused_before_anything_is_measured(tmp_path, fields, words):
    experiment = experiment_of({"x": ipvit.Column(average="mean")}, lambda model, c, n: {"x": 1.0 * n}, **fields)
    with pytest.raises(InputError, match=words):
        run_made(tmp_path, experiment)
    assert not (tmp_path / "run").exists()


def test_the_default_sentence_says_which_way_and_where(tmp_path):
    columns = {"x": ipvit.Column(average="mean"), "level": ipvit.Column(unit="share", level=True)}
    measured = lambda model, condition, n: {"x": 2.0 + 3 * condition.level + 0.0 * n}  # noqa: E731
    run = run_made(tmp_path, experiment_of(columns, measured, metric="x", clean={"level": 0.0}))
    assert run.summary_of("made")[0] == "a: x rises from 2.000 to 5.000 at level 100 %."
    assert run.answers_of("made") == {"a": run.summary_of("made")[0], "b": run.summary_of("made")[1]}


def test_tables_of_an_analysis_that_is_not_here_are_those_of_its_last_run_and_say_so(tmp_path):
    class Halved(ipvit.Analysis):
        """Makes tables of its own."""

        def tables(self, reductions):
            table = super().tables(reductions)[self.name]
            return {self.name: table.with_columns(pl.col("x") / 2)}

        def answer(self, tables):
            return {"a": "half of it"}

        def summary(self, tables):
            return ["Halved."]

    experiment = experiment_of({"x": ipvit.Column(average="mean")}, lambda model, c, n: {"x": 1.0 * n}, metric="x")

    class Own(type(experiment)):
        """Brings its analysis."""

        name = "own"

        def analysis(self):
            return Halved.of(self, {"x": ipvit.Column(average="mean")}, metric="x")

    run = run_made(tmp_path, Own())
    again = ipvit.Run(run.out)
    assert again.tables["own"].equals(run.tables["own"]) and again.differences["own"].equals(run.differences["own"])
    assert again.answers_of("own") == {"a": "half of it"} and again.summary_of("own") == ["Halved."]
    assert [*again.figures] == [*run.figures] and again.report().is_file()
    mark = again.notes["own"][0]
    assert (
        "as of its last run" in mark and "Halved" in mark and not any("last run" in note for note in run.notes["own"])
    )
    (run.out / "records" / "own" / "last-run.json").unlink()  # a folder of an earlier version has none
    plainer = ipvit.Run(run.out)
    assert any("made without" in note and "Halved" in note for note in plainer.notes["own"])
    assert not plainer.tables["own"].equals(run.tables["own"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("name = 'new'", "has no title"),
        ("title = 'New'", "has no name"),
        ("name = '../escape'\n    title = 'New'", "is called '../escape'"),
        ("name = 'my exp/one'\n    title = 'New'", "files are named after an experiment"),
    ],
)
def test_an_experiment_without_a_usable_name_is_refused(tmp_path, monkeypatch, body, words):
    monkeypatch.chdir(tmp_path)
    Path("new.py").write_text(f"import ipvit\nclass New(ipvit.Experiment):\n    {body}\n")
    with pytest.raises(InputError, match=words):
        experiment_class("new.py:New")


def test_reading_a_folder_imports_no_file_that_its_study_names(run, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\ndef f(*arguments): pass\n")
    evil = f"{tmp_path / 'evil.py'}:f"
    (run.out / "study.yaml").write_text(
        "models: [a]\ndata: images\nexperiments:\n"
        f"  - corruptions: {{corruptions: ['{evil}']}}\n  - occlusion: {{fill: '{evil}'}}\n"
        f"  - attack: {{attacks: ['{evil}']}}\n  - '{evil}': {{}}\n"
    )
    assert ipvit.Run(run.out).report().is_file()
    assert not (tmp_path / "ran").exists()


def test_no_interval_of_a_mean_leaves_what_the_quantity_can_be():
    records = pl.DataFrame({"model": "a", "image": ["x", "y"], "correlation": [-0.9, 0.9], "cosine": [0.99, 1.0]})
    known = {name: Column(range=(-1, 1)) for name in ("correlation", "cosine")}
    (row,) = mean_table(records, ["model"], ["correlation", "cosine"], known).to_dicts()
    assert -1 <= row["correlation_low"] < -0.9 and 0.9 < row["correlation_high"] <= 1
    assert -1 <= row["cosine_low"] < 0.995 < row["cosine_high"] <= 1
    (free,) = mean_table(records, ["model"], ["correlation"]).to_dicts()
    assert free["correlation_low"] < -1 and free["correlation_high"] > 1
