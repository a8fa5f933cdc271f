"""Make the figures of networks on real photos (docs/images/NAME.svg), with their tables on standard output.

    IPVIT_REAL=FOLDER python docs/figures/photos.py OUT [NAME ...]

runs what each figure needs into folders below OUT; what is there is not run again. FOLDER holds
``efficientnet_lite0.safetensors``, ``dinov2_vits14_saliency.safetensors``, ``tinyimagenet50`` and the two archives of
CIFAR-10. ``two-networks`` and ``probe-blocks`` take some ten minutes each on two cores.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

import ipvit
from ipvit import Model
from ipvit.analysis import charts
from ipvit.report.figures import save_figure
from ipvit.results import Run

IMAGES = Path(__file__).parents[1] / "images"
REAL = Path(os.environ.get("IPVIT_REAL", "."))
VIT, CNN = "ViT-S/14 (saliency)", "EfficientNet-Lite0"
BACKBONES = {
    VIT: f"vit_small_patch14_dinov2?img_size=112@{REAL}/dinov2_vits14_saliency.safetensors",
    CNN: f"tf_efficientnet_lite0@{REAL}/efficientnet_lite0.safetensors",
}
PHOTOS = str(REAL / "tinyimagenet50" / "val.tar")


def networks(heads: Run | None = None) -> list[Model]:
    """Return the ViT-S/14 and EfficientNet-Lite0, with the heads that a probe found best for each, if given."""
    found = []
    for label, name in BACKBONES.items():
        if heads is not None:
            a_file = heads.tables["probe-heads"].filter(pl.col("model") == label)["file"][0]
            name = f"{name}@probe:{(heads.out / a_file).parent / 'best.safetensors'}"
        found.append(ipvit.load_model(name, label=label))
    return found


def probed(out: Path, train: Path, test: Path | str, limit: int | None = None, **options: Any) -> Run:
    """Fit linear heads on 3,000 images of some data, and measure them on others."""
    probe = ipvit.Probe(train=str(train), train_limit=3000, heads=("lbfgs",), **options)
    return ipvit.run(probe, models=networks(), data=str(test), out=out, limit=limit)


def show(table: pl.DataFrame, *columns: str) -> None:
    """Print what a page says of a table."""
    shown = table.select("model", *columns, "top1", "top1_low", "top1_high", "n_images")
    sys.stdout.write(shown.write_csv(float_precision=3))


def trained_alike(out: Path) -> charts.Figure:
    """Return random PatchDrop on the transformer and the CNN that were trained on the same photos."""
    levels = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
    occlusion = ipvit.Occlusion(levels=levels, runs=2, grid="8x8")
    models = ["tin50:deit_micro", "tin50:resnet_micro"]
    run = ipvit.run(occlusion, models=models, data=PHOTOS, out=out, limit=500)
    show(run.tables["occlusion"], "mode", "information_loss")
    return run.figures["occlusion-random"]


def blocks(out: Path) -> charts.Figure:
    """Return what heads on each block of the ViT-S/14 and each stage of EfficientNet-Lite0 know of CIFAR-10."""
    run = probed(out, REAL / "cifar10-train.tar", REAL / "cifar10-test.tar")
    show(run.tables["probe"], "tokens", "blocks")
    return run.figures["probe-blocks"]


def two_networks(out: Path) -> charts.Figure:
    """Return how the same two, with heads for 50 classes, fare when patches of photos are lost."""
    train = REAL / "tinyimagenet50" / "train.tar"
    heads = probed(out / "heads", train, PHOTOS, limit=500, penalties=(0.01, 0.1, 1, 10))
    show(heads.tables["probe"], "tokens", "blocks")
    occlusion = ipvit.Occlusion(
        modes=("random", "salient", "non_salient"),
        levels=(0, 0.25, 0.5, 0.75),
        runs=1,
        grid="8x8",
        salience=BACKBONES[VIT],
    )
    run = ipvit.run(occlusion, models=networks(heads), data=PHOTOS, out=out / "occlusion", limit=60)
    show(run.tables["occlusion"], "mode", "information_loss", "dropped")
    return charts.curve(
        run.tables["occlusion"].with_columns(mode=pl.col("mode").str.replace("_", "-")),
        charts.Encoding(
            x="dropped",
            y="top1",
            series="model",
            facet="mode",
            x_title="Share of the image lost",
            y_title="Top-1 accuracy (%)",
            x_format="%",
            y_domain=(0, 100),
        ),
        title="Patches lost from photos of 50 classes",
    )


FIGURES: dict[str, Callable[[Path], charts.Figure]] = {
    "photos50-occlusion": trained_alike,
    "probe-blocks": blocks,
    "two-networks": two_networks,
}


def main(out: Path, names: list[str]) -> None:
    """Write the figures."""
    for name in names or FIGURES:
        save_figure(FIGURES[name](out / name), IMAGES / name, ("svg",))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
