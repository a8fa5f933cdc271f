"""``manifest.json``: what was run, on what, with which versions, and what went wrong."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ipvit.core.versions import installed_version
from ipvit.data.dataset import Dataset
from ipvit.engine.sweep import Outcome, Settings
from ipvit.files import write_atomic
from ipvit.models.model import Model

MANIFEST = "manifest.json"
FORMAT = 1

_PACKAGES = ("ipvit", "torch", "torchvision", "timm", "numpy", "pillow", "opencv-python-headless", "polars")


def describe(
    models: Sequence[Model],
    data: Dataset,
    settings: Settings,
    device: str,
    experiments: Sequence[str],
    outcome: Outcome,
    status: str,
    seconds: float,
) -> dict[str, Any]:
    """Return the manifest of a run."""
    packages = _PACKAGES if settings.backend == "torch" else (*_PACKAGES, settings.backend)
    skipped = [{"image": image, "reason": reason} for image, reason in sorted(outcome.unreadable.items())]
    return {
        "format": FORMAT,
        "left_out": [],
        "status": status,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "experiments": list(experiments),
        "models": [_model(model) for model in models],
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "images": len(data),
            "classes": None if data.classes is None else len(data.classes),
        },
        "selected": outcome.selected,
        "images_used": outcome.selected - len(skipped),
        "limited": outcome.selected < len(data),
        "limit": settings.limit,
        "skipped": skipped,
        "failures": [
            {
                "experiment": f.experiment,
                "model": f.model,
                "condition": f.condition,
                "error": f.error,
                "details": f.details,
            }
            for f in outcome.failures
        ],
        "measured_in_this_call": outcome.measured,
        "notes": outcome.notes,
        "shard": str(settings.shard) if settings.shard.count > 1 else None,
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "precision": settings.precision,
        "backend": settings.backend,
        "device": device,
        "versions": {"python": platform.python_version()} | {name: installed_version(name) for name in packages},
        "hardware": {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count()},
    }


def write_manifest(root: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a run folder."""
    write_atomic(root / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode())


def read_manifest(root: Path) -> dict[str, Any] | None:
    """Return the manifest of a run folder, or None where there is none, or none that can be read.

    A damaged one may say anything: what is returned has no value of another kind than the schema below says, and
    nothing that the schema does not know.
    """
    try:
        text = (root / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    try:
        return _Manifest.model_validate_json(text).model_dump(exclude_unset=True)
    except ValidationError:
        return None


def _model(model: Model) -> dict[str, Any]:
    view = model.preprocessing.view
    return {
        "name": model.name,
        "digest": model.digest,
        "source": model.source,
        "weights_sha256": model.weights_sha256,
        "parameters": sum(p.numel() for p in model.backbone.parameters()),
        "preprocessing": {
            "size": list(view.size),
            "crop_pct": view.crop_pct,
            "interpolation": view.interpolation,
            "crop_mode": view.crop_mode,
            "mean": list(model.preprocessing.mean),
            "std": list(model.preprocessing.std),
        },
    }


class _Part(BaseModel):
    """A part of a manifest: every key that is written, and of what kind its value must be; others are not read."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]


class _View(_Part):
    size: Annotated[list[Count], Field(min_length=2, max_length=2)]
    crop_pct: float
    interpolation: str
    crop_mode: str = "center"
    mean: list[float] = []
    std: list[float] = []


class _Network(_Part):
    name: str
    digest: str
    source: str
    weights_sha256: str | None = None
    parameters: Count
    preprocessing: _View


class _Data(_Part):
    name: str
    fingerprint: str
    images: Count
    classes: Count | None = None


class _Skipped(_Part):
    image: str
    reason: str


class _Failed(_Part):
    experiment: str
    model: str
    condition: str = ""
    error: str
    details: str = ""


class _Subject(_Part):
    name: str = ""
    fingerprint: str
    precision: str = ""


class _Hardware(_Part):
    machine: str
    system: str = ""
    cores: Count | None


class _Manifest(_Part):
    """What the keys mean stands where they are written, in :func:`describe`, :mod:`ipvit.engine.run` and ``merge``."""

    format: Literal[1] = FORMAT
    left_out: list[str] = []
    status: Literal["running", "interrupted", "failed", "done"]
    finished: str
    seconds: Seconds
    experiments: list[str]
    models: list[_Network]
    data: _Data
    selected: Count = 0
    images_used: Count
    limited: bool
    limit: Count | None
    skipped: list[_Skipped]
    failures: list[_Failed]
    measured_in_this_call: Count = 0
    notes: list[str] = []
    shard: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}/[1-9][0-9]{0,5}$")] | None = None
    batch_size: Count | None = None
    seed: Whole
    precision: str
    backend: str = "torch"
    device: str
    versions: dict[str, str | None]
    hardware: _Hardware
    subjects: dict[str, _Subject] = {}
    damaged: list[str] = []
    processes: Count = 1
    rests_on: list[str] = []
    merged: list[str] = []
