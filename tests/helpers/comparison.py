"""Our numbers beside the paper's, in small."""

import polars as pl

from helpers.pages import manifest as manifest_of_a_page
from ipvit.core.manifest import Manifest
from ipvit.report import comparison


def manifest(*models: str, sources: tuple[str, ...] = (), data: str = "imagenet/val", images: int = 50_000) -> Manifest:
    whole = manifest_of_a_page(list(models))
    changes = {
        "models": [
            model.model_copy(update={"source": source})
            for model, source in zip(whole.models, sources or ["file"] * len(models), strict=True)
        ],
        "data": whole.data.model_copy(update={"name": data, "images": images}),
        "images_used": images,
    }
    return whole.model_copy(update=changes)


def occlusion_table(model: str, rows: list[tuple[str, float, float, float]]) -> dict:
    table = pl.DataFrame(
        [
            {
                "model": model,
                "mode": mode,
                "information_loss": level,
                "n_images": 50_000,
                "n_runs": 5,
                "top1": top1,
                "top1_low": top1 - 0.4,
                "top1_high": top1 + 0.4,
                "dropped": dropped,
            }
            for mode, level, dropped, top1 in rows
        ]
    )
    return {"occlusion": {"occlusion": table}}


def compared(tables: dict, about: dict, **experiments: object) -> dict[tuple[str, str], dict]:
    frame = comparison.compare(tables, about, {name.replace("_", "-"): e for name, e in experiments.items()})
    return {(row["where"], row["what"]): row for row in frame.to_dicts()}
