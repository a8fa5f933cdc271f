"""A reproduction that takes a night: what is missing is told before it starts, and what fails does not end it."""

import json
from pathlib import Path

import pytest
import yaml

from helpers.command_line import kill_while_it_writes
from helpers.forks import ranks
from helpers.small_paper import small_paper, write_photos, write_small_paper
from ipvit.cli import main
from ipvit.commands import reproduction
from ipvit.commands.paper_studies import parse_weights
from ipvit.errors import InputError
from ipvit.experiments.position.analysis import PositionAnalysis

ARGUMENTS = ["--imagenet", "images", "--workers", "0", "--out", "out"]


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with small_paper(write_small_paper(tmp_path)):
        yield tmp_path


def add_part(folder: Path, study: str, **part: object) -> None:
    path = folder / "studies" / f"{study}.yaml"
    content = yaml.safe_load(path.read_text())
    content["parts"].append(part)
    path.write_text(yaml.safe_dump(content))


EVERYTHING = dict.fromkeys(["grid-2x2", "grid-4x4", "table-8"], "done")
"""The parts of the small paper, all of them measured."""
TARGETS = {"table8_corner", "fig10_shuffle", "fig11_patch"}
"""What numbers of theirs are compared with."""


def statuses(path: Path) -> dict[str, str]:
    """Return how each part ended, or that it was broken off."""
    return {
        manifest.parent.name: json.loads(manifest.read_text())["status"] for manifest in path.glob("*/manifest.json")
    }


def quantities(path: Path) -> list[dict]:
    return [row for row in json.loads((path / "paper-comparison.json").read_text()) if row["ours"] is not None]


