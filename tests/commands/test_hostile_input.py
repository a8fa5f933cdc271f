"""Whatever stands in a file or on the command line: one clear line and the right exit code, never a traceback."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import strategies as st
from safetensors.torch import save_file

import ipvit
from helpers.hostile import (
    JSON_JUNK,
    JUNK,
    NUMBERS,
    TEXT,
    Payload,
    answer,
    at_length,
    damaged,
    fuzz,
    mutated,
    offline_folder,
)
from helpers.tiny import PatchNet
from ipvit import api, cli
from ipvit.cli import COMMANDS, EXPERIMENTS
from ipvit.commands.measure import run
from ipvit.engine.study import read_study
from ipvit.errors import InputError
from ipvit.experiments.attack.patch_files import Patch, PatchMetadata, PatchSpec, load_patch, save_patch
from ipvit.experiments.registry import BUILT_IN, experiment_class, make_experiment
from ipvit.models.io.checkpoint import save_checkpoint
from ipvit.models.io.probe_head import read_probe
from ipvit.models.io.state_dict import read_state_dict
from ipvit.models.zoo.micro import resnet_micro
from ipvit.training import load_recipe


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    return offline_folder(tmp_path, monkeypatch)


@pytest.fixture
def stop_before_measuring(monkeypatch) -> None:
    monkeypatch.setattr(api, "run_study", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))


class RunAlone:
    """``ipvit run FILE`` and nothing else: to parse a command line takes longer than to read a study."""

    def __iter__(self) -> Iterator[str]:
        return iter(["run"])

    def __call__(self, tokens: list[str], **_: object) -> int:
        return run(Path(tokens[1]))


@pytest.fixture
def files_alone(monkeypatch, stop_before_measuring) -> None:
    monkeypatch.setattr(cli, "make_app", RunAlone)


STUDY = {
    "models": ["net.py:make", {"name": "net.py:make?seed=1", "label": "other", "pretrained": True}],
    "data": {"name": "images", "split": "validation", "decoder": "fast"},
    "experiments": [
        {"occlusion": {"grid": "4x4", "levels": [0, 0.5], "modes": ["random"], "runs": 2}},
        {"name": "attack", "models": ["other"], "parameters": {"attacks": ["fgsm"], "patch_scale": [1, 1]}},
        "shuffle",
    ],
    "seed": 1,
    "limit": 5,
    "precision": "fp32",
    "workers": 0,
    "device": "cpu",
    "strict": False,
    "out": "out",
}

TINY_RECIPE = {
    "model": {"name": "deit_micro", "kwargs": {"img_size": 32}},
    "data": {"train": "images", "val": "images", "size": 32, "mean": [0.5, 0.5, 0.5], "stylize": {"share": 0.5}},
    "objective": {"kind": "distillation", "teacher": "demo:resnet_micro"},
    "epochs": 1,
    "lr": 0.1,
    "mixup": None,
    "augment": {"crop_scale": [0.5, 1], "hflip": 0.5},
    "ema": {"decay": 0.9},
}

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

ODD_YAML = {
    "a bomb of aliases": BOMB + "models: *i\ndata: *i\nexperiments: *i\n",
    "a value in itself": "models: &m [*m]\ndata: images\nexperiments: [occlusion]\n",
    "a mapping in itself": "&m\nmodels: *m\n",
    "code": "models: !!python/object/apply:os.system ['touch executed']\n",
    "a module": "models: !!python/module:os\ndata: x\n",
    "another tag": "models: !mine [a]\n",
    "a number that is a list": "seed: !!int [1]\n",
    "a number that is a mapping": "seed: !!float {a: 1}\n",
    "an empty number": "seed: !!int ''\n",
    "a date that is none": "seed: 2021-99-99\n",
    "an hour that is none": "seed: 2021-01-01 99:00:00\n",
    "bytes that are none": "seed: !!binary ä\n",
    "a list as a key": "? [a, b]\n: 1\n",
    "a mapping as a key": "? {a: b}\n: 1\n",
    "an equals sign": "seed: =\n",
    "a merge of nothing": "<<: 1\n",
    "a set": "models: !!set {net.py:make}\n",
    "pairs": "models: !!pairs [a: b]\n",
    "an ordered map": "models: !!omap [a: b]\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "deep brackets": "[" * 20_000,
    "deep mappings": "{a: " * 20_000,
    "a tab": "models:\n\t- a\n",
    "an unknown alias": "models: *nowhere\n",
    "a byte order mark": "\ufeffmodels: 1\n",
    "a long number": "seed: " + "9" * 10_000 + "\n",
    "base 60": "seed: 1:99999999999:1\n",
    "no end": "models: 'a\n",
    "a directive": "%YAML 9.9\n---\nmodels: a\n",
    "only a comment": "# nothing\n",
}


# --- studies and recipes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_YAML)
@pytest.mark.parametrize("command", [["run"], ["check"], ["train", "--dry-run"]])
def test_odd_yaml_is_refused_in_one_line_that_names_the_file(here, name, command):
    (here / "odd.yaml").write_text(ODD_YAML[name], encoding="utf-8")
    code, said = answer([*command, "odd.yaml"])
    assert code == 2 and "odd.yaml" in said and said.count("\n") == 1
    assert not (here / "executed").exists()


def test_a_key_that_stands_twice_is_refused_with_both_lines(here):
    (here / "s.yaml").write_text("models: [net.py:make]\nseed: 1\ndata: images\nexperiments: [occlusion]\nseed: 2\n")
    assert answer(["run", "s.yaml"]) == (2, "ipvit: s.yaml, line 5: 'seed' stands in line 2 already\n")


def test_aliases_and_merges_that_mean_something_are_read(here):
    (here / "s.yaml").write_text(
        "models: [net.py:make]\ndata: images\n"
        "experiments:\n  - shuffle: &same {grids: [2x2]}\n  - shuffle: {<<: *same, runs: 2}\n"
    )
    study = read_study("s.yaml")
    assert [entry.parameters for entry in study.experiments] == [{"grids": ["2x2"]}, {"grids": ["2x2"], "runs": 2}]


@at_length(150, 2000)
def test_a_study_with_damaged_keys_and_values_is_refused_or_run(here, examples, files_alone):
    @fuzz(examples, study=mutated(STUDY))
    def _(study):
        (here / "s.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
        answer(["run", "s.yaml"], allowed=(2, 130))


@at_length(60, 1000)
def test_a_damaged_study_file_is_refused_or_run(here, examples, files_alone):
    @fuzz(examples, data=st.one_of(st.binary(max_size=40), damaged(yaml.safe_dump(STUDY).encode())))
    def _(data):
        (here / "s.yaml").write_bytes(data)
        answer(["run", "s.yaml"], allowed=(2, 130))


@at_length(100, 2000)
def test_a_recipe_with_damaged_keys_and_values_is_refused_in_our_words(here, examples):
    @fuzz(examples, recipe=mutated(TINY_RECIPE))
    def _(recipe):
        (here / "r.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        try:
            load_recipe("r.yaml")
        except InputError as error:
            assert str(error).startswith("r.yaml") and "\n" not in str(error) and "Input" not in str(error), error


@pytest.mark.parametrize("name", [name for name in BUILT_IN if experiment_class(name).model_fields])
@at_length(15, 400)
def test_no_value_of_a_parameter_is_more_than_one_line(name, examples):
    kind = experiment_class(name)

    @fuzz(examples, parameters=st.dictionaries(st.sampled_from(list(kind.model_fields)), JUNK, min_size=1, max_size=2))
    def _(parameters):
        try:
            read = {str(key): value for key, value in parameters.items()}
            make_experiment(name, read)
        except InputError as error:
            assert str(error).startswith(f"{name}: ") and "\n" not in str(error), error
            assert "Input should" not in str(error) and "rror, " not in str(error), error


# --- the command line ------------------------------------------------------------------------------------------------

OPTIONS = [
    "--model",
    "--data",
    "--out",
    "--limit",
    "--batch-size",
    "--workers",
    "--device",
    "--precision",
    "--seed",
    "--shard",
    "--json",
    "--fresh",
    "--strict",
    "--no-pretrained",
    "--split",
    "--decoder",
    "--classes",
    "--data-root",
    "--grid",
    "--runs",
    "--levels",
    "--modes",
    "--help",
    "--version",
    "--epsilons",
    "--corruptions",
    "--severities",
    "--size",
    "--list",
    "--dry-run",
    "--partial",
    "--all",
    "--imagenet",
    "--weights",
    "--expect",
    "--pattern",
    "--quality",
    "-m",
    "--train",
    "--ways",
    "--blocks",
    "--",
    "-",
    "-1",
    "--patch-files",
    "--out=",
    "--limit=-1",
    "--workers=1e3",
]

VALUES = st.one_of(
    TEXT.filter(lambda text: "\0" not in text),
    NUMBERS.map(str).filter(lambda text: len(text) < 3000),
    st.sampled_from(
        [
            "images",
            "net.py:make",
            "net.py",
            "net.py:nothing",
            "nowhere",
            "images/c0/000.jpg",
            "demo:trifeature",
            "cpu",
            "voc2012:images",
            "masks:images,images",
            "imagenet-c:images",
            "cue-conflict:images",
            "torch/nothing",
            "7x7",
            ".",
            "cub:images",
            "1/2",
            "0/0",
            "net.py:make@net.py",
            "demo:deit_micro@net.py",
            "demo:deit_micro@probe:net.py",
            "probe:images",
            "demo:deit_micro?x=1",
            "hf-hub:",
            "hf-hub:a/b",
            "transformers:images",
            "torchvision:x",
            "paper:x",
            "https://example.org/x.pth",
            "resnet10t@https://example.org/x.pth",
            "file:///etc/passwd",
            "wds/x",
            "hfds/x",
        ]
    ),
)

COMMAND_NAMES = [name for name in [*COMMANDS, *EXPERIMENTS] if name not in ("demo", "play", "doctor", "train")]


@at_length(120, 2000)
def test_no_command_line_ends_in_a_traceback(here, examples, stop_before_measuring):
    words = st.lists(st.one_of(st.sampled_from(OPTIONS), VALUES), max_size=6)

    @fuzz(examples, command=st.one_of(st.sampled_from(COMMAND_NAMES), VALUES), words=words)
    def _(command, words):
        answer([command, *words], allowed=(0, 2, 130))


@at_length(40, 400)
def test_no_model_or_data_name_ends_in_a_traceback(here, examples):
    @fuzz(examples, model=VALUES, data=VALUES)
    def _(model, data):
        refused_or_read(ipvit.load_model, model)
        refused_or_read(ipvit.load_dataset, data)


# --- damaged weights, probes and patches -----------------------------------------------------------------------------


def refused_or_read(load, *arguments) -> None:
    try:
        load(*arguments)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 1500, error
        assert not any(word in str(error) for word in ("Input should", "Field required")), error


@at_length(40, 400)
def test_damaged_weights_are_refused_or_read(here, examples):
    save_file(PatchNet().state_dict(), "w.safetensors")
    torch.save({"model": PatchNet().state_dict(), "epoch": 1}, "w.pth")
    files = {name: Path(name).read_bytes() for name in ("w.safetensors", "w.pth")}

    @fuzz(examples, data=st.data(), name=st.sampled_from(sorted(files)))
    def _(data, name):
        Path(name).write_bytes(data.draw(damaged(files[name])))
        refused_or_read(read_state_dict, Path(name))


@at_length(40, 400)
def test_a_damaged_description_of_a_checkpoint_is_refused_or_read(here, examples):
    network = resnet_micro(3, channels=(8, 8, 8, 8), stem_width=8)
    about = {
        "architecture": {"name": "resnet_micro", "kwargs": {"channels": [8, 8, 8, 8], "stem_width": 8}},
        "classes": ["a", "b", "c"],
        "preprocessing": {"size": [64, 64], "crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": "center"}
        | {"mean": [0.5] * 3, "std": [0.25] * 3},
    }
    scarce = st.one_of(st.none(), st.booleans(), st.integers(-2, 9), st.floats(), TEXT, st.lists(st.integers(0, 9)))

    @fuzz(examples, found=mutated(about, scarce))
    def _(found):
        save_checkpoint("c.safetensors", network, found)
        refused_or_read(ipvit.load_model, "c.safetensors")


@pytest.mark.parametrize("option", ["checkpoint_path", "pretrained_cfg_overlay", "cache_dir"])
def test_a_checkpoint_names_no_further_files_to_read(here, option):
    (here / "evil.pth").write_bytes(pickle.dumps(Payload(here / "executed")))
    about = {
        "architecture": {"name": "resnet10t", "kwargs": {option: "evil.pth"}},
        "classes": ["a"],
        "preprocessing": {"size": [64, 64], "crop_pct": 1.0, "interpolation": "bicubic"}
        | {"mean": [0.5] * 3, "std": [0.25] * 3},
    }
    save_checkpoint("c.safetensors", PatchNet(), about)
    for name in ("c.safetensors", "resnet10t@c.safetensors", f"resnet10t?{option}=evil.pth"):
        with pytest.raises(InputError, match=f"takes no '{option}'"):
            ipvit.load_model(name, pretrained=False)
    assert not (here / "executed").exists()


@at_length(40, 400)
def test_a_damaged_probe_file_is_refused_or_read(here, examples):
    about = {
        "format": 1,
        "backbone": {"name": "net.py:make", "pretrained": True, "digest": "0" * 64},
        "reads": [[0, "class"]],
        "norm": True,
        "classes": ["a", "b"],
        "view": {"size": [16, 16], "crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": "center"},
        "fit": {},
    }
    tensors = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
    save_file(tensors, "p.safetensors", metadata={"ipvit-probe": json.dumps(about)})
    whole = Path("p.safetensors").read_bytes()
    read_probe(Path("p.safetensors"))

    @fuzz(examples, data=st.data(), found=mutated(about, JSON_JUNK), bytewise=st.booleans())
    def _(data, found, bytewise):
        if bytewise:
            Path("p.safetensors").write_bytes(data.draw(damaged(whole)))
        else:
            save_file(tensors, "p.safetensors", metadata={"ipvit-probe": json.dumps(found)})
        refused_or_read(read_probe, Path("p.safetensors"))


@at_length(40, 400)
def test_a_damaged_patch_is_refused_or_read(here, examples):
    metadata = PatchMetadata(
        look=PatchSpec(shape="circle", area=0.1),
        run=0,
        trained_on="a",
        weights="b",
        data="c",
        data_name="d",
        images=1,
        steps=1,
        batch=1,
        rate=0.1,
        seed=0,
        precision="fp32",
    )
    save_patch(here / "p", Patch(torch.rand(3, 8, 8), metadata))
    files = {kind: (here / f"p.{kind}").read_bytes() for kind in ("png", "json")}
    load_patch("p.png")

    @fuzz(examples, data=st.data(), kind=st.sampled_from(["png", "json", "card"]))
    def _(data, kind):
        for name, content in files.items():
            (here / f"p.{name}").write_bytes(content)
        if kind == "card":
            found = data.draw(mutated(json.loads(files["json"]), JSON_JUNK))
            (here / "p.json").write_text(json.dumps(found))
        else:
            (here / f"p.{kind}").write_bytes(data.draw(damaged(files[kind])))
        refused_or_read(load_patch, "p.json")


# --- the user's own Python files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def make(:\n", "own.py:1: not Python:"),
        ("import nothing_like_it\n", "own.py:1: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("def make():\n    x = 1\n    return x / 0\n", "own.py:3: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", "own.py:1: SystemExit: 3"),
        ("def make(size):\n    pass\n", "TypeError: make() missing 1 required positional argument: 'size'"),
    ],
)
def test_what_fails_in_the_users_own_file_is_named_with_its_line(here, text, words):
    (here / "own.py").write_text(text)
    code, said = answer(["accuracy", "--model", "own.py:make", "--data", "images"])
    assert code == 2 and words in said and said.count("\n") == 1
    if "make" not in text or "(:" in text:
        code, said = answer(["own.py:Experiment", "--model", "net.py:make", "--data", "images"])
        assert code == 2 and words in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "images"],
        ["check", "images"],
        ["train", "images"],
        ["report", "net.py"],
        ["compare", "net.py"],
        ["merge", "net.py"],
        ["accuracy", "--model", "net.py:make", "--data", "net.py"],
        ["accuracy", "--model", "images:make", "--data", "images"],
        ["accuracy", "--model", "resnet10t@images", "--data", "images"],
        ["accuracy", "--model", "net.py:make", "--data", "images", "--out", "net.py"],
        ["accuracy", "--model", "net.py:make", "--data", "images", "--out", "net.py/run"],
        ["corrupt", "images", "--out", "net.py"],
        ["corrupt", "net.py", "--out", "new"],
        ["stylize", "images", "--out", "net.py/new"],
    ],
)
def test_a_folder_for_a_file_and_a_file_for_a_folder_are_wrong_input(here, arguments):
    code, said = answer(arguments)
    assert code == 2 and said.count("\n") == 1
