"""Our numbers beside the paper's, in small."""

import polars as pl

from helpers.pages import manifest as manifest_of_a_page
from ipvit.core.manifest import Manifest
from ipvit.experiments.registry import paper_numbers
from ipvit.report import comparison
from ipvit.report.paper import drawn_rows


def manifest(
    *models: str,
    sources: tuple[str, ...] = (),
    data: str = "imagenet/val",
    images: int = 50_000,
    published: str = "imagenet",
    size: int = 224,
    loaded: tuple[str, ...] = (),
) -> Manifest:
    """A run of models that were loaded by their names, unless ``loaded`` says otherwise."""
    whole = manifest_of_a_page(list(models))
    shape = whole.models[0].preprocessing.model_copy(update={"size": (size, size)})
    changes = {
        "models": [
            model.model_copy(update={"source": source, "loaded_as": name, "preprocessing": shape})
            for model, source, name in zip(
                whole.models, sources or ["file"] * len(models), loaded or models, strict=True
            )
        ],
        "data": whole.data.model_copy(
            update={
                "name": data,
                "images": images,
                "published": published,
                "published_images": {"voc": 1_449, "cue-conflict": 1_280, "": 0}.get(published, 50_000),
            }
        ),
        "images_used": images,
        "limited": False,
        "subjects": {},
    }
    return whole.model_copy(update=changes)


def among_the_datas_classes(about: Manifest, experiment: str) -> Manifest:
    """The same run, whose models chose among the classes of the data."""
    used = about.subject(experiment).model_copy(update={"answers": "data"})
    return about.model_copy(update={"subjects": {experiment: used}})


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


def printed(experiment: str, *networks: str) -> pl.DataFrame:
    """All numbers of the paper's networks that an experiment's figures can show."""
    rows = drawn_rows(
        number
        for number in paper_numbers()
        if number.drawn and number.cells[0].experiment == experiment and number.network in networks
    )
    assert rows is not None
    return rows
