"""Any other timm network that says where its features are."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ipvit.errors import InputError
from ipvit.models.adapters.base import BlockTokens, FeatureState, checked_mask
from ipvit.models.adapters.hooks import BlockInput, HookPoint, read
from ipvit.models.adapters.lacking import ruled_out
from ipvit.models.adapters.staged import FeatureMapAdapter, positions, without_positions


class TimmFeatures(FeatureMapAdapter):
    """Networks with timm's ``feature_info`` and ``forward_intermediates``: ConvNeXt, DenseNet, NFNet, PVT and so on.

    Blocks are the feature levels timm names (they begin with the stem in most networks), and ``pool``: the last of
    them on its way to the head. The state before a level is the level before; before the first one it is the image.
    """

    handles = ("torch.nn.modules.module.Module",)

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        info = _feature_info(network)
        self._levels = tuple(str(level["module"]) for level in info)
        self._channels = tuple(int(level["num_chs"]) for level in info)
        self._reductions = tuple(int(level["reduction"]) for level in info)
        self.block_names = (*_told_apart(self._levels), "pool")

    @classmethod
    def supports(cls, network: Any) -> bool:
        """See :class:`Adapter`."""
        known = dict(network.named_modules()) if hasattr(network, "forward_intermediates") else {}
        levels = [info.get("module") for info in _feature_info(network)]
        return bool(levels) and hasattr(network, "forward_head") and all(level in known for level in levels)

    @property
    def capabilities(self) -> frozenset[str]:
        """See :class:`Adapter`."""
        return super().capabilities - ruled_out(type(self.network).__mro__)

    def tokens(self, images: Tensor, blocks: Sequence[int], norm: bool) -> dict[int, BlockTokens]:
        """See :class:`Adapter`."""
        wanted = self._checked(blocks)
        last = self.n_blocks - 1
        levels = sorted({min(block, last - 1) for block in wanted})
        norm = norm and len(set(self._reductions)) == 1  # in a pyramid the last norm fits the last level only
        if last in wanted:
            final, features = self.network.forward_intermediates(images, indices=levels, norm=norm)
            pooled = self.network.forward_head(final, pre_logits=True)
        else:
            features = self.network.forward_intermediates(
                images, indices=levels, norm=norm, stop_early=True, intermediates_only=True
            )
            pooled = None
        by_level = dict(zip(levels, features, strict=True))
        found = {}
        for block in wanted:
            patches, grid = positions(by_level[min(block, last - 1)], channels_last=False)
            found[block] = BlockTokens({}, patches, grid, patches.mean(dim=1))
        if pooled is not None:
            found[last] = dataclasses.replace(found[last], pooled=pooled.reshape(pooled.shape[0], -1))
        return found

    def run_to_block(self, images: Tensor, block: int) -> FeatureState:
        """See :class:`Adapter`."""
        if "feature_drop" not in self.capabilities:
            raise self._cannot("feature_drop")
        (block,) = self._checked([block])
        block_input = BlockInput((images,)) if block == 0 else read(self.network, images, [self._entrance(block)])[0]
        return FeatureState(block, block_input, self._grid(block_input.args[0], block, images), images)

    def drop(self, state: FeatureState, keep: Tensor) -> FeatureState:
        """See :class:`Adapter`."""
        features = state.block_input.args[0]
        if features.dim() == 3:
            mask = checked_mask(keep, features.shape[0], state.grid).to(features.device)
            spared = mask.new_ones(mask.shape[0], features.shape[1] - mask.shape[1])
            kept = torch.cat([spared, mask], dim=1).unsqueeze(-1)
            dropped = features.where(kept, features.new_zeros(()))
        else:
            channels_last = self._channels_last(state.block, features, state.images)
            dropped = without_positions(features, keep, state.grid, channels_last)
        return dataclasses.replace(state, block_input=BlockInput((dropped,)))

    @contextlib.contextmanager
    def resumed(self, state: FeatureState) -> Iterator[Tensor]:
        """See :class:`Adapter`."""
        if state.block == 0:
            yield state.block_input.args[0]
            return
        with super().resumed(state) as images:
            yield images

    def _classifier(self) -> nn.Module | None:
        head = self.network.get_classifier()
        return head if isinstance(head, nn.Linear) else None

    def _entrance(self, block: int) -> HookPoint:
        return HookPoint(self.network.get_submodule(self._levels[block - 1]), "output")

    def _grid(self, features: Any, block: int, images: Tensor) -> tuple[int, int]:
        if isinstance(features, Tensor) and features.dim() == 4:
            return positions(features, self._channels_last(block, features, images))[1]
        # A sequence of tokens, prefix tokens first; in a pyramid (Hiera) they need not be in the order of the image.
        step = self._reductions[block - 1]
        rows, columns = images.shape[-2] // step, images.shape[-1] // step
        counts = (rows * columns, rows * columns + getattr(self.network, "num_prefix_tokens", 0))
        is_sequence = isinstance(features, Tensor) and features.dim() == 3 and features.shape[1] in counts
        if is_sequence and len(set(self._reductions)) == 1:
            return rows, columns
        raise InputError(f"{type(self.network).__name__}: {self._levels[block - 1]!r} gives no map to drop places from")

    def _channels_last(self, block: int, features: Tensor, images: Tensor) -> bool:
        if block == 0:
            return False
        count = self._channels[block - 1]
        if not features.shape[1] == count == features.shape[3]:
            return features.shape[1] != count
        # as many channels as places on a side: timm's own reading, channels first, tells which is which
        level = self.network.forward_intermediates(
            images[:1], indices=[block - 1], stop_early=True, intermediates_only=True
        )[0]
        plain = read(self.network, images[:1], [self._entrance(block)])[0].args[0]
        return not torch.equal(plain, level)


def _told_apart(names: tuple[str, ...]) -> list[str]:
    """Return names, numbered where one stands for several levels: those of several branches."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    count = dict.fromkeys(names, 0)
    told = []
    for name in names:
        count[name] += 1
        told.append(name if seen[name] == 1 else f"{name}, branch {count[name]}")
    return told


def _feature_info(network: nn.Module) -> list[dict]:
    info = getattr(network, "feature_info", [])
    return list(info) if isinstance(info, list | tuple) else list(getattr(info, "info", []))
