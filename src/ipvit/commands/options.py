"""Options that several commands share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

SUBJECT = Group("Models and data", sort_key=1)
PROTOCOL = Group("What is measured", sort_key=2)
HOW = Group("How it is run", sort_key=3)

Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""A switch that is off unless it is given."""


@Parameter(name="*", group=HOW)
@dataclasses.dataclass(kw_only=True)
class RunOptions:
    """How a study is run; an option that is not given leaves the study's own value."""

    out: Path | None = None
    """Run folder; run again on it to continue."""
    limit: int | None = None
    """Use that many images; the run is marked as limited."""
    batch_size: int | None = None
    """Images at a time; halved where memory runs out."""
    workers: int | None = None
    """Decoding processes."""
    device: str | None = None
    """auto, cpu, cuda, cuda:1, mps."""
    precision: str | None = None
    """fp32, bf16 or fp16."""
    backend: str | None = None
    """What computes logits and attention: torch, or openvino on a CPU."""
    compile: Flag = False
    """Run the networks through torch.compile."""
    seed: int | None = None
    """Everything random follows from it."""
    strict: Flag = False
    """Make an unreadable image an error."""
    shard: str | None = None
    """Measure one share of the images, for example 2/8; ipvit merge joins the shards."""
    fresh: Flag = False
    """Put an earlier run folder aside and start over."""
    json: Flag = False
    """Print the tables as JSON on standard output, nothing else."""

    def given(self) -> dict[str, object]:
        """Return the study's keys that were given."""
        names = ("limit", "batch_size", "workers", "device", "precision", "backend", "seed")
        found: dict[str, object] = {name: value for name in names if (value := getattr(self, name)) is not None}
        return found | {name: True for name in ("compile", "strict") if getattr(self, name)}


@Parameter(name="*", group=SUBJECT)
@dataclasses.dataclass(kw_only=True)
class Subject:
    """What is measured."""

    model: Annotated[list[str], Parameter(name=("--model", "-m"), negative="")]
    """NAME, NAME@WEIGHTS with a file or URL, or NAME@probe:FILE; repeatable."""
    data: Annotated[str, Parameter(name=("--data", "-d"))]
    """A folder of class folders, a .tar of them, demo:trifeature, or a name that timm knows."""
    data_root: str | None = None
    """Where timm's data sets lie."""
    split: str | None = None
    """Split of timm's data sets."""
    decoder: str | None = None
    """fast (torchvision) or pil (Pillow)."""
    classes: str | None = None
    """What integer labels are, where the data does not say: imagenet-1k, or a file of class names."""
    pretrained: bool = True
    """Fetch published weights where none are given; otherwise random ones."""

    def study_keys(self) -> dict[str, object]:
        """Return models and data as a study file has them."""
        data: dict[str, object] = {"name": self.data}
        for key, value in (
            ("root", self.data_root),
            ("split", self.split),
            ("decoder", self.decoder),
            ("classes", self.classes),
        ):
            if value is not None:
                data[key] = value
        return {"models": [{"name": name, "pretrained": self.pretrained} for name in self.model], "data": data}
