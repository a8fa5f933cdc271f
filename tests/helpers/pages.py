"""What a page is made of."""

import json

from ipvit.core.manifest import Manifest


def manifest(models: list[str], **changes: object) -> Manifest:
    preprocessing = {"size": [224, 224], "crop_pct": 0.875, "interpolation": "bicubic", "crop_mode": "center"}
    content = {
        "status": "done",
        "finished": "2026-01-01T00:00:00+00:00",
        "seconds": 1.0,
        "images_used": 50_000,
        "limited": False,
        "experiments": ["occlusion"],
        "models": [
            {"name": name, "digest": "ab" * 16, "source": "timm", "parameters": 1000, "preprocessing": preprocessing}
            for name in models
        ],
        "data": {"name": "imagenet/val", "fingerprint": "f" * 32, "images": 50_000, "classes": 1000},
        "skipped": [],
        "failures": [],
        "seed": 7,
        "limit": None,
        "precision": "fp32",
        "device": "cpu",
        "versions": {"python": "3.11", "torch": None},
        "hardware": {"machine": "x86_64", "system": "Linux", "cores": 2},
    } | changes
    return Manifest.model_validate_json(json.dumps(content))
