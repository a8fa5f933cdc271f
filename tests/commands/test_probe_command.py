"""``ipvit probe``: what it writes, what it loads again, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import ipvit
from helpers.paths import TESTS
from helpers.plain_loops import heads_in, tiny_vit
from helpers.tiny import write_images
from ipvit.cli import main
from ipvit.errors import InputError
from ipvit.models.io.probe_head import read_probe

NETWORKS = "from helpers.plain_loops import quiet_vit as vit, tiny_resnet as resnet, salience, plain\n"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(TESTS))
    write_images(tmp_path / "train", per_class=6, size=(40, 40))
    write_images(tmp_path / "test", per_class=3, size=(36, 40))
    (tmp_path / "nets.py").write_text(NETWORKS)
    return tmp_path


def probe(*more: str) -> int:
    return main(["probe", "--model", "nets.py:vit", "--data", "test", "--out", "out", "--workers", "0", *more])


def test_the_command_line_fits_saves_and_loads_a_head(here, capsys):
    assert probe("--train", "train", "--last", "2", "--tokens", "class", "--json") == 0
    tables = json.loads(capsys.readouterr().out)["tables"]
    assert {row["blocks"] for row in tables["probe"]} == {"0", "1", "2", "1-2"}
    (best,) = (here / "out" / "probes").glob("*/best.safetensors")
    for name in (f"nets.py:vit@probe:{best}", f"probe:{best}"):
        assert main(["shuffle", "-m", name, "-d", "test", "--grids", "4x4", "--out", "s", "--workers", "0"]) in (0,)
        assert "vit+best" in capsys.readouterr().out


def test_weights_that_the_file_names_need_not_be_repeated(here, capsys):
    from safetensors.torch import save_file

    save_file(tiny_vit(seed=5).state_dict(), here / "five.safetensors")
    assert probe("--model", "nets.py:vit@five.safetensors", "--train", "train", "--last", "2", "--tokens", "class") == 0
    (best,) = (here / "out" / "probes").glob("*five*/best.safetensors")
    images = torch.rand(1, 3, 32, 32)
    short = ipvit.load_model(f"probe:{best}")
    given = ipvit.load_model(f"nets.py:vit@five.safetensors@probe:{best}")
    assert torch.equal(short(images), given(images)) and short.digest == given.digest
    assert short.name == "nets.py:vit@five+best"
    with pytest.raises(InputError, match="has other weights"):
        ipvit.load_model(f"nets.py:resnet@probe:{best}")
    (here / "five.safetensors").unlink()
    with pytest.raises(InputError, match="are gone"):
        ipvit.load_model(f"probe:{best}")


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (["--train", "nowhere"], "there is no data 'nowhere'"),
        (["--train", "test"], "heads are not measured on what they saw"),
        (["--train", "train", "--blocks", "7"], "vit has blocks 0 to 2"),
        (["--train", "train", "--last", "none"], "last"),
        (["--train", "train", "--penalties", "0"], "penalties"),
        (["--train", "train", "--heads", "svm"], "heads"),
        (["--model", "nets.py:salience", "--heads", "own"], "give train, the data to fit heads on"),
        (["--model", "nets.py:plain", "--train", "train"], ""),
        (["--train", "train", "--train-limit", "2"], "probe:"),
        (["--train", "train", "--val", "test"], "what is reported must not choose"),
        (["--train", "train", "--val", "train"], "images that a head is fitted on"),
        (
            ["--val", "train", "--train-limit", "5"],
            "ipvit: probe: without train no head is fitted, and val, train_limit",
        ),
        (
            ["--train", "train", "--protocol", "authors", "--no-refit"],
            "probe: protocol authors leaves no choice of refit",
        ),
    ],
)
def test_mistakes_are_one_line(here, capsys, more, wanted):
    code = probe(*more)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ipvit")]
    assert len(lines) == 1 and wanted in lines[0]
    assert code == (2 if wanted else 0)
    assert (here / "out").exists() is not bool(wanted), "what is refused is refused before anything is written"


REFUSED = {
    "heads are not measured on what they saw": {"train": "test"},
    "what is reported must not choose": {"train": "train", "val": "test"},
    "cannot map 4 of the 4 classes of": {"train": "train", "val": "other"},
    "no image is left to choose": {"train": "single"},
    "cannot write to the feature store": {"train": "train", "store": "nets.py/features"},
}


def test_what_does_not_fit_is_found_by_check_and_moves_no_earlier_run(here, capsys):
    write_images(here / "single", per_class=1)
    for number in range(4):
        (here / "other" / f"x{number}").mkdir(parents=True)
        shutil.copy(here / "train" / f"c{number}" / "000.jpg", here / "other" / f"x{number}")
    assert main(["shuffle", "-m", "nets.py:vit", "-d", "test", "--grids", "4x4", "--out", "out", "--workers", "0"]) == 0
    study = {"models": ["nets.py:vit"], "data": "test", "out": "out", "workers": 0}
    (here / "study.yaml").touch()
    before = sorted(here.rglob("*"))
    for wanted, more in REFUSED.items():
        (here / "study.yaml").write_text(json.dumps(study | {"experiments": [{"probe": more}]}))
        for command in (["check"], ["run"], ["run", "--fresh"]):
            capsys.readouterr()
            assert main([command[0], "study.yaml", *command[1:]]) == 2
            assert wanted in capsys.readouterr().err
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("nowhere.safetensors", "there is no probe file"),
        ("nets.py", "not a whole probe file"),
        ("w.safetensors", "not a probe file"),
    ],
)
def test_what_is_no_probe_file_is_said_in_one_line(here, text, wanted):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, here / "w.safetensors")
    with pytest.raises(InputError, match=wanted) as caught:
        ipvit.load_model(f"nets.py:vit@probe:{text}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("train", "val", "wanted"),
    [
        ("cub:birds/all", "", "12 images of cub:birds/all are in the data of the run"),
        ("cub:birds/train", "cub:birds/test", "what is reported must not choose"),
        ("cub:birds/trainval", "cub:birds", "images that a head is fitted on"),
        ("cub:birds", "cub:birds", ""),
    ],
)
def test_parts_of_a_published_set_that_share_images_are_refused(here, capsys, train, val, wanted):
    (here / "birds").mkdir()
    for part in ("train", "test"):
        (here / part).rename(here / "birds" / part)
    code = main(
        [
            "probe",
            "-m",
            "nets.py:vit",
            "-d",
            "cub:birds",
            "--train",
            train,
            "--val",
            val,
            "--last",
            "2",
            "--tokens",
            "class",
            "--out",
            "out",
            "--workers",
            "0",
        ]
    )
    assert wanted in capsys.readouterr().err
    assert code == (2 if wanted else 0)
    if not wanted:  # neither name says a part: heads are fitted on train and chosen on val
        fit = read_probe(heads_in(here / "out")["2-class-lbfgs"]).fit
        assert fit["train"] == "cub:birds/train" and fit["train_images"] == 24 and fit["validation_images"] == 4


def test_where_no_head_is_fitted_the_training_data_may_be_those_of_the_run(here):
    command = ["probe", "-m", "nets.py:vit", "-d", "test", "--train", "test", "--heads", "own"]
    assert main([*command, "--out", "out", "--workers", "0"]) == 0


def test_training_images_that_cannot_be_read_are_left_out_and_counted(here):
    (here / "train" / "c0" / "000.jpg").write_bytes(b"no image")
    assert probe("--train", "train", "--last", "2", "--tokens", "class") == 0
    fit = read_probe(heads_in(here / "out")["2-class-lbfgs"]).fit
    assert fit["unreadable"] == 1 and fit["train_images"] == 23


@pytest.mark.slow
def test_the_demo_networks_are_probed_on_the_procedural_set(tmp_path, capsys):
    arguments = ["--data", "demo:trifeature", "--train", "demo:trifeature/natural-train", "--train-limit", "300"]
    models = ["--model", "demo:deit_micro", "--model", "demo:resnet_micro"]
    assert main(["probe", *models, *arguments, "--limit", "100", "--out", str(tmp_path), "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)["tables"]
    last = [
        r for r in tables["probe"] if (r["model"], r["head"]) == ("demo:deit_micro", "lbfgs") and r["tokens"] == "class"
    ]
    by_block = {row["blocks"]: row["top1"] for row in last}
    assert by_block["5"] > 90 > by_block["1"] and by_block["2-5"] > 90
    assert isinstance(ipvit.load_model(f"probe:{next(tmp_path.glob('probes/*deit*/best.safetensors'))}"), nn.Module)
