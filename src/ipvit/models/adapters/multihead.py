"""Transformers whose blocks attend by PyTorch's ``nn.MultiheadAttention``, which returns its map when asked to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor

from ipvit.models.adapters.hooks import BlockInput, HookPoint, replaced
from ipvit.models.adapters.transformer import TransformerAdapter


class MultiheadAttentionAdapter(TransformerAdapter):
    """Attention is read as what the module returns beside its output."""

    attention_name: ClassVar[str]
    """What a block calls its ``nn.MultiheadAttention``."""

    def n_heads(self, block: int) -> int | None:
        """See :class:`~ipvit.models.adapters.base.Adapter`."""
        return self._attention_of(self.blocks[block]).num_heads

    def _attention_of(self, block: Any) -> Any:
        return getattr(block, self.attention_name)

    def _attention_points(self, block: Any) -> list[HookPoint]:
        return [HookPoint(self._attention_of(block), "output")]

    def _attention_map(self, block: Any, block_inputs: list[BlockInput]) -> Tensor:
        return block_inputs[0].args[0][1]

    @contextlib.contextmanager
    def _readable(self, block: Any) -> Iterator[None]:
        asking = {"need_weights": True, "average_attn_weights": False}
        with replaced(
            HookPoint(self._attention_of(block)),
            lambda block_input: BlockInput(block_input.args, block_input.kwargs | asking),
        ):
            yield
