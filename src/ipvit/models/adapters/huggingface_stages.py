"""Hugging Face transformers' networks of stages: Swin, ConvNeXt, ResNet, MobileViT and others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ipvit.errors import InputError
from ipvit.models.adapters.base import BlockTokens, FeatureState, checked_mask
from ipvit.models.adapters.hooks import BlockInput, HookPoint, read
from ipvit.models.adapters.huggingface import body_of
from ipvit.models.adapters.staged import FeatureMapAdapter, positions, without_positions

_FAMILIES = (
    ("swin", "Swin"),
    ("swinv2", "Swinv2"),
    ("focalnet", "FocalNet"),
    ("convnext", "ConvNext"),
    ("convnextv2", "ConvNextV2"),
    ("resnet", "ResNet"),
    ("regnet", "RegNet"),
    ("mobilevit", "MobileViT"),
    ("mobilevitv2", "MobileViTV2"),
)


class HuggingFaceStages(FeatureMapAdapter):
    """Classifiers of transformers whose encoder is a list of stages.

    Blocks are the stages, and ``pool``: what enters the pooling. A stage takes and returns a map ``(B, C, H, W)``, or a
    sequence of places ``(B, H * W, C)`` beside the rows and columns it has.
    """

    handles = tuple(
        f"transformers.models.{module}.modeling_{module}.{name}ForImageClassification" for module, name in _FAMILIES
    )

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        body = _body_of(network)
        self._stages = tuple(_stages_of(body))
        self.block_names = (*(f"stage {place + 1}" for place in range(len(self._stages))), "pool")
        last = getattr(body, "conv_1x1_exp", None)  # MobileViT widens its last map
        if last is None and "swin" in type(network).__module__:
            last = body.layernorm
        self._pool = HookPoint(self._stages[-1] if last is None else last, "output")
        layers = [layer for layer in network.classifier.modules() if isinstance(layer, nn.Linear)]
        self._last_layer = layers[-1] if layers else None

    @classmethod
    def supports(cls, network: Any) -> bool:
        """See :class:`Adapter`; a release that keeps its stages elsewhere is not read."""
        return bool(_stages_of(_body_of(network))) and isinstance(getattr(network, "classifier", None), nn.Module)

    @property
    def capabilities(self) -> frozenset[str]:
        """See :class:`Adapter`."""
        return super().capabilities - ({"logits"} if self._last_layer is None else set())

    def tokens(self, images: Tensor, blocks: Sequence[int], norm: bool) -> dict[int, BlockTokens]:
        """See :class:`Adapter`; the norm before Swin's pooling is in what ``pool`` has, whatever ``norm`` is."""
        wanted = self._checked(blocks)
        last = self.n_blocks - 1
        numbers = [min(block, last - 1) for block in wanted]
        points = [HookPoint(self._stages[number]) for number in numbers]
        points += [self._pool if block == last else HookPoint(self._stages[block], "output") for block in wanted]
        if last in wanted and self._last_layer is not None:
            points.append(HookPoint(self._last_layer))
        found = read(self.network, images, points)
        tokens = {}
        for place, block in enumerate(wanted):
            output = _first(found[len(wanted) + place].args[0])
            patches, grid = self._places(output, found[place])
            tokens[block] = BlockTokens({}, patches, grid, patches.mean(dim=1))
        if len(found) > 2 * len(wanted):
            entering = found[-1].args[0]
            tokens[last] = dataclasses.replace(tokens[last], pooled=entering.reshape(entering.shape[0], -1))
        return tokens

    def run_to_block(self, images: Tensor, block: int) -> FeatureState:
        """See :class:`Adapter`."""
        return self.run_to_blocks(images, [block])[block]

    def run_to_blocks(self, images: Tensor, blocks: Sequence[int]) -> dict[int, FeatureState]:
        """See :class:`Adapter`."""
        wanted = self._checked(blocks)
        numbers = [min(block, self.n_blocks - 2) for block in wanted]
        points = [HookPoint(self._stages[number]) for number in numbers]
        points += [self._entrance(block) for block in wanted]
        found = read(self.network, images, points, copy=True)
        states = {}
        for place, block in enumerate(wanted):
            entering = found[len(wanted) + place]
            _, grid = self._places(_first(entering.args[0]), found[place])
            states[block] = FeatureState(block, entering, grid, images)
        return states

    def drop(self, state: FeatureState, keep: Tensor) -> FeatureState:
        """See :class:`Adapter`."""
        first, *others = state.block_input.args
        features = _first(first)
        if features.ndim == 4:
            dropped = without_positions(features, keep, state.grid, channels_last=False)
        else:
            mask = checked_mask(keep, features.shape[0], state.grid).to(features.device)
            dropped = features.where(mask.unsqueeze(-1), features.new_zeros(()))
        whole = (dropped, *first[1:]) if isinstance(first, tuple) else dropped
        return dataclasses.replace(state, block_input=BlockInput((whole, *others), state.block_input.kwargs))

    def _classifier(self) -> nn.Module | None:
        return self._last_layer

    def _entrance(self, block: int) -> HookPoint:
        return self._pool if block == self.n_blocks - 1 else HookPoint(self._stages[block])

    def _places(self, features: Tensor, entering: BlockInput) -> tuple[Tensor, tuple[int, int]]:
        """Return features as ``(B, places, C)``, and their rows and columns, from what enters or leaves a stage."""
        if features.ndim == 4:
            return positions(features, channels_last=False)
        rows, columns = (int(side) for side in entering.args[1])
        for grid in ((rows, columns), ((rows + 1) // 2, (columns + 1) // 2)):
            if features.ndim == 3 and features.shape[1] == grid[0] * grid[1]:
                return features, grid
        raise InputError(f"{type(self.network).__name__}: {tuple(features.shape)} is no map of {rows}x{columns} places")


def _body_of(network: Any) -> Any:
    """Return the part of a network that has the encoder."""
    body = body_of(network)
    return body if hasattr(body, "encoder") else getattr(network, "base_model", network)


def _stages_of(body: Any) -> Sequence[nn.Module]:
    encoder = getattr(body, "encoder", None)
    for name in ("stages", "layers", "layer"):
        if isinstance(stages := getattr(encoder, name, None), nn.ModuleList):
            return list(stages)
    return []


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
