"""What a command that measures prints, logs and tracks, and what it would measure with --dry-run."""

import json
import struct
import sys
import types
from pathlib import Path

import pytest
import yaml

from ipvit.cli import main

OCCLUDE = [
    "occlusion",
    "--model",
    "mine=net.py:make",
    "--data",
    "images",
    "--grid",
    "4x4",
    "--levels",
    "0,0.5",
    "--runs",
]
OCCLUDE += ["1", "--workers", "0", "--out", "out"]


def tables() -> list[dict]:
    return json.loads(Path("out/tables/occlusion.json").read_text())


def test_the_log_has_every_call_with_its_command_line_and_how_it_ended(here, capsys, monkeypatch):
    for more in ([], ["--limit", "8"]):
        monkeypatch.setattr(sys, "argv", ["ipvit", *OCCLUDE, *more])
        assert main([*OCCLUDE, *more]) == 0
    lines = Path("out/log.txt").read_text().splitlines()
    calls = [line for line in lines if "ipvit occlusion --model mine=net.py:make" in line]
    assert len(calls) == 2 and calls[1].endswith("--limit 8")
    assert sum("done: " in line for line in lines) == 2 and any("mine" in line and "images" in line for line in lines)
    assert all(line[:4].isdigit() and " INFO " in line for line in lines), "each has its time"


def test_the_log_has_what_failed(here, capsys):
    arguments = [part.replace("net.py:make", "net.py:broken") for part in OCCLUDE]
    assert main(arguments) == 1
    assert "broken on purpose" in Path("out/log.txt").read_text()


def test_verbose_shows_the_log_on_standard_error(here, capsys):
    assert main([*OCCLUDE, "--verbose"]) == 0
    shown, logged = capsys.readouterr().err, Path("out/log.txt").read_text()
    lines = [line.removeprefix("ipvit: ") for line in shown.splitlines() if line.startswith("ipvit: ")]
    assert any(line.startswith("done: ") for line in lines) and all(
        line in logged for line in lines if "done: " in line
    )


def test_a_link_in_place_of_the_log_is_not_followed(here, capsys):
    Path("out").mkdir()
    Path("precious.txt").write_text("mine")
    Path("out/log.txt").symlink_to("../precious.txt")
    main(OCCLUDE)
    assert Path("precious.txt").read_text() == "mine"


def test_quiet_prints_nothing_where_all_is_well_and_failures_where_it_is_not(here, capsys):
    assert main([*OCCLUDE, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "") and len(tables()) == 2 and Path("out/report.html").is_file()
    assert main([*(part.replace("net.py:make", "net.py:broken") for part in OCCLUDE), "--quiet"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and "broken on purpose" in printed.err
    assert main([*OCCLUDE, "--quiet", "--json"]) == 2


def test_a_dry_run_writes_nothing_and_what_it_prints_can_be_run(here, capsys):
    before = sorted(Path().rglob("*"))
    assert main([*OCCLUDE, "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert sorted(path for path in Path().rglob("*") if "__pycache__" not in str(path)) == before
    assert "# occlusion on mine: 20 images x 2 conditions, 40 results to measure" in plan
    assert yaml.safe_load(plan)["models"] == [{"name": "net.py:make", "pretrained": True, "label": "mine"}]
    Path("plan.yaml").write_text(plan)
    assert main(["run", "plan.yaml", "--out", "planned", "--workers", "0"]) == 0
    assert main(OCCLUDE) == 0
    assert Path("planned/tables/occlusion.csv").read_text() == Path("out/tables/occlusion.csv").read_text()
    capsys.readouterr()
    assert main([*OCCLUDE, "--dry-run"]) == 0
    assert "0 results in all, 40 are there; into out" in capsys.readouterr().out


def test_a_dry_run_refuses_what_a_run_would(here, capsys):
    assert main([part.replace("4x4", "40x40") for part in OCCLUDE] + ["--dry-run"]) == 2
    assert "40x40" in capsys.readouterr().err


def scalars(data: bytes) -> dict[tuple[str, int], float]:
    """Read an event file record by record: its length, a checksum, the event, a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        data = data[16 + length :]
    return found


def test_tensorboard_gets_the_numbers_of_the_tables(here, capsys):
    pytest.importorskip("tensorboardX")
    assert main([*OCCLUDE, "--tracker", "tensorboard"]) == 0
    found = {}
    for file in Path("out").rglob("events.out.tfevents*"):
        found |= scalars(file.read_bytes())
    for row in tables():
        step = round(100 * row["information_loss"])
        for column in ("top1", "top1_low", "top1_high"):
            (value,) = [v for (tag, at), v in found.items() if at == step and f"occlusion/{column}/mine" in tag]
            assert value == pytest.approx(row[column], rel=1e-5)


class Wandb(types.ModuleType):
    """Stands in for the package: keeps what is logged."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.logged: dict[tuple[str, int], float] = {}
        self.project, self.name, self.finished, self.study = "", "", False, {}
        self.config = self
        self.run = self

    def init(self, project: str, name: str, **_: object) -> "Wandb":
        self.project, self.name = project, name
        return self

    def update(self, content: dict, **_: object) -> None:
        self.study |= content

    def log(self, values: dict[str, float], step: int, **_: object) -> None:
        self.logged |= {(name, step): value for name, value in values.items()}

    def finish(self) -> None:
        self.finished = True


def test_wandb_gets_the_numbers_of_the_tables_and_the_study(here, capsys, monkeypatch):
    import importlib.machinery

    module = Wandb()
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    monkeypatch.setitem(sys.modules, "wandb", module)
    assert main([*OCCLUDE, "--tracker", "wandb"]) == 0
    assert (module.project, module.name, module.finished) == ("ipvit", "out", True)
    assert module.study["data.name"] == "images" and module.study["tracker"] == "wandb"
    for row in tables():
        step = round(100 * row["information_loss"])
        for column in ("top1", "top1_low", "top1_high"):
            (value,) = [v for (name, at), v in module.logged.items() if at == step and f"/{column}/" in name]
            assert value == pytest.approx(row[column])


def test_a_tracker_that_is_not_there_is_one_line_before_anything_is_measured(here, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert main([*OCCLUDE, "--tracker", "wandb"]) == 2
    assert "tracker: wandb needs a package that is not installed: pip install wandb" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["segment", "--model", "demo:deit_micro", "--data", "images"], "masks:"),
        (["shape-bias", "--model", "net.py:make", "--data", "images"], "--cue-conflict"),
        (["attention", "--model", "net.py:make", "--data", "images"], "attention is offered by"),
        (["accuracy", "--model", "demo:dino_micro", "--data", "images"], "@probe:FILE"),
    ],
)
def test_what_cannot_be_measured_says_what_would_be_right(here, capsys, arguments, words):
    assert main([*arguments, "--workers", "0"]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
