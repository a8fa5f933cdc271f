"""``ipvit reproduce`` and ``ipvit compare``: the studies behind tables and figures, end to end with tiny networks."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from helpers.command_line import NETWORK
from helpers.small_paper import STUDIES, small_paper, write_small_paper
from helpers.tiny import write_images
from ipvit.cli import main
from ipvit.commands.paper_studies import OPTIONS, find, paper_studies
from ipvit.data.published import SETS
from ipvit.engine.study import make_study
from ipvit.errors import InputError
from ipvit.experiments.registry import paper_numbers
from ipvit.models.io import state_dict
from ipvit.models.zoo.paper import loaded_network

STUDY = STUDIES["table-8"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images")
    (tmp_path / "net.py").write_text(NETWORK)
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    """No network: whatever would be downloaded cannot be."""

    def refuse(url, **_):
        raise InputError(f"cannot download {url}; save it by hand as 'CACHE/file.pth'")

    monkeypatch.setattr(state_dict, "fetch", refuse)


@pytest.fixture
def small(here):
    """Studies of the same form as the real ones, on networks that are there."""
    shutil.rmtree(here / "images")
    with small_paper(write_small_paper(here)):
        yield here


def test_every_study_is_one_that_could_be_run():
    for study in paper_studies().values():
        assert study.title and study.parts
        names = [part.name for part in study.parts]
        assert len(set(names)) == len(names), "every part has a folder of its own"
        for part in study.parts:
            assert part.data in OPTIONS or part.data in SETS, part.data
            made = make_study(part.keys(f"{part.data}:PATH", {}, []), study.name)
            for model in made.models:
                assert loaded_network(model.name)[0]


def test_every_number_of_the_paper_has_a_study_that_measures_it():
    measured: dict[str, set[tuple[str, str]]] = {}
    for study in paper_studies().values():
        for part in study.parts:
            names = [m if isinstance(m, str) else m["name"] for m in part.models]
            networks = {loaded_network(name)[0] for name in names}
            networks |= {"dino_vits16"} if part.needs_salience else set()
            for target in study.targets:
                measured.setdefault(target, set()).update((n, e) for n in networks for e in part.experiments)
    for number in paper_numbers():
        if not number.cells:  # numbers of people, or of networks that are not to be had
            continue
        wanted = {(number.network, cell.experiment) for cell in number.cells}
        assert wanted & measured.get(number.key, set()), number


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("table-8", ["table-8"]),
        ("Figure 3", ["figure-3"]),
        ("fig10", ["figure-10"]),
        ("tab. 4", ["table-4-jaccard", "table-4-mce"]),
        ("figure-5", ["table-1"]),
    ],
)
def test_tables_and_figures_are_found_however_they_are_written(written, names):
    assert [study.name for study in find(written)] == names


def test_an_unknown_table_gets_close_matches():
    with pytest.raises(InputError, match=r"no study reproduces 'table-44'\. Did you mean .*table-4'"):
        find("table-44")


def test_every_figure_has_a_study_or_says_what_it_is():
    for number in range(1, 32):
        try:
            assert find(f"figure {number}")
        except InputError as error:
            assert str(error).startswith(f"figure {number} is no measurement: ")
    with pytest.raises(InputError, match=r"figure 14 is no measurement: a drawing of .* figure-16 and table-5 have"):
        find("fig. 14")


def test_the_list_is_for_people_and_for_programs(capsys):
    assert main(["reproduce", "--list"]) == 0
    printed = capsys.readouterr().out
    assert "table-4-mce" in printed and "--imagenet-c" in printed
    assert main(["reproduce", "--list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert next(iter(rows)) == "table-1" and rows["table-5"]["data"] == ["cub", "flowers102", "inaturalist2019"]
    assert rows["figure-3"]["compared"] and not rows["figure-23"]["compared"]


def test_a_dry_run_prints_studies_that_can_be_read(here, capsys):
    assert main(["reproduce", "table-3", "--dry-run", "--imagenet", "images", "--limit", "7"]) == 0
    studies = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [study["data"] for study in studies] == ["images", "cue-conflict:PATH-OF-CUE-CONFLICT", "images"]
    assert all(make_study(study).limit == 7 for study in studies)
    assert not (here / "runs").exists()


def test_weights_on_disk_replace_the_published_ones(capsys):
    arguments = ["figure-3", "--weights", "deit_small=small.pth", "--weights", "DINO=dino.pth", "--imagenet", "val"]
    assert main(["reproduce", *arguments, "--dry-run"]) == 0
    study = yaml.safe_load(capsys.readouterr().out)
    assert "paper:deit_small@small.pth" in study["models"] and "paper:deit_base" in study["models"]
    assert study["experiments"]["occlusion"]["salience"] == "paper:dino_vits16@dino.pth"


def lines(capsys) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    assert all(line.startswith("ipvit: ") for line in captured.err.splitlines())
    return captured.err.splitlines()


def test_missing_data_is_said_first_and_nothing_is_downloaded_for_it(here, offline, capsys):
    assert main(["reproduce", "table-4", "--voc", "images"]) == 2
    told = lines(capsys)
    assert told[0].startswith("ipvit: imagenet-c is missing; give --imagenet-c PATH: the published ImageNet-C")
    assert "the weights of AugMix can only be fetched by a person" in told[1] and "resnet50_augmix=FILE" in told[1]
    assert told[2:] == ["ipvit: --partial runs what there is"]
    assert main(["reproduce", "table-5"]) == 2
    told = lines(capsys)
    assert len(told) == 3 and "cub is missing; give --data cub=PATH: Caltech-UCSD Birds" in told[0]
    assert main(["reproduce", "table-8", "--imagenet", "nowhere"]) == 2
    assert "there is no folder 'nowhere'" in lines(capsys)[0]


def test_missing_weights_are_said_one_by_one(here, offline, capsys):
    (here / "tiny.pth").write_bytes(b"")
    assert main(["reproduce", "table-8", "--imagenet", "images", "--weights", "deit_tiny=tiny.pth"]) == 2
    told = lines(capsys)
    assert [line.removeprefix("ipvit: ").partition(":")[0] for line in told] == [
        "the weights of ResNet50",
        "the weights file 'tiny.pth' is empty",
        "the weights of DeiT-S",
        "the weights of DeiT-B",
    ]
    assert "save it by hand as" in told[0] and told[0].endswith("or give --weights resnet50=FILE")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reproduce"], "which table or figure?"),
        (["reproduce", "table-8", "--imagenet", "images", "--weights", "deit_tiny"], "--weights takes NAME=VALUE"),
        (["reproduce", "table-8", "--imagenet", "images", "--weights", "deit_tinny=x"], "Did you mean"),
        (["compare", "images"], "is not a run folder"),
        (["compare", "nowhere"], "is not a run folder"),
    ],
)
def test_wrong_input_is_one_line(here, offline, capsys, arguments, words):
    assert main(arguments) == 2
    (line,) = lines(capsys)
    assert words in line


def test_a_study_runs_and_is_compared_with_the_paper(small, capsys):
    assert main(["reproduce", "table-8", "--imagenet", "images", "--out", "out", "--workers", "0"]) == 0
    printed = capsys.readouterr().out
    assert "Table 8" in printed and "Table 8, DeiT-T (weights from net.py): top-1 (%)" in printed and "51.21" in printed
    assert "8 of our numbers have a counterpart in the paper; all 8 are too uncertain to disagree." in " ".join(
        printed.split()
    )
    assert "This run used 20 images of images" in printed
    rows = json.loads((small / "out" / "paper-comparison.json").read_text())
    assert {(row["network"], row["model"]) for row in rows if row["ours"] is not None} == {
        ("DeiT-T", "DeiT-T"),
        ("ResNet50", "ResNet50"),
    }
    assert (small / "out" / "report.html").exists() and (small / "out" / "paper-comparison.tex").exists()


def test_the_comparison_as_json_is_alone_on_standard_output(small, capsys):
    arguments = ["figure-99", "--imagenet", "images", "--out", "out", "--workers", "0", "--limit", "8", "--json"]
    assert main(["reproduce", *arguments]) == 0
    content = json.loads(capsys.readouterr().out)
    ours = [row for row in content["quantities"] if row["ours"] is not None]
    assert len(ours) == 8 and {row["target"] for row in content["quantities"]} == {"table8_corner"}
    assert all(row["n_images"] == 8 and row["verdict"] == "too uncertain" for row in ours)
    assert "all 8 are too uncertain" in content["summary"] and "This run used 8 images" in content["notes"][0]


def test_own_models_take_the_papers_place(small, capsys):
    arguments = ["table-8", "--imagenet", "images", "--out", "out", "--workers", "0", "--model", "net.py:make?seed=3"]
    assert main(["reproduce", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "net.py:make?seed=3 is no network of the paper: nothing to compare with" in printed
    assert "None of our numbers has a counterpart" in printed and "Table 8, " not in printed


def test_a_partial_run_leaves_out_what_is_missing(small, offline, capsys):
    text = STUDY.replace('      - {name: "paper:resnet50@net.py", label: ResNet50}', "      - paper:resnet50")
    text += "  - name: other\n    data: voc\n    models: [paper:deit_tiny]\n    experiments: {segment: {}}\n"
    (small / "studies" / "table-8.yaml").write_text(text)
    arguments = ["reproduce", "table-8", "--imagenet", "images", "--out", "out", "--workers", "0"]
    assert main(arguments) == 2
    assert lines(capsys)[0].startswith("ipvit: voc is missing")
    assert main([*arguments, "--partial"]) == 0
    printed = capsys.readouterr().out
    assert "left out: voc is missing" in printed and "left out: the weights of ResNet50" in printed
    assert (small / "out" / "table-8" / "manifest.json").exists() and not (small / "out" / "other").exists()


def test_a_study_of_several_parts_gets_a_report_of_all_of_them(small, capsys):
    more = "  - name: other\n    data: imagenet\n    models: [net.py:make]\n    experiments: {accuracy: {}}\n"
    (small / "studies" / "table-8.yaml").write_text(STUDY + more)
    arguments = ["--imagenet", "images", "--out", "out", "--workers", "0", "--limit", "8"]
    assert main(["reproduce", "table-8", *arguments]) == 0
    page = (small / "out" / "report.html").read_text("utf-8")
    assert 'id="position"' in page and 'id="accuracy"' in page
    assert (small / "out" / "tables" / "accuracy.csv").exists() and (small / "out" / "paper-comparison.csv").exists()


def test_a_study_can_be_measured_in_shards(small, capsys):
    arguments = ["reproduce", "table-8", "--imagenet", "images", "--workers", "0", "--batch-size", "4", "--json"]
    assert main([*arguments, "--out", "whole"]) == 0
    whole = json.loads(capsys.readouterr().out)
    for shard in ("1/2", "2/2"):
        assert main([*arguments, "--out", "parts", "--shard", shard]) == 0
        notes = json.loads(capsys.readouterr().out)["notes"]
        assert ("12" if shard == "1/2" else "8") in notes[0].partition(" images")[0]
    assert main(["merge", "parts", "--json"]) == 0
    capsys.readouterr()
    assert main(["compare", "parts", "--all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["quantities"]
    assert [row for row in found if row["ours"] is not None] == [
        row for row in whole["quantities"] if row["ours"] is not None
    ]


def test_an_option_that_does_not_fit_is_told_of_before_anything_is_looked_for(here, offline, capsys):
    assert main(["reproduce", "table-8", "--imagenet", "nowhere", "--limit", "0"]) == 2
    assert lines(capsys) == ["ipvit: limit must be 1 or more, not 0"]


def test_a_folder_of_runs_is_compared_as_a_whole(small, capsys):
    arguments = ["--imagenet", "images", "--workers", "0", "--limit", "8"]
    assert main(["reproduce", "table-8", *arguments, "--out", "all/one"]) == 0
    shuffle = ["shuffle", "-m", "net.py:make", "-d", "images", "--grids", "2x2", "--workers", "0"]
    assert main([*shuffle, "--out", "all/two"]) == 0
    capsys.readouterr()
    assert main(["compare", "all", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert len([row for row in content["quantities"] if row["ours"] is not None]) == 8
    assert len(content["quantities"]) == len(paper_numbers())
    assert any("net.py:make is no network of the paper" in note for note in content["notes"])
    assert main(["compare", "all/one", "--all"]) == 0
    printed = capsys.readouterr().out
    assert "Table 8" in printed and "Figure 16 (few-shot)" in printed