def test_everything_that_is_missing_is_told_at_once_before_anything_is_measured(small, capsys):
    (small / "torn").mkdir()
    nets = ["paper:vit_large", "torchvision:alexnet@gone.pth", "paper:deit_tiny@net.py"]
    add_part(small, "table-8", name="nets", data="imagenet", models=nets, experiments={"position": {}})
    add_part(small, "table-8", name="torn", data="voc", models=["paper:deit_tiny@net.py"], experiments={"segment": {}})
    probe = {"probe": {"train": "images"}}
    add_part(small, "table-8", name="heads", data="imagenet", models=["paper:deit_tiny@net.py"], experiments=probe)
    assert main(["reproduce", "table-8", *ARGUMENTS, "--voc", "torn"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("ipvit: ")[:30] for line in told] == [
        "'torn' is not VOC 2012: neithe",
        "heads: probe needs the capabil",
        "the weights of ViT-L: cannot d",
        "there is no weights file 'gone",
        "--partial runs what there is",
    ]
    assert told[2].endswith("cannot download vit_large.pth, or give --weights vit_large=FILE")
    assert not (small / "out").exists()


def test_weights_on_disk_are_given_for_networks_of_every_source():
    assert parse_weights(["alexnet=a.pth", "torchvision:vgg16=v.pth", "DeiT-S=s.pth"]) == {
        "alexnet": "a.pth",
        "vgg16": "v.pth",
        "deit_small": "s.pth",
    }
    with pytest.raises(InputError, match="alexnett"):
        parse_weights(["alexnett=a.pth"])


def test_a_weights_file_takes_the_place_of_torchvisions_alexnet(capsys):
    assert main(["reproduce", "table-4-mce", "--weights", "alexnet=alex.pth", "--dry-run"]) == 0
    assert "torchvision:alexnet@alex.pth" in yaml.safe_load(capsys.readouterr().out)["models"]


def without_tables(monkeypatch) -> None:
    def fail(self, reductions):
        raise ZeroDivisionError("no such table")

    monkeypatch.setattr(PositionAnalysis, "tables", fail)


def test_a_part_without_tables_is_told_of_and_not_called_whole(small, monkeypatch, capsys):
    without_tables(monkeypatch)
    assert main(["reproduce", "figure-18", *ARGUMENTS]) == 1
    assert "The tables of position could not be made: ZeroDivisionError: no such table" in capsys.readouterr().err
    assert {row["target"] for row in quantities(small / "out")} == {"fig10_shuffle", "fig11_patch"}


@pytest.mark.slow
def test_a_merge_of_several_parts_tells_of_each_without_tables(small, monkeypatch, capsys):
    for shard in ("1/2", "2/2"):
        assert main(["reproduce", "figure-18", *ARGUMENTS, "--batch-size", "4", "--shard", shard]) == 0
    without_tables(monkeypatch)
    capsys.readouterr()
    assert main(["merge", "out"]) == 1
    told = capsys.readouterr().err
    assert "images (grid-2x2): The tables of position could not be made: ZeroDivisionError" in told


def test_a_part_that_fails_is_told_of_and_the_others_go_on(small, monkeypatch, capsys):
    run_study = reproduction.run_study

    def failing(study, out):
        if out.name == "grid-2x2":
            raise RuntimeError("broken on purpose")
        return run_study(study, out)

    monkeypatch.setattr(reproduction, "run_study", failing)
    assert main(["reproduce", "figure-18", *ARGUMENTS]) == 1
    captured = capsys.readouterr()
    assert "ipvit: grid-2x2 failed, the others go on: RuntimeError: broken on purpose" in captured.err
    assert "grid-2x2 failed: RuntimeError" in captured.out
    assert (small / "out" / "grid-4x4" / "manifest.json").exists() and (small / "out" / "report.html").exists()


def test_comparison_and_report_are_there_after_each_part(small, monkeypatch, capsys):
    run_study = reproduction.run_study

    def interrupted(study, out):
        if out.name == "grid-4x4":
            raise KeyboardInterrupt
        return run_study(study, out)

    monkeypatch.setattr(reproduction, "run_study", interrupted)
    assert main(["reproduce", "figure-18", *ARGUMENTS]) == 130
    assert {row["target"] for row in quantities(small / "out")} == TARGETS
    assert (small / "out" / "report.html").exists()
    capsys.readouterr()


def test_numbers_of_other_tables_are_compared_under_their_names(small, capsys):
    assert main(["reproduce", "figure-18", *ARGUMENTS]) == 0
    printed = capsys.readouterr().out
    assert (
        "Two grids, whose values cannot be read: grid-2x2" in printed and "values cannot be read: grid-4x4" in printed
    )
    assert "Table 8, DeiT-T (weights from net.py)" in printed
    assert "The paper's values cannot be read for figure 18;" in printed
    page = (small / "out" / "report.html").read_text("utf-8")
    assert "20 images" in page and "40 images" not in page, "two parts on the same images are no more images"


def test_everything_is_reproduced_by_one_word(small, capsys):
    assert main(["reproduce", "all", *ARGUMENTS, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["quantities"]
    assert {row["target"] for row in found if row["ours"] is not None} == TARGETS
    assert statuses(small / "out") == EVERYTHING


@pytest.mark.slow
def test_shards_of_several_parts_are_merged_by_one_command(small, capsys):
    assert main(["reproduce", "figure-18", *ARGUMENTS[:-1], "whole"]) == 0
    for shard in ("1/2", "2/2"):
        assert main(["reproduce", "figure-18", *ARGUMENTS, "--batch-size", "4", "--shard", shard]) == 0
    assert not (small / "out" / "paper-comparison.json").exists(), "half of the images say nothing of the whole"
    capsys.readouterr()
    assert main(["merge", "out"]) == 0
    assert "joined 4 shards of 2 runs" in capsys.readouterr().err
    assert main(["compare", "out", "--json"]) == 0
    assert [r for r in json.loads(capsys.readouterr().out)["quantities"] if r["ours"] is not None] == (
        quantities(small / "whole")
    )


def test_shards_of_several_parts_that_are_not_all_there_are_told_of_by_part(small, capsys):
    assert main(["reproduce", "figure-18", *ARGUMENTS, "--batch-size", "4", "--shard", "1/2"]) == 0
    capsys.readouterr()
    assert main(["merge", "out"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.split(";")[0] for line in told] == [
        "ipvit: grid-2x2: shard 2/2 is missing",
        "ipvit: grid-4x4: shard 2/2 is missing",
    ]


@pytest.mark.slow
def test_the_same_command_goes_on_after_kills_at_any_place(small, capsys):
    arguments = ["all", *ARGUMENTS, "--batch-size", "2"]
    for more in (1, 4):  # files of records after which the process is killed
        kill_while_it_writes(
            ["reproduce", *arguments],
            lambda: len([*(small / "out").rglob("*.parquet")]),
            more,
            seconds=120,
            module="helpers.small_paper",
        )
        assert statuses(small / "out") != EVERYTHING, "there was something left to measure"
    assert main(["reproduce", *arguments]) == 0
    assert main(["reproduce", "all", *ARGUMENTS[:-1], "whole", "--batch-size", "2"]) == 0
    assert statuses(small / "out") == statuses(small / "whole") == EVERYTHING
    assert quantities(small / "out") == quantities(small / "whole")
    capsys.readouterr()


@pytest.mark.slow
def test_of_several_processes_one_tells_and_the_numbers_are_those_of_one(small, capsys):
    arguments = ["figure-18", *ARGUMENTS, "--batch-size", "4"]
    together = ranks(["-m", "helpers.small_paper", "reproduce", *arguments], 2)
    told = [process.communicate() for process in together]
    assert [process.returncode for process in together] == [0, 0], told
    assert "".join(out for out, _ in told).count("The paper's values cannot be read for figure 18") == 1
    assert main(["reproduce", "figure-18", *ARGUMENTS[:-1], "alone", "--batch-size", "4"]) == 0
    assert quantities(small / "out") == quantities(small / "alone")
    capsys.readouterr()


def test_data_that_are_not_what_they_are_given_as_end_one_part_and_not_the_others(small, capsys):
    write_photos(small / "torn")
    part = {"name": "torn", "data": "cifar10", "models": ["paper:deit_tiny@net.py"], "experiments": {"position": {}}}
    add_part(small, "figure-18", **part)
    assert main(["reproduce", "figure-18", *ARGUMENTS, "--data", "cifar10=torn"]) == 2
    assert "'torn' holds no CIFAR-10" in capsys.readouterr().err and not (small / "out").exists()
    assert main(["reproduce", "figure-18", *ARGUMENTS, "--data", "cifar10=torn", "--partial"]) == 0
    assert "left out: 'torn' holds no CIFAR-10" in capsys.readouterr().out
    assert statuses(small / "out") == {"grid-2x2": "done", "grid-4x4": "done"}
    found = quantities(small / "out")
    assert {row["target"] for row in found} == TARGETS and {row["n_images"] for row in found} == {20}
