"""A classifier of neighbours: the labelled images whose features are nearest vote (DINO's protocol).

Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers", after Wu et al. 2018: the k nearest by
cosine, each with the weight ``exp(cosine / T)``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ipvit.core.digests import digest_of_json
from ipvit.core.terminal import progress
from ipvit.data.checks import check_one_label
from ipvit.data.dataset import Dataset
from ipvit.data.subset import subset_indices
from ipvit.errors import InputError, shown
from ipvit.features.store import FeatureStore
from ipvit.models.io.probe_head import with_head
from ipvit.models.model import Model
from ipvit.models.readout import FeatureSpec, own_token

FLOOR = 1e-6
"""Added to a class's share of the votes before its logarithm is taken: a class without votes has a logit too."""

BLOCK = 65_536
"""Images of the bank that are compared at a time."""


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """How neighbours vote.

    Attributes:
        k: how many do.
        temperature: of the weights ``exp(cosine / temperature)``.
        token: what is compared, of the last block; the network's own token where None.
        limit: so many images of the data, the same ones every time; all where None.
    """

    k: int = 20
    temperature: float = 0.07
    token: str | None = None
    limit: int | None = None

    @classmethod
    def of(cls, options: dict[str, Any], name: str) -> Neighbours:
        """Return what options of a model's name ask for: ``k``, ``T``, ``token`` and ``limit``.

        Raises:
            InputError: a value is none.
        """
        k, temperature, limit = options.get("k", cls.k), options.get("T", cls.temperature), options.get("limit")
        for key, value in (("k", k), *([] if limit is None else [("limit", limit)])):
            if type(value) is not int or value < 1:
                raise InputError(f"{name}: {key} is a number of images from 1, not {shown(value)}")
        if type(temperature) not in (int, float) or not 0.001 <= temperature <= 1000:
            raise InputError(f"{name}: T is a temperature from 0.001 to 1000, not {shown(temperature)}")
        token = options.get("token")
        return cls(k, float(temperature), None if token is None else str(token), limit)


class NeighbourHead(nn.Module):
    """Votes of the nearest images of a bank.

    The logit of a class is ``log(share + FLOOR)``, where the share is that of its neighbours' weights among those of
    all k. Gradients flow through the similarities of the chosen neighbours; which ones are chosen has none.

    Args:
        bank: features of the images that vote, ``(N, D)``; scaled to length 1 here.
        labels: ``(N,)`` their classes, from 0.
        outputs: how many classes there are.
        k: how many vote, at most N.
        temperature: of the weights.
    """

    bank: Tensor
    labels: Tensor

    def __init__(self, bank: Tensor, labels: Tensor, outputs: int, k: int, temperature: float) -> None:
        super().__init__()
        if not 1 <= k <= len(bank):
            raise InputError(f"{k} neighbours cannot vote among {len(bank)} images")
        self.k, self.temperature, self.outputs = k, temperature, outputs
        self.register_buffer("bank", nn.functional.normalize(bank.float(), dim=1), persistent=False)
        self.register_buffer("labels", labels.long(), persistent=False)

    def nearest(self, features: Tensor) -> Tensor:
        """Return the places in the bank of the nearest images, ``(B, k)``, for unit vectors ``(B, D)``."""
        best = features.new_full((len(features), 0), 0.0)
        places = torch.zeros(len(features), 0, dtype=torch.long, device=features.device)
        for start in range(0, len(self.bank), BLOCK):
            block = self.bank[start : start + BLOCK]
            here = torch.arange(start, start + len(block), device=features.device).expand(len(features), -1)
            best, places = torch.cat([best, features @ block.T], dim=1), torch.cat([places, here], dim=1)
            best, kept = best.topk(min(self.k, best.shape[1]), dim=1)
            places = places.gather(1, kept)
        return places

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``(B, outputs)`` of features ``(B, D)``, in float32 whatever the autocast around."""
        with torch.autocast(features.device.type, enabled=False):
            unit = nn.functional.normalize(features.float(), dim=1)
            places = self.nearest(unit.detach())
            similar = torch.einsum("bd,bkd->bk", unit, self.bank[places])
            weights = (similar / self.temperature).softmax(dim=1)
            shares = weights.new_zeros(len(weights), self.outputs).scatter_add(1, self.labels[places], weights)
            return (shares + FLOOR).log()


def with_neighbours(
    backbone: Model,
    data: Dataset,
    how: Neighbours,
    store: str | Path,
    *,
    name: str,
    batch_size: int = 32,
    workers: int = 0,
) -> Model:
    """Return a model that answers by the votes of labelled images; it shares the backbone's weights.

    Args:
        backbone: the network, on the device that computes the features of the bank.
        data: the images that vote.
        how: they do.
        store: folder of the :class:`FeatureStore` that keeps their features.
        name: shown in tables.
        batch_size: images at a time.
        workers: decoding processes.

    Raises:
        InputError: the network has no tokens, the data have no classes, or too few images.
    """
    if reason := backbone.why_not("tokens"):
        raise InputError(f"{name}: neighbours compare tokens, which {backbone.name} does not offer ({reason})")
    check_one_label(data)
    if data.classes is None:
        raise InputError(f"{name}: {data.name} has no class folders, so its images cannot vote")
    spec = FeatureSpec(backbone.adapter.n_blocks - 1, how.token or own_token(backbone))
    positions = subset_indices(data, how.limit)
    positions = positions[np.asarray(data.labels)[positions] >= 0]
    labels = np.asarray(data.labels)[positions]
    if len(np.unique(labels)) < 2 or len(labels) < how.k:
        raise InputError(
            f"{name}: {how.k} neighbours vote, and {data.name} has {len(labels):,} labelled images of "
            f"{len(np.unique(labels))} classes; give more images, or NAME@knn:DATA?k=1"
        )
    with progress("reading the bank", len(positions), shown=True, unit="images") as advance:
        found = FeatureStore(store).extract(
            backbone,
            data,
            [spec],
            positions=positions,
            batch_size=batch_size,
            workers=workers,
            advance=advance,
        )
    if found.unreadable:
        image, reason = next(iter(found.unreadable.items()))
        raise InputError(
            f"{name}: {len(found.unreadable):,} images of {data.name} cannot vote, for example {image!r} ({reason}); "
            "take them out of the data"
        )
    bank, of_images = torch.from_numpy(found.matrix([spec])), torch.from_numpy(found.labels)
    head = NeighbourHead(bank, of_images, len(data.classes), how.k, how.temperature)
    told = f"{how.k} nearest of {len(found):,} images of {data.name}, T = {how.temperature:g}, by {spec}"
    determined_by = [data.fingerprint, list(data.classes), how.k, how.temperature, how.limit, str(spec)]
    identity = f"neighbours {digest_of_json(determined_by)}"
    model = with_head(backbone, head, [spec], classes=data.classes, told=told, identity=identity, name=name)
    model.bank = data
    return model
