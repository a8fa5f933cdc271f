"""A report of twenty models and every experiment: how large it is."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

import ipvit
from helpers.analysis import differences as paired
from helpers.pages import manifest
from ipvit.experiments.registry import BUILT_IN, make_experiment
from ipvit.report import Section, write_report
from ipvit.report.findings import findings, for_page, headline, unit_of
from ipvit.report.pictures import Album

MODELS = [f"vit_base_patch16_224.augreg_in21k_ft_in1k_{i:02d}" for i in range(20)]
SMALL = {
    "shift": {"sets": ("demo:trifeature/texture-random",)},
    "occlusion": {"modes": ["random", "salient", "non_salient"], "grid": "8x8", "runs": 1, "salience": "masks"},
    "correlation": {"grid": "8x8"},
    "stability": {"grid": "8x8", "corruptions": ["fog", "contrast", "shot_noise"]},
    "shuffle": {"grids": ["2x2", "4x4", "8x8", "16x16"]},
    "probe": {"heads": ["own"]},
    "fewshot": {"episodes": ["5-way-1-shot"], "count": 4, "queries": 1},
    "attack": {"attacks": ["fgsm", "pgd"]},
}
CONFLICT = ("shape-bias",)
DISTILLED = ("token-similarity",)


def measured(tmp_path: Path) -> dict[str, ipvit.Run]:
    """Every experiment on a bundled network and a few images: true tables to multiply."""
    runs = {}
    for name in BUILT_IN:
        data = "demo:trifeature/cue-conflict" if name in CONFLICT else "demo:trifeature"
        network: str | ipvit.Model = "demo:deit_micro"
        if name in DISTILLED:
            random = "deit_tiny_distilled_patch16_224?img_size=32"
            network = ipvit.load_model(random, pretrained=False, label="demo:distilled")
        limit = 60 if name == "fewshot" else 8
        runs[name] = ipvit.run(
            make_experiment(name, SMALL.get(name)),
            models=[network],
            data=data,
            limit=limit,
            out=tmp_path / name,
            workers=0,
            progress=False,
        )
    return runs


def multiplied(table: pl.DataFrame) -> pl.DataFrame:
    """The same rows for twenty models, with values of their own."""
    rng = np.random.default_rng(0)
    known = table.filter(pl.col("model").str.starts_with("demo:")) if "model" in table.columns else table
    floats = [name for name in ("top1", "correlation", "jaccard", "distance", "accuracy") if name in known.columns]
    parts = [
        known.with_columns(pl.lit(model).alias("model"), *(pl.col(f) * rng.uniform(0.5, 1) for f in floats))
        for model in MODELS
    ]
    return pl.concat(parts) if "model" in table.columns else table


def differences() -> pl.DataFrame:
    rng = np.random.default_rng(1)
    rows = {
        "model": np.repeat(MODELS, 10 * 30),
        "information_loss": np.tile(np.repeat(np.arange(10) / 10, 30), 20),
        "image": np.tile([f"i{i}" for i in range(30)], 200),
        "correct": rng.random(6000) < 0.5,
    }
    found = paired(pl.DataFrame(rows), ("information_loss",))
    assert found is not None and found.height == 190
    return found


class Shown:
    def __init__(self, path: Path) -> None:
        self.caption, self.path = f"what {path.stem} shows", path


def pictures(folder: Path) -> dict[str, list[Shown]]:
    """Ten photos for each model, as noisy as photos can be."""
    rng = np.random.default_rng(2)
    folder.mkdir()
    found: dict[str, list[Shown]] = {}
    for model in MODELS:
        for i in range(10):
            coarse = Image.fromarray(rng.integers(0, 256, (56, 56, 3), dtype=np.uint8)).resize((224, 224))
            buffer = io.BytesIO()
            coarse.save(buffer, "PNG", compress_level=1)
            (folder / f"{model}-{i}.png").write_bytes(buffer.getvalue())
            found.setdefault(model, []).append(Shown(folder / f"{model}-{i}.png"))
    return found


@pytest.mark.slow
def test_a_page_of_twenty_models_and_every_experiment_is_not_large(tmp_path, browser):
    unlike, album, shown = differences(), Album(), pictures(tmp_path / "pictures")
    sections = []
    for name, run in measured(tmp_path / "runs").items():
        analysis = run.analyses[name]
        unit = unit_of(analysis)
        tables = {key: multiplied(table) for key, table in run.tables_of(name).items()}
        sections.append(
            Section(
                name,
                analysis.title,
                analysis.reproduces,
                analysis.question,
                headline=headline(unlike, unit),
                summary=analysis.summary(tables),
                findings=findings(unlike, unit),
                tables=tables,
                columns=analysis.columns,
                figures=analysis.figures(tables),
                galleries=album.galleries(shown),
                differences=for_page(unlike, unit),
            )
        )
    path = write_report(tmp_path / "report.html", title="Twenty", manifest=manifest(MODELS), sections=sections)
    assert len(sections) == len(BUILT_IN)
    assert path.stat().st_size < 15e6
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(path.as_uri(), wait_until="load")
    assert complaints == []
    assert page.locator(".chart .wide svg").count() > 40
    elements = page.evaluate("document.querySelectorAll('*').length")
    print(f"{path.stat().st_size / 1e6:.1f} MB, {elements:,} elements")
    assert elements < 150_000
