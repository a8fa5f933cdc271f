"""A study tried in small: what is counted, what is expected, and that nothing is left behind."""

import json
from pathlib import Path

import pytest
import torch
import yaml

import ipvit
from helpers.small_runs import Picky, photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.api import bind_context
from ipvit.cli import main
from ipvit.core.run_config import RunConfig
from ipvit.engine.costs import setting_costs
from ipvit.engine.costs.estimate import Estimate, TaskEstimate, estimate
from ipvit.engine.types import Selected


def tried(experiments, out, models=None, **settings):
    selected, settings = [Selected(experiment) for experiment in experiments], RunConfig(workers=0, **settings)
    return estimate(selected, models or [tiny_model()], photos(), settings, out, bind_context())


def test_images_conditions_and_results_are_counted(tmp_path):
    found = tried([small_occlusion(), ipvit.Shuffle(grids=("2x2", "4x4"))], tmp_path / "run")
    occlusion, shuffle = found.parts
    assert (occlusion.images, occlusion.conditions, occlusion.results) == (30, 7, 210)
    assert (shuffle.images, shuffle.conditions, shuffle.results) == (30, 3, 90)
    assert found.images == 30 and found.memory > 1e6 and found.disk_free > 0
    assert not (tmp_path / "run").exists(), "nothing is left behind"


def test_what_is_on_disk_is_not_counted_again(tmp_path):
    ipvit.run(small_occlusion(), models=tiny_model(), data=photos(), out=tmp_path, workers=0, progress=False)
    (part,) = tried([small_occlusion(runs=3)], tmp_path).parts
    assert part.results == 30 * 3
    (part,) = tried([small_occlusion()], tmp_path).parts
    assert (part.results, part.seconds, part.disk) == (0, 0, 0)


def test_time_and_disk_grow_with_the_images(tmp_path):
    few, many = (tried([small_occlusion()], tmp_path, limit=limit).parts[0] for limit in (10, 30))
    assert few.results * 3 == many.results
    assert many.disk == pytest.approx(3 * few.disk, rel=0.2) and many.disk > 0


def test_the_expected_disk_is_about_what_a_run_takes(tmp_path):
    experiment = small_occlusion(runs=40)
    expected = tried([experiment], tmp_path).disk
    ipvit.run(experiment, models=tiny_model(), data=photos(), out=tmp_path, workers=0, progress=False)
    taken = sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    assert taken / 3 < expected < 3 * taken


def test_the_disk_of_one_condition_and_of_a_second_data_set_is_its_own(tmp_path):
    stimuli = ipvit.ShapeBias(stimuli="demo:trifeature/cue-conflict")
    model, data = ipvit.load_model("demo:resnet_micro"), ipvit.load_dataset("demo:trifeature")
    selected = [Selected(ipvit.Accuracy()), Selected(stimuli)]
    found = estimate(selected, [model], data, RunConfig(workers=0, limit=400), tmp_path, bind_context())
    assert all(part.conditions == 1 and 5 < part.disk / part.results < 150 for part in found.parts)


def test_an_experiment_that_fails_is_told_of(tmp_path):
    good, bad = tried([small_occlusion(), Picky(bad=(0,))], tmp_path).parts
    assert not good.error and bad.error == "RuntimeError: number 0 is bad" and bad.seconds is None


def test_an_experiment_that_first_trains_something_is_not_timed(tmp_path):
    class Trained(Picky):
        name = "trained"

        def prepare(self, model, bench):
            raise AssertionError("not in a check")

    (part,) = tried([Trained()], tmp_path).parts
    assert part.seconds is None and part.error == "" and part.results == 150


def test_attacks_that_train_nothing_are_timed(tmp_path):
    attack = ipvit.Attack(attacks=("fgsm", "pgd"), epsilons=(8.0,), steps=2)
    (part,) = tried([attack], tmp_path).parts
    assert part.seconds is not None and part.seconds > 0 and part.disk > 0


