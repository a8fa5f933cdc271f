"""Make the figures on the pages of the experiments (docs/images/EXPERIMENT*.svg).

    IPVIT_REAL=FOLDER python docs/figures/experiments.py OUT [EXPERIMENT ...]

runs every experiment, or those named, into run folders below OUT and copies the figures. The bundled networks need
nothing; the others need the folder with ``efficientnet_lite0.safetensors``, ``dinov2_vits14_saliency.safetensors``,
``imagenet-sample``, ``cue-conflict`` and ``masked``. ``demo-occlusion.svg`` is a figure of ``ipvit demo``.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import ipvit
from ipvit import Experiment, Model
from ipvit.results import Run

IMAGES = Path(__file__).parents[1] / "images"
REAL = Path(os.environ.get("IPVIT_REAL", "."))
SALIENCY_VIT = f"vit_small_patch14_dinov2?img_size=224@{REAL}/dinov2_vits14_saliency.safetensors"
DEMO, PHOTOS = "demo:trifeature", str(REAL / "imagenet-sample")
TRANSFORMER, CNN = "demo:deit_micro", "demo:resnet_micro"


def lite() -> Model:
    """Return EfficientNet-Lite0."""
    return ipvit.load_model(f"tf_efficientnet_lite0@{REAL}/efficientnet_lite0.safetensors", label="EfficientNet-Lite0")


def saliency_vit() -> Model:
    """Return the DINOv2 ViT-S/14 that was fine-tuned for saliency."""
    return ipvit.load_model(SALIENCY_VIT, label="ViT-S/14 (saliency)")


def _bundled(experiment: Experiment, models: Sequence[str], data: str = DEMO) -> Callable[[Path], Run]:
    return lambda out: ipvit.run(experiment, models=list(models), data=data, out=out, limit=200)


def _real(
    experiment: Experiment, models: Sequence[Callable[[], Model]], data: str, limit: int | None = None
) -> Callable[[Path], Run]:
    return lambda out: ipvit.run(experiment, models=[make() for make in models], data=data, out=out, limit=limit)


GRIDS = ("2x2", "4x4", "8x8", "16x16")
WITH_A_CLASS_TOKEN = (TRANSFORMER, "demo:deit_micro_sin", "demo:deit_micro_shape", "demo:deit_micro_nopos")

RUNS: dict[str, tuple[Callable[[Path], Run], dict[str, str]]] = {
    "accuracy": (_bundled(ipvit.Accuracy(), (*WITH_A_CLASS_TOKEN, CNN, "demo:resnet_micro_sin")), {"accuracy": ""}),
    "feature-drop": (_bundled(ipvit.FeatureDrop(), (TRANSFORMER, CNN)), {"feature-drop": ""}),
    "token-similarity": (_bundled(ipvit.TokenSimilarity(), ("demo:deit_micro_shape",)), {"token-similarity": ""}),
    "shuffle": (_bundled(ipvit.Shuffle(grids=GRIDS), (TRANSFORMER, "demo:deit_micro_nopos", CNN)), {"shuffle": ""}),
    "position": (_bundled(ipvit.Position(), (TRANSFORMER, CNN)), {"position": ""}),
    "segment": (
        _real(ipvit.Segment(), [saliency_vit], f"masks:{REAL}/masked/images,{REAL}/masked/masks"),
        {"segment": ""},
    ),
    "correlation": (_real(ipvit.Correlation(), [saliency_vit, lite], PHOTOS, 90), {"correlation": ""}),
    "shape-bias": (
        _real(ipvit.ShapeBias(), [lite], f"cue-conflict:{REAL}/cue-conflict"),
        {"shape-bias-categories": ""},
    ),
    "attention": (
        _real(ipvit.Attention(), [saliency_vit], PHOTOS, 40),
        {
            "attention-ViT-S_14_saliency-52c26347-0": "-clean",
            "attention-ViT-S_14_saliency-52c26347-70": "-occluded",
            "attention-distance": "-distance",
        },
    ),
    "occlusion": (
        _bundled(ipvit.Occlusion(modes=("salient", "non_salient"), grid="8x8", salience="masks"), (TRANSFORMER, CNN)),
        {"occlusion-salient": "-salient", "occlusion-non-salient": "-non-salient"},
    ),
}
"""Per run: how it is made, and which of its figures are shown under what name after the experiment's."""


def main(out: Path, names: Sequence[str]) -> None:
    """Run, print the tables, and copy the figures."""
    for name in names or RUNS:
        make, shown = RUNS[name]
        run = make(out / name)
        for table in run.tables.values():
            print(table)  # noqa: T201
        run.report()
        for figure, suffix in shown.items():
            shutil.copy(out / name / "figures" / f"{figure}.svg", IMAGES / f"{name}{suffix}.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
