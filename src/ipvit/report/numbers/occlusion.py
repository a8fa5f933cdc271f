"""Section 3.1: PatchDrop and the correlation of representations."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from ipvit.report.numbers.quantity import CLEAN, Conditions, Place, Quantity, network
from ipvit.report.paper import targets

OCCLUSION: Conditions = MappingProxyType(
    {"grid": "14x14", "offset": (0, 0), "fill": "black", "removal": "pixels", "nested": False}
)
"""Parameters of the occlusion experiment in the paper."""
_SALIENCE: Conditions = MappingProxyType({**OCCLUSION, "salience": "paper:dino_vits16", "salience_head": "1"})
_OCCLUSION_COLUMNS: Conditions = MappingProxyType({**OCCLUSION, "offset": "0,0"})


def occluded(mode: str, level: float, *, dropped: float | None = None) -> Place:
    """Where the accuracy under PatchDrop stands: at a level, or at a share really dropped."""
    settings = OCCLUSION if mode == "random" else _SALIENCE
    conditions = {"mode": mode, **_OCCLUSION_COLUMNS}
    if dropped is not None:
        return Place("occlusion", "top1", conditions, along=("dropped", dropped), settings=settings)
    return Place("occlusion", "top1", conditions | {"information_loss": level}, settings=settings)


def quantities() -> Iterator[Quantity]:
    """Yield the numbers of this part of the paper."""
    yield from _patchdrop()
    yield from _correlation()


def _patchdrop() -> Iterator[Quantity]:
    entry = targets()["patchdrop_deit_b_fig27"]
    for key, what, places in (
        ("clean", "top-1 (%), clean", CLEAN),
        ("random50", "top-1 (%), random PatchDrop, 50 %", (occluded("random", 0.5),)),
        ("nonsalient_lambda0.5", "top-1 (%), non-salient PatchDrop, half of the mass", (occluded("non_salient", 0.5),)),
        ("salient_lambda0.5", "top-1 (%), salient PatchDrop, half of the mass", (occluded("salient", 0.5),)),
    ):
        yield Quantity(
            "patchdrop_deit_b_fig27", "Figure 27", "DeiT-B", what, entry[key], 0.05, entry["src"], places,
            network="deit_base",
        )  # fmt: skip
    prose = targets()["patchdrop_prose"]
    for key, title, level, uncertainty in (
        ("deit_s_random50", "DeiT-S", 0.5, 0.5),
        ("deit_b_random90", "DeiT-B", 0.9, 0.5),
        ("resnet50_random50", "ResNet50", 0.5, 0.05),
    ):
        yield Quantity(
            "patchdrop_prose", "Section 3.1", title, f"top-1 (%), random PatchDrop, {level:.0%}", prose[key],
            uncertainty, prose["src"], (occluded("random", level),), network=network(title),
        )  # fmt: skip
    for key, mode in (("fig3_random", "random"), ("fig3_salient", "salient"), ("fig3_nonsalient", "non_salient")):
        yield from _figure_3(key, mode)
    entry = targets()["dino_head1_mean_patch_fraction"]
    for mass in (0.5, 0.9):
        place = Place(
            "occlusion", "dropped", {"mode": "salient", "information_loss": mass, **_OCCLUSION_COLUMNS},
            settings=_SALIENCE, any_network=True,
        )  # fmt: skip
        yield Quantity(
            "dino_head1_mean_patch_fraction", "Figure 3", "DINO ViT-S/16",
            f"share of patches that hold {mass:.0%} of head 1's attention", entry[f"mass{mass}"], entry["tol"],
            entry["src"], (place,), network="dino_vits16",
        )  # fmt: skip


def _figure_3(key: str, mode: str) -> Iterator[Quantity]:
    entry = targets()[key]
    for title, values in entry["y"].items():
        for i, (percent, top1) in enumerate(zip(entry["x"], values, strict=True)):
            near = values[max(i - 1, 0) : i + 2]
            steep = max(near) - min(near) > 20  # more than a point for each percent
            tolerance = entry.get("tol_steep", entry["tol"]) if steep else entry["tol"]
            # random PatchDrop drops just the nominal share; the other two rows plot the share measured
            place = occluded(mode, percent / 100, dropped=None if mode == "random" else percent / 100)
            yield Quantity(
                key, "Figure 3", title, f"top-1 (%), {mode.replace('_', '-')} PatchDrop, {percent} % dropped",
                top1, tolerance, entry["src"], (place,), network=network(title),
            )  # fmt: skip


def _correlation() -> Iterator[Quantity]:
    entry = targets()["table1_corr"]
    for title, means in entry["mean"].items():
        for percent, mean, spread in zip(entry["levels"], means, entry["std"][title], strict=True):
            for measure, words, value in (("correlation", "mean", mean), ("correlation_std", "spread", spread)):
                place = Place(
                    "correlation", measure, {"information_loss": percent / 100, "grid": "14x14"},
                    settings={"grid": "14x14"},
                )  # fmt: skip
                yield Quantity(
                    "table1_corr", "Table 1", title, f"correlation, {words}, {percent} % dropped", value, 0.005,
                    entry["src"], (place,), network=network(title),
                )  # fmt: skip
