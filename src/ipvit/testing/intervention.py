"""What an adapter changes: features that are dropped before a block, patches that never enter."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ipvit.errors import InputError
from ipvit.models.adapters import FeatureState
from ipvit.testing.contract import close, require_refusal
from ipvit.testing.network import Network


def check_feature_drop(network: Network) -> None:
    """Stopping before a block and going on changes nothing, dropping nothing neither, and dropping something does.

    Raises:
        ContractError: it is otherwise.
    """
    adapter, images = network.adapter, network.images
    blocks = list(range(adapter.n_blocks))
    states = adapter.run_to_blocks(images, blocks)
    network.require(list(states) == blocks, f"run_to_blocks of {blocks} returns states of {list(states)}")
    for block in blocks:
        state = adapter.run_to_block(images, block)
        network.require(state.block == block, f"run_to_block({block}) returns the state of block {state.block}")
        _check_resuming(network, state, states[block])
        _check_dropping(network, state)
    for wrong in (adapter.n_blocks, -1):
        doing = f"{network.name}.run_to_block({wrong})"
        require_refusal(lambda wrong=wrong: adapter.run_to_block(images, wrong), doing)
    _check_nothing_left(network, adapter.run_to_block(images, 0))


def _check_resuming(network: Network, state: FeatureState, among_others: FeatureState) -> None:
    adapter, where = network.adapter, f"block {state.block}"
    network.require(
        network.same(adapter.run_from_block(state, state.block)),
        f"run_from_block gives other logits than the plain network, from {where} on",
    )
    network.require(
        network.same(adapter.run_from_block(state)),
        f"run_from_block uses up the state of {where}: a second time it gives other logits",
    )
    others = dataclasses.replace(state, images=torch.randn_like(network.images))
    network.require(
        network.same(adapter.run_from_block(others)),
        f"run_from_block still looks at the images from {where} on; the state must hold all that the rest needs",
    )
    network.require(
        among_others.block == state.block and network.same(adapter.run_from_block(among_others)),
        f"run_to_blocks gives another state of {where} than when it is asked alone",
    )
    if adapter.n_blocks > 1:
        other = (state.block + 1) % adapter.n_blocks
        require_refusal(
            lambda: adapter.run_from_block(state, other),
            f"{network.name}.run_from_block of a state of {where} at block {other}",
        )
    _check_resumed(network, state)


def _check_resumed(network: Network, state: FeatureState) -> None:
    """Tokens can be read behind a block where the adapter lets a pass go on from there; it may refuse."""
    adapter = network.adapter
    if "tokens" not in adapter.capabilities:
        return
    try:
        with adapter.resumed(dataclasses.replace(state, images=torch.randn_like(network.images))) as given:
            found = adapter.tokens(given, [network.last], True)[network.last]
    except InputError:
        return
    plain = adapter.tokens(network.images, [network.last], True)[network.last]
    network.require(
        close(found.patches, plain.patches) and close(found.pooled, plain.pooled),
        f"resumed before block {state.block}, the last block has other tokens than in a plain pass",
    )


def _check_dropping(network: Network, state: FeatureState) -> None:
    adapter, block, (rows, columns) = network.adapter, state.block, state.grid
    count = len(network.images)
    everything = torch.ones(count, rows, columns, dtype=torch.bool)
    network.require(
        network.same(adapter.run_from_block(adapter.drop(state, everything))),
        f"drop before block {block} changes the logits although every place is kept",
    )
    half = torch.arange(rows * columns).expand(count, -1) % 2 == 1
    fewer = adapter.run_from_block(adapter.drop(state, half))
    network.require(
        network.same(adapter.run_from_block(state)), f"drop before block {block} changes the state it is given"
    )
    network.require(
        close(adapter.run_from_block(adapter.drop(state, half[:1].reshape(1, rows, columns))), fewer),
        f"drop before block {block} takes a mask (1, rows, columns) for another than (B, rows * columns)",
    )
    one = half.clone()
    one[1] = True  # of the second image nothing is lost
    mixed = adapter.run_from_block(adapter.drop(state, one))
    network.require(
        close(mixed[0], fewer[0]) and close(mixed[1], network.plain[1]),
        f"drop before block {block} mixes the masks of the images up; row i of the mask is of image i",
    )
    reads_prefix_only = block == network.last and adapter.prefix_tokens and rows * columns > 1
    # a head may read nothing behind this block: then it is enough that something else enters it
    unread = block > 0 and not _same_inputs(adapter.drop(state, half), state)
    network.require(
        reads_prefix_only or unread or not network.same(fewer),
        f"drop before block {block} of every other place changes nothing; the features must become zero",
    )
    for wrong in (torch.ones(count, rows, columns + 1, dtype=torch.bool), torch.ones(count, rows, columns)):
        shape = f"{tuple(wrong.shape)} {wrong.dtype}"
        require_refusal(lambda wrong=wrong: adapter.drop(state, wrong), f"{network.name}.drop with a mask {shape}")


def _same_inputs(one: FeatureState, other: FeatureState) -> bool:
    """Tell whether the same tensors enter a block."""
    pairs = zip(one.block_input.args, other.block_input.args, strict=True)
    return all(torch.equal(a, b) for a, b in pairs if isinstance(a, Tensor))


def _check_nothing_left(network: Network, state: FeatureState) -> None:
    nothing = torch.zeros(1, *state.grid, dtype=torch.bool)
    bare = network.adapter.run_from_block(network.adapter.drop(state, nothing))
    network.require(
        close(bare[0], bare[1]),
        "drop of all places before the first block still tells two images apart; all features of a place must go",
    )


def check_token_removal(network: Network) -> None:
    """Without a patch its pixels cannot matter; with all of them nothing changes.

    Raises:
        ContractError: it is otherwise.
    """
    adapter, images, (rows, columns) = network.adapter, network.images, network.grid
    network.require(
        network.same(adapter.token_removal(images, network.everything())),
        "token_removal changes the logits although every patch is kept",
    )
    half = (torch.arange(rows * columns).reshape(1, rows, columns) % 2 == 1).expand(len(images), -1, -1)
    fewer = adapter.token_removal(images, half)
    network.require(not network.same(fewer), "token_removal of every other patch changes nothing")
    covered = torch.where(_pixels(half, images), images, images.new_tensor(7.0))
    network.require(
        close(adapter.token_removal(covered, half), fewer),
        f"token_removal still sees the pixels of patches that are removed; is the grid {rows} x {columns}, row by row?",
    )
    own = half.clone()
    own[1] = ~half[1]
    if own[0].sum() == own[1].sum():
        mixed = adapter.token_removal(images, own)
        network.require(
            close(mixed[0], fewer[0]) and not close(mixed[1], fewer[1]),
            "token_removal mixes the masks of the images up; row i of the mask is of image i",
        )
    uneven = network.everything()
    uneven[0, 0, 0] = False
    require_refusal(
        lambda: adapter.token_removal(images, uneven),
        f"{network.name}.token_removal of another number of patches in each image",
    )


def _pixels(keep: Tensor, images: Tensor) -> Tensor:
    """Return which pixels belong to patches that are kept, ``(B, 1, H, W)``."""
    tall, wide = images.shape[-2] // keep.shape[1], images.shape[-1] // keep.shape[2]
    mask = keep.repeat_interleave(tall, dim=1).repeat_interleave(wide, dim=2)
    return mask[:, None].to(images.device)
