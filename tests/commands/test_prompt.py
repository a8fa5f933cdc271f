"""What the command line takes and says: labels, lists with commas, other models for a study, and mistaken names."""

import contextlib
import itertools
import re

import pytest

from ipvit.cli import COMMANDS, EXPERIMENTS, main
from ipvit.commands.options import OtherModelsAndData, model_entries
from ipvit.engine.study import make_study
from ipvit.errors import InputError
from ipvit.experiments.registry import make_experiment
from ipvit.models.mistaken import refuse_mistaken
from ipvit.models.names import split_label


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("small=resnet18", ("small", "resnet18")),
        ("my net=resnet18@a=b.pth", ("my net", "resnet18@a=b.pth")),
        ("resnet18", (None, "resnet18")),
        ("resnet18?num_classes=3", (None, "resnet18?num_classes=3")),
        ("resnet18@a=b.pth", (None, "resnet18@a=b.pth")),
        ("demo:deit_micro?x=1", (None, "demo:deit_micro?x=1")),
        ("./a=b.py:make", (None, "./a=b.py:make")),
    ],
)
def test_what_stands_before_the_first_equals_sign_is_a_label_unless_it_is_a_part_of_the_name(text, expected):
    assert split_label(text) == expected


def test_models_and_data_of_the_command_line_take_the_place_of_a_studys():
    study = make_study(
        {
            "models": ["a", "b"],
            "data": {"name": "old", "split": "test"},
            "experiments": {"accuracy": {"models": ["a"]}},
        }
    ).model_dump(exclude_unset=True)
    changed = make_study(OtherModelsAndData(model=["small=c"], data="new").change(study))
    assert [(entry.name, entry.label) for entry in changed.models] == [("c", "small")]
    assert (changed.data.name, changed.data.split) == ("new", "validation")
    assert changed.experiments[0].models is None
    assert make_study(OtherModelsAndData(split="train").change(study)).data.split == "train"
    assert model_entries(["c"], pretrained=False) == [{"name": "c", "pretrained": False}]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mynet.py", "a Python file; say which function of it makes the network: mynet.py:FUNCTION"),
        ("./photos", "a folder or a file"),
        ("demo:deit_micro,demo:resnet_micro", "give each by itself: --model demo:deit_micro --model demo:resnet_micro"),
        ("resnet18,resnet50", "several; give each by itself: --model resnet18 --model resnet50"),
        ("owner/name", "hf-hub:owner/name"),
        ("best.pth", "NAME@best.pth"),
        ("https://example.org/best.pth", "the address of weights"),
        ("study.yaml", "`ipvit run study.yaml`"),
    ],
)
def test_what_is_no_name_of_a_network_is_said_in_one_line(name, words):
    with pytest.raises(InputError) as raised:
        refuse_mistaken(name)
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_doctor_and_reproduce_take_labels(here, capsys):
    assert main(["doctor", "mine=net.py:make", "--data", "images", "--limit", "8"]) == 0
    assert "mine: " in capsys.readouterr().out
    arguments = ["reproduce", "table-8", "--imagenet", "images", "--model", "mine=net.py:make", "--dry-run"]
    assert main(arguments) == 0
    assert "label: mine" in capsys.readouterr().out


def help_of(command: str, capsys) -> str:
    """Return what a command's help prints at 80 columns."""
    with contextlib.suppress(SystemExit):
        main([command, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["stylize", "corrupt", "train", "play", "doctor"])
def test_a_help_says_what_is_taken_where_nothing_is_given(command, capsys):
    assert "[default:" in help_of(command, capsys)


@pytest.mark.parametrize("command", [*COMMANDS, *EXPERIMENTS])
def test_a_help_has_no_default_in_the_words_of_the_program(command, capsys):
    assert not re.search(r"\[default:\s+[│ ]*(\(|None|True|False|\])", help_of(command, capsys))


@pytest.mark.parametrize("command", [*COMMANDS, *EXPERIMENTS])
def test_a_help_breaks_its_lines_where_they_are_full(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = help_of(command, capsys).splitlines()
    for above, below in itertools.pairwise(lines):
        words = re.fullmatch(r"│ {15,}(\S+).*│", below)
        if not words or not above.startswith("│") or above.rstrip("│ ").endswith((".", ":")) or "[" in words[1]:
            continue
        room = len(above) - len(above.rstrip("│ "))
        assert len(words[1]) + 3 > room, f"{above}\n{below}"


def test_names_of_networks_are_let_through():
    for name in ("resnet18", "vit_base_patch16_224.augreg", "resnet18?img_size=1,2"):
        refuse_mistaken(name)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("occlusion", {"levels": [0, 2]}, "occlusion: levels must be a share from 0 to 1, not 2"),
        ("occlusion", {"levels": ["x"]}, "occlusion: levels must be a number, not 'x'"),
        ("occlusion", {"offset": [3]}, "occlusion: offset needs more than 1 value"),
        ("feature-drop", {"rates": [0]}, "feature-drop: rates must be a share above 0 and up to 1, not 0"),
        ("occlusion", {"levels": [2], "gird": 3}, "occlusion: there is no 'gird'. Did you mean 'grid'?"),
    ],
)
def test_a_wrong_value_is_told_in_words_and_the_misspelling_first(name, parameters, words):
    with pytest.raises(InputError) as raised:
        make_experiment(name, parameters)
    assert str(raised.value).startswith(words)


def test_a_misspelt_key_stands_for_the_one_that_is_missing():
    with pytest.raises(InputError, match=r"there is no 'model'. Did you mean 'models'\?.*device, compile") as raised:
        make_study({"model": "a", "data": "b", "experiments": "accuracy"})
    assert "more" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "--quiet", "x"], "report has no option --quiet. Try `ipvit report --help`."),
        (["report", "--jsn", "x"], "report has no option --jsn. Did you mean --json? Try `ipvit report --help`."),
        (["occlusion", "--modle", "x", "-d", "y"], "occlusion has no option --modle. Did you mean --modes or --model?"),
        (["occlusion", "--model", "net.py:make"], "occlusion needs --data. Try `ipvit occlusion --help`."),
        (["occlusion", "--data", "images"], "occlusion needs --model."),
        (["occlusion", "--data", "images", "--model"], "--model needs a value."),
        (["run"], "run needs STUDY."),
        (["doctor", "demo:resnet_micro", "--expect", "300"], "--expect is a top-1 accuracy in percent, not 300"),
        (["doctor", "demo:resnet_micro", "--expect", "30"], "--expect is for measuring: on which images? Give --data"),
        (
            ["shape-bias", "--model", "demo:deit_micro", "--data", "demo:trifeature"],
            "shape and texture agree on all images of demo:trifeature, so none says which of them decides; give images "
            "where they disagree, for example demo:trifeature/cue-conflict",
        ),
    ],
)
def test_what_is_missing_or_makes_no_sense_is_one_line(here, capsys, arguments, words):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_a_plain_word_lists_the_networks_that_it_is_a_part_of(capsys):
    assert main(["models", "tin50"]) == 0
    assert "tin50:deit_micro" in capsys.readouterr().out
    assert main(["experiments"]) == 0
    assert "()" not in capsys.readouterr().out
