"""Figures 12 and 13: attacks. Their right halves, of networks trained on stylised images, are drawn larger."""

from __future__ import annotations

from collections.abc import Iterator

from ipvit.analysis.paper_numbers import PaperNumber, TableCell, network, targets

_PATCH = frozenset(
    f"patch_{name}"
    for name in (
        "areas",
        "shape",
        "placements",
        "grid",
        "scale",
        "target",
        "data",
        "images",
        "steps",
        "batch",
        "rate",
        "files",
    )
)
_ALWAYS = frozenset({"attacks", "epsilons", "norm", "runs", "transfer"})
_FREE = {
    "fgsm": _ALWAYS | _PATCH | {"steps", "step_size", "restarts", "random_start"},
    "pgd": _ALWAYS | _PATCH,
    "patch": _ALWAYS | {"steps", "step_size", "restarts", "random_start", "patch_areas", "patch_grid", "patch_data"},
}
"""Parameters that a number of each attack does not depend on."""


def paper_numbers() -> Iterator[PaperNumber]:
    """Yield the numbers of the paper that this experiment measures."""
    yield from _pixels("fig13_fgsm", "fgsm", "FGSM", 0.7, 0.1)
    yield from _pixels("fig13_pgd5", "pgd", "PGD, 5 steps", 0.3, 0.03)
    yield from _patches()


def _pixels(key: str, attack: str, words: str, left: float, right: float) -> Iterator[PaperNumber]:
    entry = targets()[key]
    steps = {"steps": 5} if attack == "pgd" else {}
    for title, values in entry["y"].items():
        for epsilon, top1 in zip(entry["eps"], values, strict=True):
            asked = {"attack": attack, "epsilon": float(epsilon)}
            yield PaperNumber(
                key,
                "Figure 13",
                title,
                f"top-1 (%), {words}, epsilon {epsilon}/255",
                top1,
                right if title.endswith("SIN") else left,
                entry["src"],
                (TableCell("attack", "top1", asked | steps, settings=steps, free=_FREE[attack]),),
                network=network(title),
                drawn=asked,
            )


def _patches() -> Iterator[PaperNumber]:
    key = "fig12_patch"
    entry = targets()[key]
    for title, values in entry["y"].items():
        for percent, top1 in zip(entry["sizes"], values, strict=True):
            area = percent / 100
            cell = TableCell(
                "attack",
                "top1",
                {"area": area, "patch": "trained", "target": "", "placement": "free", "shape": "circle"},
                "attack-patch",
                settings={"patch_target": ""},
                implied={
                    "target": {},
                    "placement": {"patch_placements": ("free",)},
                    "shape": {"patch_shape": "circle"},
                },
                free=_FREE["patch"],
            )
            yield PaperNumber(
                key,
                "Figure 12",
                title,
                f"top-1 (%), patch of {percent} %",
                top1,
                0.3 if title.endswith("SIN") else 1.5,
                entry["src"],
                (cell,),
                network=network(title),
                drawn={"attack": "patch", "area": area},
            )
