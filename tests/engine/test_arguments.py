"""Wrong arguments from Python are one line each that says what would be right."""

import pytest
from torch import nn

import ipvit
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import PatchNet, tiny_model
from ipvit.cli import main
from ipvit.errors import InputError


def run(experiments=None, models=None, data=None, **options):
    return ipvit.run(
        small_occlusion() if experiments is None else experiments,
        models=tiny_model() if models is None else models,
        data=photos() if data is None else data,
        workers=0,
        progress=False,
        **options,
    )


WRONG = {
    "experiments are objects, not names: give ipvit.Occlusion() in place of 'occlusion'": lambda: run("occlusion"),
    "give an object, Occlusion(), in place of the class Occlusion": lambda: run(ipvit.Occlusion),
    "Did you mean 'shuffle'": lambda: run(["shufle"]),
    "an experiment is an object such as ipvit.Occlusion(), not 3": lambda: run(3),
    "at least one experiment is needed": lambda: run([]),
    "PatchNet is a bare network: ipvit.wrap(network, mean=..., std=": lambda: run(models=PatchNet()),
    "Sequential is a bare network": lambda: run(models=[nn.Sequential(nn.Flatten())]),
    "give an object, not the class PatchNet": lambda: run(models=PatchNet),
    "at least one model is needed": lambda: run(models=[]),
    "give ipvit.MemoryDataset(images, labels, classes)": lambda: run(data=photos()._images),
    "out is the path of a folder, not 5": lambda: run(out=5),
    "Occlusion: there is no 'level'. Did you mean 'levels'?": lambda: ipvit.Occlusion(level=(0,)),
    "Occlusion: runs must be a number from 1 to 10000, not 0": lambda: ipvit.Occlusion(runs=0),
    "mean 0.5 and std (0.229, 0.224, 0.225) must be three numbers each": lambda: ipvit.wrap(PatchNet(), mean=0.5),
    "and std (1, 2) must be three numbers each": lambda: ipvit.wrap(PatchNet(), std=(1, 2)),
    "or height and width, from 1 to 8192, not '16'": lambda: ipvit.wrap(PatchNet(), size="16"),
    "classes is a list of names in the order of the outputs, not 4": lambda: ipvit.wrap(PatchNet(), classes=4),
    "PatchNet is a class, not a network: make one of it, PatchNet(...)": lambda: ipvit.wrap(PatchNet),
    "tiny is a Model already: wrapped again": lambda: ipvit.wrap(tiny_model()),
    "with the interpolation 'cubic'; known: bicubic, bilinear": lambda: ipvit.wrap(PatchNet(), interpolation="cubic"),
    "load_model takes a name": lambda: ipvit.load_model(PatchNet()),
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_argument_is_one_line_with_the_remedy(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        WRONG[words]()
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_not_there_is_an_input_error_and_a_key_error(tmp_path):
    found = run(out=tmp_path)
    for look in (found.tables, found.figures, found.notes, found.summary):
        with pytest.raises(InputError, match="Did you mean 'occlusion"):
            look["oclusion"]
        with pytest.raises(KeyError, match="there are: occlusion"):
            look["oclusion"]
        assert look.get("oclusion") is None and "oclusion" not in look
    with pytest.raises(InputError, match="has no experiment 'shuffle'; there are: occlusion"):
        found.records("shuffle")


def test_only_what_ipvit_offers_is_listed():
    names = [name for name in dir(ipvit) if not name.startswith("__")]
    assert sorted(names) == sorted(ipvit.__all__)
    for package in (ipvit.data, ipvit.perturb, ipvit.models):
        assert [name for name in dir(package) if not name.startswith("__")] == sorted(package.__all__)


def test_the_study_of_a_run_by_names_can_be_run_again(tmp_path, capsys):
    out = tmp_path / "run"
    model = ipvit.load_model("demo:deit_micro", label="mine")
    data = ipvit.load_dataset("demo:trifeature", split="train")
    experiment = ipvit.Occlusion(levels=(0, 0.5), grid="8x8", runs=1)
    found = run(experiment, [model, "demo:resnet_micro"], data, out=out, limit=4)
    (tmp_path / "study.yaml").write_bytes((out / "study.yaml").read_bytes())
    assert main(["run", str(tmp_path / "study.yaml"), "--out", str(out), "--json"]) == 0
    again = ipvit.Run(out)
    assert again.manifest.measured_in_this_call == 0
    assert again.tables["occlusion"].equals(found.tables["occlusion"])
    assert [model.name for model in again.manifest.models] == ["mine", "demo:resnet_micro"]


def test_the_study_of_a_run_of_objects_says_why_it_cannot_be_run_again(tmp_path, capsys):
    run(out=tmp_path)
    assert main(["run", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "other")]) == 2
    said = capsys.readouterr().err
    assert "cannot be run again from its file; made in Python: the model 'tiny', the data 'memory'" in said
    assert said.count("\n") == 1 and not (tmp_path / "other").exists()
    assert ipvit.Run(tmp_path).tables["occlusion"].height, "and its folder is readable"