def test_the_command_line_prints_the_plan(here, capsys):
    study = {"models": "net.py:make", "data": "images", "experiments": {"occlusion": {"grid": "4x4", "runs": 2}}}
    Path("study.yaml").write_text(yaml.safe_dump(study))
    assert main(["check", "study.yaml", "--workers", "0"]) == 0
    printed = capsys.readouterr().out
    assert "20 x 19" in printed and "20 images, 1 model, 380 results to measure" in printed and "expected: " in printed
    assert main(["check", "study.yaml", "--workers", "0", "--json", "--shard", "1/4"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["parts"][0]["results"] == 380 and content["seconds"] >= 0 and content["shard"] == "1/4"
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": "net.py:nothing"}, "has no function 'nothing'"),
        ({"data": "nowhere"}, "there is no data 'nowhere'"),
        ({"experiments": {"occlusion": {"grid": "224x224"}}}, "224x224 has more cells than"),
        ({"experiments": {"oclusion": {}}}, "oclusion"),
        ({"precision": "fp8"}, "precision"),
    ],
)
def test_a_wrong_study_is_one_line_and_exit_code_2(here, capsys, change, message):
    study = {"models": "net.py:make", "data": "images", "experiments": {"occlusion": {"grid": "4x4"}}} | change
    Path("study.yaml").write_text(yaml.safe_dump(study))
    assert main(["check", "study.yaml"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_failing_network_makes_the_check_fail(here, capsys):
    study = {"models": "net.py:broken", "data": "images", "experiments": {"occlusion": {"grid": "4x4"}}}
    Path("study.yaml").write_text(yaml.safe_dump(study))
    assert main(["check", "study.yaml", "--workers", "0"]) == 1
    assert "occlusion fails on" in capsys.readouterr().out


def test_without_a_study_every_experiment_that_fits_is_checked_and_the_others_say_why_not(here, capsys):
    arguments = ["check", "--model", "mine=net.py:make", "--data", "images", "--limit", "8", "--workers", "0"]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"accuracy", "occlusion", "attack"} <= {part["experiment"] for part in found["parts"]}
    assert {part["model"] for part in found["parts"]} == {"mine"}
    assert any(text.startswith("attention needs the capability attention") for text in found["left_out"])
    assert any(text.startswith("shift: ") for text in found["left_out"]) and not Path("runs").exists()
    assert main(["check", "--data", "images"]) == 2
    assert "Give --model: ipvit check --model NAME --data DATA" in capsys.readouterr().err


def test_a_study_is_checked_with_another_model_in_its_place(here, capsys):
    Path("study.yaml").write_text(
        yaml.safe_dump({"models": "net.py:broken", "data": "images", "experiments": "accuracy"})
    )
    assert main(["check", "study.yaml", "--model", "mine=net.py:make", "--workers", "0", "--json"]) == 0
    assert {part["model"] for part in json.loads(capsys.readouterr().out)["parts"]} == {"mine"}


def test_attacks_that_train_nothing_are_timed_beside_patches_that_are_trained_first(tmp_path, capsys):
    from ipvit.commands.scale import _print_estimate
    from ipvit.core.shard import Shard

    attack = ipvit.Attack(
        attacks=("fgsm", "pgd", "patch"), epsilons=(8.0,), steps=2, patch_areas=(0.1,), patch_grid="4x4"
    )
    found = tried([attack], tmp_path)
    timed, trained = found.parts
    assert timed.seconds is not None and timed.seconds > 0 and timed.disk and not timed.error
    assert trained.seconds is None and trained.disk is None and found.disk == timed.disk
    assert timed.conditions + trained.conditions == len(
        attack.bind([tiny_model()], photos(), bind_context()).conditions(tiny_model())
    )
    _print_estimate(found, 1, Shard())
    said = capsys.readouterr().out
    assert "trains first" in said and "0.0 kB" not in said


def test_it_says_what_other_settings_would_cost_and_change(tmp_path):
    experiments = [small_occlusion(), ipvit.Accuracy()]
    plain = tried(experiments, tmp_path / "run", batch_size=6).settings
    assert [text.split(":")[0] for text in plain] == [
        "precision fp32",
        "backend torch",
        "compile",
        "batch-size 6",
        "workers 0",
    ]
    assert not any("measured again" in text for text in plain), "nothing is there"
    assert "openvino would compute occlusion, accuracy," in plain[1]
    assert "more would gain nothing" in plain[4] or "would keep up" in plain[4]
    ipvit.run(ipvit.Accuracy(), models=tiny_model(), data=photos(), out=tmp_path, workers=0, progress=False)
    there = tried(experiments, tmp_path).settings
    assert "the 30 results that the folder has would be measured again" in there[0]
    other = tried(experiments, tmp_path, precision="bf16").settings
    assert other[0].startswith("precision bf16: fp32 would be the reference") and "measured again" not in other[0]


INSTRUCTIONS = {True: "take longer", None: "take longer", False: "take no longer"}


@pytest.mark.parametrize(("instructions", "words"), INSTRUCTIONS.items())
def test_16_bits_are_said_to_be_faster_only_where_they_are(tmp_path, monkeypatch, instructions, words):
    monkeypatch.setattr(setting_costs, "_has_short_products", lambda _: instructions)
    said = tried([ipvit.Accuracy()], tmp_path, precision="bf16").settings[0]
    assert said.startswith("precision bf16: fp32 would be the reference and") and words in said


def test_an_experiment_inside_the_networks_is_told_to_gain_nothing_by_compiling(tmp_path):
    model, data = ipvit.load_model("demo:deit_micro"), ipvit.load_dataset("demo:trifeature")
    selected = [Selected(ipvit.Accuracy()), Selected(ipvit.Correlation(runs=1, grid="8x8"))]
    settings = RunConfig(workers=0, limit=8)
    found = estimate(selected, [model], data, settings, tmp_path, bind_context()).settings
    assert "; correlation would gain nothing" in found[2]
    assert "openvino would compute accuracy," in found[1]


@pytest.mark.parametrize(
    ("networks", "decoding", "cores", "words"),
    [
        (10.0, 5.0, 4, "more would gain nothing"),
        (10.0, 35.0, 8, "4 would keep up. "),
        (10.0, 35.0, 2, "4 would keep up, and there are 2 cores. "),
    ],
)
def test_the_workers_that_would_keep_up_follow_from_what_was_timed(monkeypatch, networks, decoding, cores, words):
    monkeypatch.setattr(setting_costs, "usable_cores", lambda: frozenset(range(cores)))
    part = TaskEstimate("accuracy", "a", 10, 1, 10, networks, 0.0, 1.0)
    found = Estimate([part], [], 10, decoding, 1, 0, 0)
    assert words in setting_costs.setting_costs(found, [], RunConfig(), torch.device("cpu"), 32)[4]
