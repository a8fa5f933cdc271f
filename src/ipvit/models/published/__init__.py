"""The clean accuracy a network was published with, where this package knows it."""

from __future__ import annotations

import dataclasses
from typing import Any

from ipvit.models.io.checkpoint import read_metadata
from ipvit.models.names import ModelName
from ipvit.models.published.shifts import SETS, timm_shift_result
from ipvit.models.published.tables import TimmResult, timm_results
from ipvit.models.zoo.bundled import DEMO_WEIGHTS
from ipvit.models.zoo.paper import NETWORKS

IMAGENET = "ImageNet validation"


@dataclasses.dataclass(frozen=True)
class Published:
    """A stated accuracy.

    Attributes:
        top1: in percent.
        data: on which images: a data name, or :data:`IMAGENET`.
        images: on how many.
        source: who says so.
        tolerance: percentage points by which a right set-up may differ: other decoders, resizing or devices.
        size: height and width of the input in pixels where it is stated; another one is another accuracy.
        top5: in percent, where it is stated.
        n_answers: how many answers there were to choose from; 0 for all outputs of the network.
    """

    top1: float
    data: str
    images: int
    source: str
    tolerance: float = 0.5
    size: int | None = None
    top5: float | None = None
    n_answers: int = 0


_DEIT, _SWIN, _T2T, _AUTHORS = "DeiT's README", "Swin's README", "T2T-ViT's README", "the authors' README"

_PAPER: dict[str, tuple[float, str]] = {
    "deit_tiny": (72.2, _DEIT),
    "deit_small": (79.9, _DEIT),
    "deit_base": (81.8, _DEIT),
    "deit_tiny_distilled": (74.5, _DEIT),
    "deit_small_distilled": (81.2, _DEIT),
    "deit_base_distilled": (83.4, _DEIT),
    "regnety_160": (82.9, _DEIT),
    "swin_tiny": (81.2, _SWIN),
    "swin_small": (83.2, _SWIN),
    "swin_base": (85.2, _SWIN),
    "t2t_vit_7": (71.7, _T2T),
    "t2t_vit_14": (81.5, _T2T),
    "t2t_vit_24": (82.3, _T2T),
    "t2t_vit_t_14": (81.7, _T2T),
    "t2t_vit_t_19": (82.4, _T2T),
    "t2t_vit_t_24": (82.6, _T2T),
    "resnet50_sin": (60.2, "Geirhos et al.'s README"),
    "no_pos_deit_t": (68.3, _AUTHORS),
    "patch_22_deit_t": (68.7, _AUTHORS),
    "patch_28_deit_t": (65.2, _AUTHORS),
    "patch_32_deit_t": (63.1, _AUTHORS),
    "patch_38_deit_t": (55.2, _AUTHORS),
}
"""Top-1 on ImageNet's validation set. The paper's evaluation resizes another way: see the tolerance."""


def published_on(data: str, name: str, size: int) -> Published | None:
    """Return the published accuracy of a network on a natural shift of ImageNet.

    Args:
        data: the set, by its published name, see :func:`ipvit.data.recognition.published_set`.
        name: of the network, as ``load_model`` takes it.
        size: height and width of its input in pixels.

    Returns:
        None where nothing is known of this network on this set.

    >>> published_on("imagenet-a", "tf_efficientnet_lite0", 224).top1
    3.053
    """
    parsed = ModelName.parse(name)
    known, clean = SETS.get(data.removesuffix("-clean")), data.endswith("-clean")
    if known is None or parsed.weights or set(parsed.options) - {"img_size"}:
        return None
    found = [timm_shift_result(result.network, size) for result in timm_results(parsed)[:1]]
    for one in filter(None, found):
        top1 = one.top1[known.clean if clean else known.shifted]
        images, n_answers = known.clean_images if clean else known.images, known.n_answers
        source = f"timm's results on {data}, {one.network} at {size} pixels"
        return Published(top1, data, images, source, size=size, n_answers=n_answers)
    return None


def published(name: str, size: int | None = None) -> Published | None:
    """Return what a network was published with, by the name that ``load_model`` takes.

    timm's networks have the accuracy of timm's own table of results, see :mod:`ipvit.models.published.tables`.

    Args:
        name: of the network.
        size: height and width of its input in pixels, by default what the name asks for or timm loads: the results of
            many of timm's networks are stated for two.

    Returns:
        None where this package does not know, or the name brings weights or options of its own.

    >>> published("torchvision:resnet50?weights=IMAGENET1K_V1").top1
    76.13
    >>> published("paper:deit_tiny").top1
    72.2
    >>> published("resnet50.a1_in1k", size=288).top1
    81.24
    """
    parsed = ModelName.parse(name)
    if parsed.scheme == "demo":
        return _measured_in_training(parsed)
    if parsed.weights:
        return None
    if parsed.scheme == "torchvision":
        return _torchvision(parsed)
    if parsed.scheme != "paper":
        return _timm(parsed, size)
    known = parsed.name
    if known not in _PAPER:
        network = NETWORKS.get(known)
        constructor = network.constructor if network else ""
        same_weights = network is not None and network.weights is not None and "download.pytorch.org" in network.weights
        return _torchvision(ModelName.parse(f"{constructor}?weights=IMAGENET1K_V1")) if same_weights else None
    top1, source = _PAPER[known]
    return Published(top1, IMAGENET, 50_000, source, 0.7)


def _timm(parsed: ModelName, size: int | None) -> Published | None:
    results = timm_results(parsed)
    wanted = parsed.options.get("img_size", size)
    if not results or set(parsed.options) - {"img_size"}:
        return None
    # without more, timm loads a network for the smaller of its sizes
    found = results[0] if wanted is None else next((result for result in results if result.img_size == wanted), None)
    return None if found is None else _of_timm(found)


def _of_timm(result: TimmResult) -> Published:
    source = f"timm's results, {result.network} at {result.img_size} pixels"
    return Published(result.top1, IMAGENET, 50_000, source, size=result.img_size, top5=result.top5)


def _torchvision(parsed: ModelName) -> Published | None:
    import torchvision.models as zoo

    weights = zoo.get_model_weights(parsed.name)
    wanted = str(parsed.options.get("weights", "DEFAULT"))
    entry: Any = weights[wanted] if wanted in weights.__members__ else None
    metrics = entry.meta.get("_metrics", {}).get("ImageNet-1K", {}) if entry else {}
    if "acc@1" not in metrics:
        return None
    return Published(float(metrics["acc@1"]), IMAGENET, 50_000, f"torchvision, {entry.name}")


def _measured_in_training(parsed: ModelName) -> Published | None:
    path = DEMO_WEIGHTS / f"{parsed.name}.safetensors"
    stated = read_metadata(path) if path.is_file() and not parsed.weights else None
    if not stated or "measured" not in stated:
        return None
    measured = stated["measured"]
    return Published(float(measured["top1"]), str(measured["data"]), int(measured["n"]), "measured when it was trained")
