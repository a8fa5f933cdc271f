"""One small study of every experiment there is, and a process that runs it and can be killed at any moment.

``python whole_study.py`` imports everything once, then starts a run of the study in a fork of itself for every line it
is sent, so that a run that is killed and goes on costs no imports.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

import ipvit
from ipvit.api import bind_context
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.experiments.registry import make_experiment
from ipvit.report.tables.files import write_table

IMAGES = 24
SETTINGS: dict[str, dict[str, Any]] = {
    "accuracy": {},
    "occlusion": {
        "modes": ("random", "salient", "non_salient", "object"),
        "levels": (0, 0.5),
        "runs": 2,
        "grid": "8x8",
        "fill": "other",
        "salience": "demo:deit_micro",
        "salience_head": "rollout",
    },
    "feature-drop": {"rates": (0.5,), "runs": 2},
    "correlation": {"grid": "8x8", "levels": (0.25, 0.75), "runs": 2},
    "stability": {"grid": "8x8", "levels": (0.5,), "grids": ("2x2",), "corruptions": ("contrast",), "runs": 2},
    "attention": {"levels": (0, 0.5)},
    "shape-bias": {"stimuli": "demo:trifeature/cue-conflict"},
    "token-similarity": {},
    "segment": {"thresholds": (0.6, 0.9)},
    "shuffle": {"grids": ("2x2", "4x4"), "runs": 2},
    "position": {},
    "probe": {"last": ("2",), "heads": ("own", "lbfgs", "adamw"), "epochs": 2, "batch": 8, "penalties": (0.01, 0.1)},
    "fewshot": {"episodes": ("3-way-1-shot",), "queries": 1, "count": 8, "blocks": (1, 2)},
    "corruptions": {"corruptions": ("shot_noise", "frost", "contrast"), "severities": (1, 5)},
    "shift": {"sets": ("demo:trifeature/texture-random",)},
    "attack": {
        "attacks": ("fgsm", "pgd", "patch"),
        "epsilons": (4,),
        "steps": 2,
        "patch_areas": (0.2,),
        "patch_images": 12,
        "patch_steps": 3,
        "patch_batch": 4,
        "runs": 2,
    },
}
"""Every registered experiment, with little to do."""


def models() -> list[ipvit.Model]:
    """Networks that know what they see: patches are trained on images that a network has right."""
    return [
        ipvit.load_model("demo:deit_micro_shape", label="deit"),
        ipvit.load_model("demo:resnet_micro", label="resnet"),
    ]


def experiments() -> list[ipvit.Experiment]:
    more = {"probe": {"train": Trifeature("natural", "train", n=40)}}
    return [make_experiment(name, {**settings, **more.get(name, {})}) for name, settings in SETTINGS.items()]


def in_pieces(name: str) -> list[ipvit.Experiment]:
    """Return experiments that measure one part each of what the study's does."""
    settings = SETTINGS[name]
    many = next(key for key in ("modes", "corruptions", "grids", "levels", "rates") if key in settings)
    runs = range(1, settings.get("runs", 1) + 1)
    return [
        make_experiment(name, settings | {many: (value,)} | ({"runs": n} if "runs" in settings else {}))
        for value in settings[many]
        for n in runs
    ]


def run(out: Path, **options: Any) -> ipvit.Run:
    """Run the study, or go on with it."""
    settings: dict[str, Any] = {"limit": IMAGES, "batch_size": 8, "workers": 0, "progress": False} | options
    return ipvit.run(
        settings.pop("experiments", None) or experiments(),
        models=settings.pop("models", None) or models(),
        data=settings.pop("data", "demo:trifeature"),
        out=out,
        **settings,
    )


def nurse() -> None:
    """Run the study in a fork for every line of standard input, ``OUT OPTIONS``; tell of every file that is written.

    Standard output has ``start PID``, then for every file ``open PATH``, ``rename PATH`` or ``remove PATH``, and at
    last ``end STATUS``.
    """
    torch.set_num_threads(1)
    warm_up()
    for line in sys.stdin:
        out, options = line.split(maxsplit=1)
        child = os.fork()
        if child == 0:
            _attend(Path(out), json.loads(options))
        say("start", child)
        say("end", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def warm_up() -> None:
    """Import what the first run of a process would import; nothing here starts a thread that a fork would lose."""
    networks, data = models(), ipvit.load_dataset("demo:trifeature")
    for experiment in experiments():
        for network in networks:
            with contextlib.suppress(ipvit.InputError):  # what the network cannot do
                experiment.bind([network], data, bind_context())
        experiment.analysis()
    for module in ("cv2", "ipvit.api", "polars", "PIL.JpegImagePlugin"):
        importlib.import_module(module)


def say(word: str, what: object) -> None:
    os.write(1, f"{word} {what}\n".encode())


def _attend(out: Path, options: dict[str, Any]) -> None:
    os.setpgrp()  # killed with all its workers
    root = str(out)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | Path) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            written = str(arguments[0])
        elif event in ("os.rename", "os.remove"):
            written = str(arguments[event == "os.rename"])
        else:
            return
        if written.startswith(root):
            say(event.removeprefix("os."), written[len(root) + 1 :])

    sys.addaudithook(hook)
    try:
        write_tables(run(out, flush_seconds=0, **options))
    except BaseException:  # noqa: BLE001 - whatever it is, the test wants to read it
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def write_tables(results: ipvit.Run) -> None:
    """Write the tables as a report does, without drawing anything."""
    assert not results.manifest.failures, results.manifest.failures
    for name, analysis in results.analyses.items():
        for key, table in results.tables_of(name).items():
            write_table(table, results.out / "tables" / key, analysis.columns)
        if (differences := results.differences_of(name)) is not None:
            write_table(differences, results.out / "tables" / f"{name}-differences", analysis.columns)


if __name__ == "__main__":
    nurse()
