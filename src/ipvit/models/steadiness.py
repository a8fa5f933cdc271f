"""Does a network answer each picture for itself, always alike, and not all pictures alike?

Numbers of one that does not are measured like any others, and say nothing: batch normalisation in training mode,
dropout that is never switched off, a head that has collapsed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from ipvit.models.adapters import unwrap
from ipvit.models.dry_pass import as_in_a_run, probe_pictures

if TYPE_CHECKING:
    from ipvit.models.model import Model

Doubt = Literal["", "random answers", "batch-dependent answers", "constant answers"]

TOLERANCE = 1e-3
"""Of the largest value: what another order of additions may change, and no dropout stays below."""


def doubt_of(model: Model) -> Doubt:
    """Return what is doubtful about all numbers of a network; the keys of :data:`ipvit.core.manifest.DOUBTS`.

    Two passes over two made-up pictures each, a third where they differ. A network that fails has no doubts: that it
    fails is said elsewhere.
    """
    with as_in_a_run(model):
        pictures = probe_pictures(model)
        # quite other pictures than noise: a black one, and one that is half white
        others = torch.zeros_like(pictures)
        others[1, :, : pictures.shape[2] // 2] = 1
        try:
            first = _answers(model, pictures)
            mixed = _answers(model, torch.stack([pictures[0], others[1]]))
            if first is None or mixed is None or not bool((first.isfinite().all() & mixed.isfinite().all()).item()):
                return ""
            if not _alike(first[0], mixed[0]):
                again = _answers(model, pictures)
                steady = again is not None and _alike(first, again)
                return "batch-dependent answers" if steady else "random answers"
            rows = torch.stack([first[0], first[1], mixed[1]])
            spread = (rows - rows[0]).abs().max()
            return "constant answers" if float(spread) == 0.0 else ""
        except Exception:  # noqa: BLE001 - anything may come out of somebody's network
            return ""


def _answers(model: Model, pictures: Tensor) -> Tensor | None:
    """Return what a network says of each picture, ``(B, n)`` float64; None where it is not one row a picture."""
    network: Any = unwrap(model.backbone)  # a compiler would compile for two pictures
    # votes of neighbours jump where two are equally near, and may be of one class for any picture
    read = network if model.bank is None else network.features
    found = _first_tensor(read(model.normalize(pictures)))
    if found is None or found.ndim < 2 or len(found) != len(pictures) or not found.is_floating_point():
        return None
    return found.detach().double().flatten(1)


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        parts = cast("Mapping[str, Any]", output)
        return _first_tensor(parts["logits"] if "logits" in parts else next(iter(parts.values()), None))
    if isinstance(output, tuple | list):
        return _first_tensor(next(iter(cast("tuple[Any, ...]", output)), None))
    return None


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    most = torch.maximum(one.abs().max(), other.abs().max())
    return bool((one - other).abs().max() <= TOLERANCE * most)
