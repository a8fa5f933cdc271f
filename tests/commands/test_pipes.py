"""Readers that go away, as in ``| head``, and standard streams that are closed: the work is done, the code is right."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.command_line import NETWORK
from helpers.hostile import offline_folder
from helpers.tiny import write_images
from ipvit.cli import main

RUN = ["accuracy", "-m", "net.py:make", "-d", "images", "--workers", "0", "--out"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A run folder, and below another one the two shards of the same run."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "net.py").write_text(NETWORK)
    write_images(folder / "images", per_class=2)
    arguments = [
        text.replace("net.py", str(folder / "net.py")).replace("images", str(folder / "images")) for text in RUN
    ]
    assert main([*arguments, str(folder / "run")]) == 0
    for shard in ("1/2", "2/2"):
        assert main([*arguments, str(folder / "parts"), "--shard", shard]) == 0
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, measured) -> Path:
    folder = offline_folder(tmp_path, monkeypatch)
    (folder / "net.py").write_text(NETWORK)
    (folder / "s.yaml").write_text("models: [net.py:make]\ndata: images\nexperiments: [accuracy]\nworkers: 0\n")
    write_images(folder / "images", per_class=2)
    return folder


@pytest.fixture(params=[False, True], ids=["buffered", "unbuffered"])
def nobody_reads(request, monkeypatch) -> Iterator[None]:
    """Standard output is a pipe whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    raw = io.FileIO(writer, "w")
    binary = raw if request.param else io.BufferedWriter(raw)
    with io.TextIOWrapper(binary, encoding="utf-8", write_through=request.param) as stream:  # pyright: ignore
        monkeypatch.setattr(sys, "stdout", stream)
        yield


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "--version",
        "run --help",
        "models",
        "models --json",
        "models deit* --json",
        "models --paper",
        "datasets",
    ]
    + ["datasets --json", "experiments", "experiments --json", "train --list", "train --list --json"],
)
def test_a_listing_whose_reader_goes_away_ends_well(here, nobody_reads, command):
    assert main(command.split()) == 0


@pytest.mark.slow
@pytest.mark.parametrize("json", [[], ["--json"]])
def test_the_report_is_written_before_anything_is_printed(here, measured, nobody_reads, json):
    assert main([*RUN, "out", *json]) == 0
    assert main(["run", "s.yaml", "--out", "study", *json]) == 0
    for folder in ("out", "study"):
        assert (here / folder / "report.html").is_file() and (here / folder / "tables" / "accuracy.csv").is_file()
    (measured / "run" / "report.html").unlink()
    assert main(["report", str(measured / "run"), *json]) == 0 and (measured / "run" / "report.html").is_file()
    assert main(["merge", str(measured / "parts"), "--out", "whole", *json]) == 0
    assert (here / "whole" / "report.html").is_file()
    assert main(["check", "s.yaml", *json]) == 0
    assert main(["corrupt", "images", "--out", "c", "--corruptions", "jpeg_compression", "--workers", "0", *json]) == 0
    assert main(["stylize", "images", "--out", "s", "--size", "32", "--limit", "2", "--workers", "0", *json]) == 0
    assert main(["compare", str(measured / "run"), *json]) == 0


def test_a_failure_is_told_by_the_code_whoever_reads(here, nobody_reads):
    assert main(["accuracy", "-m", "net.py:broken", "-d", "images", "--workers", "0", "--out", "out"]) == 1
    assert main(["models", "--nothing"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_change_nothing(here, closed):
    command = f"{sys.executable} -m ipvit {' '.join(RUN)} out --json {closed}"
    ended = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, env=dict(os.environ))
    assert ended.returncode == 0 and not ended.stderr
    assert (here / "out" / "report.html").read_text("utf-8").rstrip().endswith("</html>")
    assert (">" in closed.replace("2>", "")) is not ended.stdout.startswith("{")


def test_a_limit_of_memory_is_named_as_the_cause(here, monkeypatch, capsys):
    import resource

    monkeypatch.delenv("IPVIT_TRACEBACK", raising=False)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (3_000_000_000, resource.RLIM_INFINITY))
    for error in (ImportError("libtorch.so: failed to map segment from shared object"), MemoryError()):
        monkeypatch.setattr("ipvit.cli.make_app", lambda error=error: (_ for _ in ()).throw(error))
        assert main(["models"]) == 1
        assert "no more than 3.0 GB of memory (ulimit -v)" in capsys.readouterr().err
    monkeypatch.setattr("ipvit.cli.make_app", lambda: (_ for _ in ()).throw(RuntimeError("something else")))
    assert main(["models"]) == 1 and "ulimit" not in capsys.readouterr().err


def test_python_without_texts_is_refused_at_once():
    command = [sys.executable, "-OO", "-m", "ipvit", "models"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1) and "python -OO removes" in ended.stderr
