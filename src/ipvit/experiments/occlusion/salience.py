"""Where the foreground is: a network's attention, once per image for all levels and models (section 3.1)."""

from __future__ import annotations

import dataclasses
import weakref

import torch
import torch.nn.functional as F
from torch import Tensor

from ipvit.core.queued.deferred import forbid
from ipvit.errors import InputError
from ipvit.experiments.base import Batch
from ipvit.experiments.occlusion.experiment import MASKS
from ipvit.models.adapters.base import counted_blocks
from ipvit.models.loading import load_model
from ipvit.models.model import Model
from ipvit.perturb.cells import cell_sums, divides
from ipvit.perturb.salience import IMPROPER, improper


@dataclasses.dataclass
class Salience:
    """Salience maps from the attention of a network's class token, or from ground-truth masks.

    Args:
        name: a model name (the paper: ``paper:dino_vits16``), or ``masks``.
        block: whose attention; -1 is the last.
        head: a head's number (the paper: 1, counted from 0), ``mean`` of all heads, or ``rollout`` (Abnar & Zuidema
            2020: the product of all blocks' mean attention, each mixed with the identity).
        borrowed_normalisation: normalise its input with the evaluated network's mean and std, as the authors' code
            does; the maps then differ from one evaluated network to the next.
        evaluated: that network.
    """

    name: str
    block: int = -1
    head: str = "1"
    borrowed_normalisation: bool = False
    evaluated: Model | None = dataclasses.field(default=None, repr=False)
    _model: Model | None = dataclasses.field(default=None, repr=False)
    _latest: tuple[weakref.ref[Tensor], object, Tensor, Tensor] | None = dataclasses.field(default=None, repr=False)

    def prepare(self) -> None:
        """Load the network and check that it has what is asked of it.

        Raises:
            InputError: it has no attention, no such block or no such head.
        """
        if self.name == MASKS or self._model is not None:
            return
        model = load_model(self.name)
        if not tells_salience(model):
            raise InputError(f"salience: {model.name} has no attention from a class token to the patches")
        if not -model.adapter.n_blocks <= self.block < model.adapter.n_blocks:
            raise InputError(f"salience: {model.name} has {model.adapter.n_blocks} blocks, no block {self.block}")
        if self.head not in ("mean", "rollout") and not self.head.isdecimal():
            raise InputError(f"salience: a head is a number, mean or rollout, not {self.head!r}")
        able, number = model.adapter.attention_blocks, self.block % model.adapter.n_blocks
        wanted = range(model.adapter.n_blocks) if self.head == "rollout" else [number]
        if not set(wanted) <= set(able):
            raise InputError(f"salience: {model.name} has attention maps in {counted_blocks(able)} only")
        heads = model.n_heads(able[-1] if self.head == "rollout" else number)
        if self.head.isdecimal() and int(self.head) >= heads:
            raise InputError(f"salience: {model.name} has heads 0 to {heads - 1}, no head {self.head}")
        self._model = model

    @property
    def identity(self) -> str:
        """What determines the maps, as a column of the records."""
        if self.name == MASKS:
            return MASKS
        self.prepare()
        assert self._model is not None
        borrowed = ", borrowed normalisation" if self.borrowed_normalisation else ""
        return f"{self._model.digest[:12]} block {self.block} head {self.head}{borrowed}"

    def maps(self, batch: Batch, grid: tuple[int, int]) -> Tensor:
        """Return salience per grid cell, ``(B, rows, columns)``, float64 (float32 on Apple's GPU), non-negative.

        The network sees the unoccluded images at its own input size, with its own normalisation. Its map is averaged
        onto the grid when the grid is another than its own. Masks are averaged over every cell; where the grid does not
        divide the image they are summed up, so that a larger cell counts for more.
        """
        borrowed = self.evaluated.preprocessing if self.borrowed_normalisation and self.evaluated else None
        # these very pixels: images of the same names and size may be another crop, or of another data set
        if self._latest is None or self._latest[0]() is not batch.images or self._latest[1] != borrowed:
            found = self._from_masks(batch) if self.name == MASKS else self._from_attention(batch)
            self._latest = (weakref.ref(batch.images), borrowed, found, improper(found))
        fine, wrong = self._latest[2:]
        forbid(wrong, IMPROPER)
        if tuple(fine.shape[-2:]) == grid:
            return fine
        if self.name == MASKS and not divides((fine.shape[-2], fine.shape[-1]), grid):
            return cell_sums(fine, grid)  # of the very cells that are dropped
        return F.interpolate(fine.unsqueeze(1), size=grid, mode="area").squeeze(1)

    def _from_masks(self, batch: Batch) -> Tensor:
        if batch.masks is None:
            raise InputError("salience: the data has no foreground masks")
        return _fine(batch.masks) + 1e-9  # background patches count for almost nothing, in a fixed order

    def _from_attention(self, batch: Batch) -> Tensor:
        self.prepare()
        model = self._model
        assert model is not None
        if model.device != batch.images.device:
            model.to(batch.images.device)
        images = batch.images
        if tuple(images.shape[-2:]) != model.image_size:
            images = F.interpolate(images, size=model.image_size, mode="bicubic", antialias=True).clamp(0, 1)
        if self.borrowed_normalisation and self.evaluated is not None:  # undone by the model's own normalisation
            images = model.denormalize(self.evaluated.normalize(images))
        adapter = model.adapter
        n_prefix, row = len(adapter.prefix_tokens), adapter.prefix_tokens.index("class")
        blocks = range(adapter.n_blocks) if self.head == "rollout" else [self.block % adapter.n_blocks]
        attention = model.attention(images, list(blocks))
        if self.head == "rollout":
            weights = rollout(list(attention.values()))[:, row, n_prefix:]
        else:
            heads = attention[blocks[0]][:, :, row, n_prefix:]
            weights = heads.mean(dim=1) if self.head == "mean" else heads[:, int(self.head)]
        rows, columns = adapter.patch_grid(model.image_size)
        return _fine(weights).view(len(weights), rows, columns)


def tells_salience(model: Model) -> bool:
    """Return whether a network has attention from a class token to its patches."""
    return all(model.can(name) for name in ("attention", "tokens")) and "class" in model.adapter.prefix_tokens


def _fine(values: Tensor) -> Tensor:
    return values.float() if values.device.type == "mps" else values.double()


def rollout(attention: list[Tensor]) -> Tensor:
    """Return attention rollout (Abnar & Zuidema 2020): from every token to every input token, through all blocks.

    Args:
        attention: per block ``(B, heads, T, T)``, the first block first.

    Returns:
        ``(B, T, T)``; rows sum to one.
    """
    total = None
    for block in attention:
        mixed = 0.5 * _fine(block).mean(dim=1) + 0.5 * _fine(torch.eye(block.shape[-1], device=block.device))
        total = mixed if total is None else mixed @ total
    assert total is not None
    return total
