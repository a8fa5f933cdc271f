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
        "device": device,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "hardware": {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count()},
    }


def write_manifest(root: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a run folder."""
    write_atomic(root / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode())


def read_manifest(root: Path) -> dict[str, Any] | None:
    """Return the manifest of a run folder, or None where there is none, or none that can be read."""
    path = root / MANIFEST
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) and "models" in content and "data" in content else None


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
