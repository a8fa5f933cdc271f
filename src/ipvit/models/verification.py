"""What a network can do is what it has shown: each capability that its adapter claims is tried once before it counts.

An adapter is written for a family, and a member may be built another way: with windows in another order, a head that
looks elsewhere too, a block that takes more than tokens. What is tried here is compared with the plain network, so that
such a member is refused before anything is measured, and not in the middle or with a wrong number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ipvit.errors import InputError, error_line
from ipvit.models.adapters.base import Adapter, BlockTokens, checked_attention, logits_of
from ipvit.models.dry_pass import as_in_a_run, probe_pictures

if TYPE_CHECKING:
    from ipvit.models.model import Model

_ROUNDING = 1e-3
"""How far two ways to the same logits may lie apart, as a share of the largest."""

_ALL_TRIED = 8
"""Of a network with more blocks, the first and last two and the one in the middle stand for the others."""


class NotShownError(Exception):
    """A capability does not do what it is for; the text says what happens instead."""


def why_not(model: Model, capability: str) -> str:
    """Try what a network's adapter claims; return what is wrong in a few words, or an empty string.

    Args:
        model: the network.
        capability: one of :data:`ipvit.models.capabilities.CAPABILITIES` that its adapter claims.
    """
    if capability == "logits":
        return "" if model.n_outputs else "it has no classifier"
    with as_in_a_run(model):
        images = model.normalize(probe_pictures(model))
        try:
            _TRIALS[capability](model.adapter, images)
        except NotShownError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - anything may come out of somebody's network or adapter
            return f"trying it raises {error_line(error, named=not isinstance(error, InputError))}"
    return ""


def own_heads(model: Model) -> tuple[str, ...]:
    """Return the kinds of vector of the last block that make the network's own logits when its head reads them.

    A head that reads something else as well (auxiliary heads on single patches) is not among them.
    """
    adapter = model.adapter
    if not adapter.head_kinds:
        return ()
    with as_in_a_run(model):
        images = model.normalize(probe_pictures(model))
        last = adapter.n_blocks - 1
        tokens = adapter.tokens(images, [last], True)[last]
        if "token_heads" in adapter.capabilities:  # each token has a head of its own, whose mean is the answer
            answers = adapter.logits_by_token(images)
        else:
            answers = dict.fromkeys(adapter.head_kinds, adapter.answer_in(adapter.network(images)))
        return tuple(
            kind
            for kind in adapter.head_kinds
            if _same(
                adapter.classify(tokens.vector(kind), kind),
                answers.get(adapter.distillation_token if kind == "distillation" else kind, answers.get("mean")),
            )
        )


def _try_tokens(adapter: Adapter, images: Tensor) -> None:
    last = adapter.n_blocks - 1
    for norm, blocks in ((True, range(last + 1)), (False, range(max(last, 1)))):
        found = adapter.tokens(images, blocks, norm)
        for block in blocks:
            _check_tokens(found[block], adapter, len(images), adapter.block_names[block])


def _check_tokens(tokens: BlockTokens, adapter: Adapter, batch: int, where: str) -> None:
    rows, columns = tokens.grid
    if tokens.patches.ndim != 3 or tokens.patches.shape[:2] != (batch, rows * columns):
        raise NotShownError(f"the tokens of {where} are {tuple(tokens.patches.shape)} for a grid of {rows}x{columns}")
    if set(adapter.prefix_tokens_of(adapter.block_names.index(where))) != set(tokens.prefix_tokens):
        raise NotShownError(f"{where} has the tokens {', '.join(tokens.prefix_tokens) or 'of patches alone'}")
    for vector in (*tokens.prefix_tokens.values(), tokens.pooled):
        if vector.ndim != 2 or len(vector) != batch:
            raise NotShownError(f"a token of {where} is {tuple(vector.shape)} instead of (B, D)")
    if not all(part.isfinite().all() for part in (tokens.patches, tokens.pooled)):
        raise NotShownError(f"the tokens of {where} are not finite")


def _try_attention(adapter: Adapter, images: Tensor) -> None:
    image = images[:1]  # maps are large
    rows, columns = adapter.patch_grid((image.shape[-2], image.shape[-1]))
    prefix = len(adapter.prefix_tokens)
    for block in _some(adapter.attention_blocks):
        (maps,) = checked_attention(adapter.attention(image, [block])).values()
        if maps.shape[-1] != prefix + rows * columns:
            raise NotShownError(
                f"a map of {adapter.block_names[block]} is over {maps.shape[-1]} tokens, where there are "
                f"{prefix} and {rows}x{columns} patches"
            )
    if prefix:
        checked_attention({0: adapter.prefix_attention(image, adapter.attention_blocks[-1])}, prefix)


def _try_feature_drop(adapter: Adapter, images: Tensor) -> None:
    """Lose nothing of the first picture, which must not change its logits, and half of the second, which must."""
    plain = adapter.answer_in(adapter.network(images))
    for block, state in adapter.run_to_blocks(images, _some(range(adapter.n_blocks))).items():
        where = adapter.block_names[block]
        rows, columns = state.grid
        keep = torch.ones(len(images), rows * columns, dtype=torch.bool, device=images.device)
        keep[1, ::2] = False
        found = adapter.run_from_block(adapter.drop(state, keep.unflatten(1, (rows, columns))))
        if not _same(found[:1], plain[:1]):
            raise NotShownError(f"going on from {where} with all features gives other logits than the network")
        if not found.isfinite().all():
            raise NotShownError(f"going on from {where} without half of the features gives values that are not finite")
        if torch.equal(found[1], plain[1]) and not torch.equal(plain[0], plain[1]):
            raise NotShownError(f"losing half of what enters {where} changes nothing")
        if not adapter.reads_before(block) and (block == 0 or not adapter.prefix_tokens_of(block - 1)):
            keep = torch.zeros_like(keep)
            bare = adapter.run_from_block(adapter.drop(state, keep.unflatten(1, (rows, columns))))
            if not _same(bare[:1], bare[1:]):
                raise NotShownError(f"two pictures are still told apart without any feature that enters {where}")


def _try_token_removal(adapter: Adapter, images: Tensor) -> None:
    rows, columns = adapter.patch_grid((images.shape[-2], images.shape[-1]))
    keep = torch.ones(len(images), rows, columns, dtype=torch.bool, device=images.device)
    if not _same(adapter.token_removal(images, keep), adapter.answer_in(adapter.network(images))):
        raise NotShownError("keeping every patch gives other logits than the network")
    keep.flatten(1)[:, ::2] = rows * columns == 1
    if not adapter.token_removal(images, keep).isfinite().all():
        raise NotShownError("the logits without half of the patches are not finite")


def _try_token_heads(adapter: Adapter, images: Tensor) -> None:
    if not _same(adapter.logits_by_token(images)["mean"], adapter.answer_in(adapter.network(images))):
        raise NotShownError("the mean of the tokens' logits is not the network's answer")


def _try_gradients(adapter: Adapter, images: Tensor) -> None:
    with torch.enable_grad():
        image = images[:1].clone().requires_grad_()
        output = adapter.network(image)
        tensor = output if isinstance(output, Tensor) else _first_tensor(output)
        if tensor is None or not tensor.requires_grad:
            raise NotShownError("what it returns does not depend on the pixels in a way that has a gradient")
        (gradient,) = torch.autograd.grad(tensor.float().square().sum(), image)
    if not gradient.isfinite().all():
        raise NotShownError("the gradient with respect to the pixels is not finite")


def _first_tensor(output: object) -> Tensor | None:
    try:
        return logits_of(output)
    except InputError:
        return next((part for part in vars(output).values() if isinstance(part, Tensor)), None)


_TRIALS: dict[str, Callable[[Adapter, Tensor], None]] = {
    "tokens": _try_tokens,
    "attention": _try_attention,
    "feature_drop": _try_feature_drop,
    "token_removal": _try_token_removal,
    "token_heads": _try_token_heads,
    "gradients": _try_gradients,
}


def _some(blocks: Sequence[int]) -> list[int]:
    count = len(blocks)
    if count <= _ALL_TRIED:
        return list(blocks)
    return [blocks[place] for place in sorted({0, 1, count // 2, count - 2, count - 1})]


def _same(found: Tensor, right: Tensor | None) -> bool:
    if right is None or found.shape != right.shape:
        return False
    apart, scale = (found - right).abs().max(), right.abs().max().clamp(min=1e-12)
    return bool(apart <= _ROUNDING * scale)  # not for NaN
