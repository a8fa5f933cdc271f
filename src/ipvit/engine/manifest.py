"""``manifest.json``: what was run, on what, with which versions, and what went wrong."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ipvit.data.dataset import Dataset
from ipvit.engine.sweep import Outcome, Settings
from ipvit.files import write_atomic
from ipvit.models.model import Model

MANIFEST = "manifest.json"

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
        "format": 1,
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
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
        "hardware": {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count()},
    }


def write_manifest(root: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a run folder."""
    write_atomic(root / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode())


def read_manifest(root: Path) -> dict[str, Any] | None:
    """Return the manifest of a run folder, or None where there is none, or none that can be read."""
    try:
        text = (root / MANIFEST).read_text("utf-8")
        _Manifest.model_validate_json(text)
        return json.loads(text)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
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


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


class _Part(BaseModel):
    """What others rely on in a part of a manifest; there may be more in it."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _View(_Part):
    size: tuple[int, int]
    crop_pct: float
    interpolation: str


class _Network(_Part):
    name: str
    digest: str
    source: str
    parameters: int
    preprocessing: _View


class _Data(_Part):
    name: str
    fingerprint: str
    images: int


class _Skipped(_Part):
    image: str
    reason: str


class _Failed(_Part):
    experiment: str
    model: str
    error: str
    condition: str = ""


class _Subject(_Part):
    fingerprint: str


class _Hardware(_Part):
    machine: str
    cores: int | None


class _Manifest(_Part):
    status: str
    finished: str
    seconds: float
    experiments: list[str]
    models: list[_Network]
    data: _Data
    images_used: int
    limited: bool
    limit: int | None
    skipped: list[_Skipped]
    failures: list[_Failed]
    seed: int
    precision: str
    device: str
    versions: dict[str, str | None]
    hardware: _Hardware
    selected: int = 0
    subjects: dict[str, _Subject] = {}
    shard: str | None = None
    batch_size: int | None = None
    left_out: list[str] = []
    notes: list[str] = []
    damaged: list[str] = []
    rests_on: list[str] = []
