"""A default folder belongs to one data set and one protocol; anything else gets a folder beside it."""

from pathlib import Path

import pytest

import ipvit
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model, write_images
from ipvit.cli import main
from ipvit.core.run_config import RunConfig
from ipvit.engine.folders.default_folder import default_folder, default_folder_of_runs


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def measured(experiment=None, data=None, model=None, **options) -> Path:
    run = ipvit.run(
        experiment or small_occlusion(levels=(0, 0.5), runs=1),
        models=model or tiny_model(),
        data=photos() if data is None else data,
        workers=0,
        progress=False,
        **options,
    )
    return run.out


def test_more_models_levels_and_the_same_again_go_on_in_the_default_folder():
    base = Path("runs/occlusion")
    assert measured() == base == measured() == measured(model=tiny_model(1)) == measured(small_occlusion(runs=1))


def test_whatever_is_another_measurement_gets_a_folder_that_says_what_is_other():
    assert measured() == Path("runs/occlusion")
    assert measured(limit=8) == Path("runs/occlusion-limit-8") == measured(limit=8)
    assert measured(seed=3) == Path("runs/occlusion-seed-3")
    assert measured(precision="bf16", seed=3) == Path("runs/occlusion-seed-3-bf16")
    assert measured(answers="data") == Path("runs/occlusion-answers-data")
    write_images(Path("pictures/val"))
    assert measured(data="pictures/val") == Path("runs/occlusion-pictures-val") == measured(data="pictures/val")
    assert measured() == Path("runs/occlusion")


def test_the_first_call_may_be_the_limited_one():
    assert measured(limit=8) == Path("runs/occlusion")
    assert measured() == Path("runs/occlusion-all-images") == measured()


def test_two_data_sets_of_one_name_get_two_folders():
    assert measured() == Path("runs/occlusion")
    places = [measured(data=photos(seed=seed)) for seed in (1, 2)]
    assert places[0] == Path("runs/occlusion-memory") and places[1].name.startswith("occlusion-memory-")
    assert places == [measured(data=photos(seed=seed)) for seed in (1, 2)]


def test_a_folder_that_the_user_gives_is_taken_as_it_is():
    measured(out="mine")
    assert measured(out="mine", limit=8) == Path("mine")


def test_the_shards_of_a_run_share_a_folder_and_belong_to_one_protocol():
    first = measured(shard="1/2", batch_size=4)
    assert first == Path("runs/occlusion/shards/1-of-2")
    assert measured(shard="2/2", batch_size=4) == Path("runs/occlusion/shards/2-of-2")
    assert measured(shard="1/2", batch_size=4, limit=8) == Path("runs/occlusion-limit-8/shards/1-of-2")


def test_class_names_belong_to_a_folder_too():
    data = photos()
    measured(data=data)
    data.aliases = tuple("abcd")
    folder, line = default_folder(Path("runs/occlusion"), data, RunConfig())
    assert folder.name.startswith("occlusion-classes-")
    assert line == f"runs/occlusion belongs to other class names of memory; this run goes into {folder}"


def test_the_command_line_names_both_folders_and_check_looks_into_the_same(capsys):
    study = Path("small.yaml")
    occlusion = "{occlusion: {grid: 8x8, levels: [0], runs: 1}}"
    study.write_text(f"models: [demo:deit_micro]\ndata: demo:trifeature\nworkers: 0\nexperiments: {occlusion}")
    assert main(["run", str(study), "--limit", "4"]) == 0
    capsys.readouterr()
    assert main(["run", str(study), "--limit", "6"]) == 0
    said = capsys.readouterr()
    assert "ipvit: runs/small belongs to --limit 4; this run goes into runs/small-limit-6" in said.err
    assert Path("runs/small-limit-6/report.html").is_file()
    assert main(["check", str(study), "--limit", "6"]) == 0
    assert "0 results to measure" in capsys.readouterr().out


def test_several_runs_in_one_default_folder_have_the_same_options():
    base = Path("runs/figure-1")
    assert default_folder_of_runs(base, RunConfig()) == (base, "")
    for part in ("grid-4x4", "grid-8x8"):
        measured(out=base / part, limit=8, seed=2)
    assert default_folder_of_runs(base, RunConfig(limit=8, seed=2)) == (base, "")
    folder, line = default_folder_of_runs(base, RunConfig(limit=8))
    assert folder == Path("runs/figure-1-seed-0")
    assert line == "runs/figure-1 belongs to --seed 2; this run goes into runs/figure-1-seed-0"
