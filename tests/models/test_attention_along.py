"""Attention that is read along with a pass, with its gradients."""

from __future__ import annotations

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

import ipvit
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


@pytest.mark.parametrize("name", make_all_with("attention"))
def test_what_tokens_receive_is_the_mean_of_the_maps_with_the_same_gradient(name: str) -> None:
    adapter, images = make(name)
    blocks = adapter.attention_blocks
    weight = torch.rand(1000, generator=torch.Generator().manual_seed(0))  # not all alike: shares sum to one

    def found(received: bool) -> tuple[list[torch.Tensor], torch.Tensor]:
        shown = images.clone().requires_grad_()
        if received:
            shares = list(adapter.attention_received(shown, blocks).values())
        else:
            shares = [maps.mean(dim=(1, 2)) for maps in adapter.attention(shown, blocks).values()]
        total = torch.stack([(share * weight[: share.shape[1]]).sum() for share in shares]).sum()
        if not total.requires_grad:
            return shares, torch.zeros_like(images)
        return [share.detach() for share in shares], torch.autograd.grad(total, shown)[0]

    (shares, ours), (means, expected) = found(True), found(False)
    torch.testing.assert_close(shares, means, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()) + 1e-12)


class LiveMaps(TorchDispatchMode):
    """Counts how many tensors of a map's size are in memory at once, whoever holds them."""

    def __init__(self, batch: int, tokens: int) -> None:
        super().__init__()
        self.batch, self.tokens, self.most = batch, tokens, 0
        self.held: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for made in output if isinstance(output, tuple | list) else (output,):
            whole = isinstance(made, torch.Tensor) and made.ndim >= 3 and made.shape[-2:] == (self.tokens,) * 2
            if whole and made.numel() >= self.batch * self.tokens**2:
                reference = StorageWeakRef(made.untyped_storage())
                self.held[reference.cdata] = reference
        self.held = {key: reference for key, reference in self.held.items() if not reference.expired()}
        self.most = max(self.most, len(self.held))
        return output


def test_the_maps_of_all_blocks_are_never_in_memory_together() -> None:
    """Not in the pass, and not when gradients are asked for: one block's at a time, with what its softmax needs."""
    model = ipvit.load_model("demo:deit_micro").eval().requires_grad_(False)
    blocks = model.adapter.attention_blocks
    rows, columns = model.adapter.patch_grid(model.image_size)
    tokens = rows * columns + len(model.adapter.prefix_tokens)
    images = torch.rand(3, 3, *model.image_size)

    def most(received: bool) -> int:
        shown = images.clone().requires_grad_()
        with LiveMaps(3, tokens) as live:
            if received:
                shares = list(model.attention_received(shown, blocks).values())
            else:
                shares = [maps.mean(dim=(1, 2)) for maps in model.attention(shown, blocks).values()]
            torch.autograd.grad(torch.stack(shares)[..., -1].sum(), shown)
        return live.most

    assert len(blocks) > 4 and most(False) >= len(blocks)
    assert most(True) <= 4
