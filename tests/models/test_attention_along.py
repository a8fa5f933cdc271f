"""Attention that is read along with a pass, with its gradients."""

from __future__ import annotations

import pytest
import torch

from helpers.adapter_networks import make, make_all_with
from ipvit.errors import InputError
from ipvit.models.adapters import logits_of
from ipvit.models.adapters.transformer import TransformerAdapter


@pytest.mark.parametrize("name", make_all_with("attention"))
def test_attention_read_along_with_a_pass_is_the_attention_and_changes_no_answer(name: str) -> None:
    adapter, images = make(name)
    if not isinstance(adapter, TransformerAdapter):
        with pytest.raises(InputError, match="attention"):
            adapter.with_attention(1, lambda: logits_of(adapter.network(images)))
        return
    block = 1 if 1 in adapter.attention_blocks else adapter.attention_blocks[0]  # a class token may join late
    answers, maps = adapter.with_attention(block, lambda: logits_of(adapter.network(images)))
    with torch.no_grad():
        torch.testing.assert_close(answers, logits_of(adapter.network(images)))
        torch.testing.assert_close(maps, adapter.attention(images, [block])[block])
    assert maps.requires_grad
