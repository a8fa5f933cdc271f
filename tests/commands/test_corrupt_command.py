"""What ``ipvit corrupt`` prints to measure on is a command that runs as it stands, whatever part was made."""

import json
import re
import shlex
from pathlib import Path

import pytest

from ipvit.cli import main


@pytest.fixture
def corrupted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*options: str) -> list[str]:
        fixed = ["--out", "my copy", "--limit", "2", "--size", "64", "--workers", "0"]
        assert main(["corrupt", "demo:trifeature", *fixed, *options]) == 0
        said = " ".join(capsys.readouterr().out.split())
        command = re.search(r"to measure on: ipvit (.*?) to look at", said)[1].replace(
            "--model ...", "--model demo:deit_micro"
        )
        return shlex.split(command)

    return run


@pytest.mark.parametrize(
    ("copies", "asked"),
    [
        ([["--corruptions", "fog", "snow", "--severities", "1", "3"]], ["snow", "fog", "--severities", "1", "3"]),
        (
            [["--corruptions", "fog", "--severities", "1", "3"], ["--corruptions", "snow", "--severities", "3"]],
            ["snow", "fog", "--severities", "3"],
        ),
    ],
)
def test_the_printed_command_measures_what_is_there(corrupted, copies, asked, capsys):
    command = [corrupted(*copy) for copy in copies][-1]
    assert command[-len(asked) :] == asked and "imagenet-c:my copy" in command
    assert main([*command, "--out", "run", "--workers", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tables"]["corruptions"]
    assert Path("run/report.html").is_file()


def test_two_corruptions_without_a_common_severity_give_a_command_for_one_of_them(corrupted):
    corrupted("--corruptions", "fog", "--severities", "1")
    command = corrupted("--corruptions", "snow", "--severities", "3")
    assert main([*command, "--out", "run", "--workers", "0", "--json"]) == 0


def test_a_whole_copy_needs_no_more_words(tmp_path):
    from helpers.image_trees import write_imagenet_c
    from ipvit.commands.derived.corrupt import _command
    from ipvit.perturb.corruptions import CORRUPTIONS

    write_imagenet_c(tmp_path, CORRUPTIONS, n=1)
    assert _command(tmp_path) == f"ipvit corruptions --data imagenet-c:{tmp_path} --model ..."
