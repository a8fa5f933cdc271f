"""What all networks made of stages over a feature map have in common: convolutional ones, Swin."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from ipvit.errors import InputError
from ipvit.models.adapters.base import Adapter, BlockTokens, FeatureState, checked_mask, logits_of
from ipvit.models.adapters.hooks import BlockInput, HookPoint, copied, read, replaced, skipped
from ipvit.models.adapters.lacking import OF_STAGES, reason_for
from ipvit.models.adapters.transformer import check_block


@dataclasses.dataclass(frozen=True)
class Stage:
    """Modules that are called one after the other."""

    name: str
    modules: tuple[nn.Module, ...]


@dataclasses.dataclass(frozen=True)
class Chain:
    """A network as one chain of modules: stem, stages, tail, pooling, classifier.

    Attributes:
        stem: what comes before the first stage.
        stages: the stages.
        tail: what comes between the last stage and the pooling.
        pool: where the map on its way into the pooling can be read.
        classifier: the layer that makes the logits of one vector, or None if the network pools logits.
        channels_last: stages work on ``(B, H, W, C)``.
        pool_channels_last: the pooling, likewise.
        final_norm: what the last stage's output goes through when tokens are asked for with ``norm``.
    """

    stem: tuple[nn.Module, ...]
    stages: tuple[Stage, ...]
    tail: tuple[nn.Module, ...]
    pool: HookPoint
    classifier: nn.Module | None
    channels_last: bool = False
    pool_channels_last: bool = False
    final_norm: nn.Module | None = None


class FeatureMapAdapter(Adapter):
    """Blocks are stages over feature maps, and ``pool``: the last map on its way into the pooling.

    A subclass says what enters a block, and which layer makes the logits of the pooled vector. Going on from a state
    runs the whole network and puts the state in its place.
    """

    @property
    def capabilities(self) -> frozenset[str]:
        """See :class:`Adapter`."""
        return super().capabilities | {"tokens", "feature_drop"}

    def lacking(self, capability: str) -> str:
        """See :class:`Adapter`."""
        known = capability in self.capabilities
        return "" if known else reason_for(type(self.network).__mro__, capability, OF_STAGES)

    @property
    def head_kinds(self) -> tuple[str, ...]:
        """See :class:`Adapter`."""
        return () if self._classifier() is None else ("pooled",)

    def run_from_block(self, state: FeatureState, block: int | None = None) -> Tensor:
        """See :class:`Adapter`."""
        check_block(state, block)
        with self.resumed(state) as images:
            return logits_of(self.network(images))

    @contextlib.contextmanager
    def resumed(self, state: FeatureState) -> Iterator[Tensor]:
        """See :class:`Adapter`."""
        with replaced(self._entrance(state.block), lambda _: copied(state.block_input)):
            yield state.images

    def classify(self, vector: Tensor, kind: str = "pooled") -> Tensor:
        """See :class:`Adapter`."""
        classifier = self._classifier()
        if kind != "pooled" or classifier is None:
            raise InputError(f"no head of {type(self.network).__name__} reads the vector {kind!r}")
        return classifier(vector)

    def _classifier(self) -> nn.Module | None:
        """Return the layer that makes the logits of the pooled vector; None where there is none."""
        raise NotImplementedError

    def _entrance(self, block: int) -> HookPoint:
        """Return where what enters a block passes."""
        raise NotImplementedError


class StagedAdapter(FeatureMapAdapter):
    """Blocks are the stages of a :class:`Chain`, and ``pool``; those before a state are not run again.

    Tokens of a stage are the positions of the map that leaves it; those of ``pool`` are the positions of the map that
    is pooled, and their ``pooled`` is what enters the classifier. Features are dropped from the map that enters a
    stage, all channels of a position together.
    """

    def __init__(self, network: nn.Module, chain: Chain) -> None:
        super().__init__(network)
        self.chain = chain
        self.block_names = (*(stage.name for stage in chain.stages), "pool")

    def tokens(self, images: Tensor, blocks: Sequence[int], norm: bool) -> dict[int, BlockTokens]:
        """See :class:`Adapter`."""
        wanted = self._checked(blocks)
        last = self.n_blocks - 1
        points = [self._output(block) for block in wanted]
        if last in wanted and self.chain.classifier is not None:
            points.append(HookPoint(self.chain.classifier))
        block_inputs = read(self.network, images, points)
        found = {}
        for block, block_input in zip(wanted, block_inputs, strict=False):
            features = block_input.args[0]
            if norm and block == last - 1 and self.chain.final_norm is not None:
                features = self.chain.final_norm(features)
            patches, grid = positions(features, self._channels_last(block))
            found[block] = BlockTokens({}, patches, grid, patches.mean(dim=1))
        if len(block_inputs) > len(wanted):
            entering = block_inputs[-1].args[0]
            found[last] = dataclasses.replace(found[last], pooled=entering.reshape(entering.shape[0], -1))
        return found

    def run_to_block(self, images: Tensor, block: int) -> FeatureState:
        """See :class:`Adapter`."""
        return self.run_to_blocks(images, [block])[block]

    def run_to_blocks(self, images: Tensor, blocks: Sequence[int]) -> dict[int, FeatureState]:
        """See :class:`Adapter`."""
        wanted = self._checked(blocks)
        block_inputs = read(self.network, images, [self._entrance(block) for block in wanted], copy=len(wanted) > 1)
        states = {}
        for block, block_input in zip(wanted, block_inputs, strict=True):
            _, grid = positions(block_input.args[0], self._channels_last(block))
            states[block] = FeatureState(block, block_input, grid, images)
        return states

    def drop(self, state: FeatureState, keep: Tensor) -> FeatureState:
        """See :class:`Adapter`."""
        features = without_positions(state.block_input.args[0], keep, state.grid, self._channels_last(state.block))
        return dataclasses.replace(
            state, block_input=BlockInput((features, *state.block_input.args[1:]), state.block_input.kwargs)
        )

    @contextlib.contextmanager
    def resumed(self, state: FeatureState) -> Iterator[Tensor]:
        """See :class:`Adapter`."""
        before = list(self.chain.stem)
        for stage in self.chain.stages[: state.block]:
            before += stage.modules
        if state.block == len(self.chain.stages):
            before += self.chain.tail
        with skipped(before), super().resumed(state) as images:
            yield images

    def _classifier(self) -> nn.Module | None:
        return self.chain.classifier

    def _entrance(self, block: int) -> HookPoint:
        return self.chain.pool if block == len(self.chain.stages) else HookPoint(self.chain.stages[block].modules[0])

    def _output(self, block: int) -> HookPoint:
        is_pool = block == len(self.chain.stages)
        return self.chain.pool if is_pool else HookPoint(self.chain.stages[block].modules[-1], "output")

    def _channels_last(self, block: int) -> bool:
        is_pool = block == len(self.chain.stages)
        return self.chain.pool_channels_last if is_pool else self.chain.channels_last


def positions(features: Tensor, channels_last: bool) -> tuple[Tensor, tuple[int, int]]:
    """Return a feature map as ``(B, rows * cols, C)``, and its rows and columns."""
    ordered = features if channels_last else features.permute(0, 2, 3, 1)
    return ordered.flatten(1, 2), (ordered.shape[1], ordered.shape[2])


def without_positions(features: Tensor, keep: Tensor, grid: tuple[int, int], channels_last: bool) -> Tensor:
    """Return a feature map with all channels zero where ``keep`` is False."""
    mask = checked_mask(keep, features.shape[0], grid).reshape(-1, *grid).to(features.device)
    return features.where(mask.unsqueeze(-1 if channels_last else 1), features.new_zeros(()))


def children(module: nn.Module) -> tuple[nn.Module, ...]:
    """Return what a container holds, in its order."""
    return tuple(module.children())
