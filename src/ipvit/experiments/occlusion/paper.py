"""Section 3.1 and figures 3 and 27: PatchDrop."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import MappingProxyType

from ipvit.analysis.paper_numbers import Conditions, PaperNumber, TableCell, network, targets

_SETTINGS: Conditions = MappingProxyType(
    {"grid": "14x14", "offset": (0, 0), "fill": "black", "removal": "pixels", "nested": False}
)
"""Parameters of the experiment in the paper."""
_SALIENCE: Conditions = MappingProxyType({**_SETTINGS, "salience": "paper:dino_vits16", "salience_head": "1"})
_FREE = frozenset({"modes", "levels", "runs", "mask_scope", "protocol"})
_ABOUT_SALIENCE = frozenset({"salience", "salience_block", "salience_head"})
_COLUMNS: Conditions = MappingProxyType({**_SETTINGS, "offset": "0,0"})


def paper_numbers() -> Iterator[PaperNumber]:
    """Yield the numbers of the paper that this experiment measures."""
    yield from _figure_27()
    yield from _prose()
    for key, mode in (("fig3_random", "random"), ("fig3_salient", "salient"), ("fig3_nonsalient", "non_salient")):
        yield from _figure_3(key, mode)
    yield from _salience_network()


def _figure_27() -> Iterator[PaperNumber]:
    key = "patchdrop_deit_b_fig27"
    entry = targets()[key]
    for name, mode, words in (
        ("random50", "random", "random PatchDrop, 50 %"),
        ("nonsalient_lambda0.5", "non_salient", "non-salient PatchDrop, half of the mass"),
        ("salient_lambda0.5", "salient", "salient PatchDrop, half of the mass"),
    ):
        cells = (_at_level(mode, 0.5),)
        yield PaperNumber(
            key,
            "Figure 27",
            "DeiT-B",
            f"top-1 (%), {words}",
            entry[name],
            0.05,
            entry["src"],
            cells,
            network="deit_base",
        )


def _prose() -> Iterator[PaperNumber]:
    key = "patchdrop_prose"
    entry = targets()[key]
    for name, title, level, uncertainty in (
        ("deit_s_random50", "DeiT-S", 0.5, 0.5),
        ("deit_b_random90", "DeiT-B", 0.9, 0.5),
        ("resnet50_random50", "ResNet50", 0.5, 0.05),
    ):
        what, cells = f"top-1 (%), random PatchDrop, {level:.0%}", (_at_level("random", level),)
        yield PaperNumber(
            key, "Section 3.1", title, what, entry[name], uncertainty, entry["src"], cells, network=network(title)
        )


def _figure_3(key: str, mode: str) -> Iterator[PaperNumber]:
    entry = targets()[key]
    number = functools.partial(PaperNumber, key, "Figure 3", source=entry["src"])
    for title, values in entry["y"].items():
        for i, (percent, top1) in enumerate(zip(entry["x"], values, strict=True)):
            near = values[max(i - 1, 0) : i + 2]
            steep = max(near) - min(near) > 20  # more than a point for each percent
            share = percent / 100
            # the figure plots the share measured; random PatchDrop drops just the nominal one
            cell = _at_level(mode, share) if mode == "random" else _at_share(mode, share)
            yield number(
                title,
                f"top-1 (%), {mode.replace('_', '-')} PatchDrop, {percent} % dropped",
                top1,
                entry.get("tol_steep", entry["tol"]) if steep else entry["tol"],
                cells=(cell,),
                network=network(title),
                drawn={"mode": mode, "dropped": share},
            )


def _salience_network() -> Iterator[PaperNumber]:
    key = "dino_head1_mean_patch_fraction"
    entry = targets()[key]
    for mass in (0.5, 0.9):
        cell = TableCell(
            "occlusion",
            "dropped",
            {"mode": "salient", "information_loss": mass, **_COLUMNS},
            settings=_SALIENCE,
            any_network=True,
            free=_FREE,
        )
        yield PaperNumber(
            key,
            "Figure 3",
            "DINO ViT-S/16",
            f"share of patches that hold {mass:.0%} of head 1's attention",
            entry[f"mass{mass}"],
            entry["tol"],
            entry["src"],
            (cell,),
            network="dino_vits16",
        )


def _at_level(mode: str, level: float) -> TableCell:
    """Return where the accuracy at a level of PatchDrop stands."""
    conditions = {"mode": mode, **_COLUMNS, "information_loss": level}
    return TableCell("occlusion", "top1", conditions, settings=_settings(mode), free=_free(mode))


def _at_share(mode: str, dropped: float) -> TableCell:
    """Return where the accuracy stands when a share of the patches is really dropped."""
    conditions = {"mode": mode, **_COLUMNS}
    settings, free = _settings(mode), _free(mode)
    return TableCell("occlusion", "top1", conditions, along=("dropped", dropped), settings=settings, free=free)


def _settings(mode: str) -> Conditions:
    return _SETTINGS if mode == "random" else _SALIENCE


def _free(mode: str) -> frozenset[str]:
    return _FREE | _ABOUT_SALIENCE if mode == "random" else _FREE
