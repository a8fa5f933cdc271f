"""RobustBench's accuracies under AutoAttack on ImageNet, in linf at 4/255."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import polars as pl

from ipvit.analysis.published_tables import (
    PublishedNetwork,
    PublishedNumber,
    PublishedTable,
    TablePlace,
    half_interval,
    trained,
)
from ipvit.analysis.verdicts import NotComparableError
from ipvit.core.manifest import UsedModel
from ipvit.data.published.subsets import is_robustbench
from ipvit.data.recognition import IMAGENET
from ipvit.experiments.attack.names import AUTOATTACK, CLEAN
from ipvit.models.names import ModelName, weights_in_words
from ipvit.models.published.tables import robustbench_linf

EPSILON = 4.0
"""Grey levels."""

_RIGHT = "ipvit attack --data IMAGENET/val --subset robustbench --attacks autoattack --epsilons 4"
_LOADED_AS = {
    "torchvision:resnet50?weights=IMAGENET1K_V1": "Standard_R50",
    "timm:resnet50.tv_in1k": "Standard_R50",
    "resnet50.tv_in1k": "Standard_R50",
    "paper:resnet50": "Standard_R50",
}
"""Names that load the very weights of a network; all others are given as files that are called as RobustBench's."""


class RobustBenchLinf(PublishedTable):
    """Clean accuracy, and accuracy under AutoAttack, of thirty networks on ImageNet."""

    name, experiment = "robustbench", "attack"
    source = "RobustBench, 2025-03"
    data = IMAGENET
    n_images = 5_000
    remarks = (
        "RobustBench measured on 5,000 of the 50,000 photos: on others the ± is what these may change, at most.",
    )

    def check(self, data: str, tables: Mapping[str, Any]) -> None:
        """Refuse what was not attacked by AutoAttack, in linf at 4/255."""
        found = tables.get("attack", {}).get("attack")
        if found is None:
            raise NotComparableError(f"no attacks were measured; {_RIGHT} measures what RobustBench does")
        rows = found.filter(pl.col("attack") == AUTOATTACK)
        if not rows.height:
            names = ", ".join(name for name in found["attack"].unique(maintain_order=True) if name != CLEAN)
            raise NotComparableError(f"the attacks were {names}, RobustBench's is AutoAttack; {_RIGHT}")
        if "norm" in rows.columns and rows["norm"].is_in(["l2", "l1"]).any():
            raise NotComparableError(f"AutoAttack was limited in {rows['norm'][0]}, RobustBench's in linf; {_RIGHT}")
        if EPSILON not in rows["epsilon"].to_list():
            sizes = ", ".join(f"{size:g}/255" for size in rows["epsilon"].unique().sort().to_list())
            raise NotComparableError(f"AutoAttack was measured at {sizes}, RobustBench's at 4/255; {_RIGHT}")

    def network(self, model: UsedModel) -> PublishedNetwork:
        """Return RobustBench's network by the name that a model was loaded by, or that of its file."""
        parsed = trained(model)
        name = _name_of(parsed)
        used = model.preprocessing
        if used.size != (224, 224) or abs(used.crop_pct - 0.875) > 0.002:
            raise NotComparableError(
                f"RobustBench resizes pictures to 256 and crops 224 pixels, here it is {used.size[0]} pixels, crop "
                f"{used.crop_pct:g}"
            )
        published = robustbench_linf()[name]
        attacked = {"attack": AUTOATTACK, "epsilon": EPSILON}
        numbers = tuple(
            PublishedNumber(what, value, half_interval(value / 100, self.n_images), (_place(conditions),))
            for what, value, conditions in (
                ("clean top-1 (%)", published.clean, {"attack": CLEAN}),
                ("top-1 (%) under AutoAttack, linf 4/255", published.autoattack, attacked),
            )
        )
        weights = "published" if parsed.weights is None else weights_in_words(parsed)
        return PublishedNetwork(f"{name} ({published.architecture})", numbers, weights)

    def are_same_images(self, n_images: int, images: Callable[[], Iterable[str]]) -> bool:
        """Tell whether images are RobustBench's 5,000."""
        return n_images == self.n_images and is_robustbench([*images()])


def _place(conditions: Mapping[str, Any]) -> TablePlace:
    return TablePlace("attack", "attack", "top1", conditions)


def _name_of(parsed: ModelName) -> str:
    """Return what RobustBench calls a network.

    Raises:
        NotComparableError: it has none of that name, and of the file's.
    """
    if parsed.weights is not None:
        stem = PurePosixPath(parsed.weights.replace("\\", "/")).name.partition(".")[0]
        if stem in robustbench_linf():
            return stem
    else:
        options = "&".join(f"{key}={value}" for key, value in dict(parsed.options).items())
        plain = f"{parsed.scheme}:{parsed.name}" if parsed.scheme else parsed.name
        if (written := f"{plain}?{options}" if options else plain) in _LOADED_AS:
            return _LOADED_AS[written]
    raise NotComparableError(
        f"it is none of RobustBench's networks in linf on ImageNet; give {parsed.name}@NAME.pt, a file of weights that "
        f"is called as there: {', '.join([*robustbench_linf()][:3])}, ..."
    )
