"""What an adapter reads: tokens, what the network's own head makes of them, attention."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ipvit.models.adapters import BlockTokens
from ipvit.testing.contract import close, require_refusal
from ipvit.testing.network import Network


def check_tokens(network: Network) -> None:
    """Tokens have their shapes, are those of their block and of their image, whatever else is asked for.

    Raises:
        ContractError: they are not.
    """
    adapter, images, blocks = network.adapter, network.images, list(range(network.adapter.n_blocks))
    for norm in (False, True):
        together = adapter.tokens(images, blocks, norm)
        network.require(
            list(together) == blocks, f"tokens of the blocks {blocks} returns those of {list(together)}, not one each"
        )
        for block, tokens in together.items():
            _check_shapes(network, block, tokens)
            alone = adapter.tokens(images, [block], norm)[block]
            network.require(
                close(alone.patches, tokens.patches) and close(alone.pooled, tokens.pooled),
                f"tokens of block {block} alone are others than among all blocks",
            )
        for block, tokens in adapter.tokens(images.flip(0), blocks, norm).items():
            whole = together[block]
            pairs = [(tokens.patches, whole.patches), (tokens.pooled, whole.pooled)]
            pairs += [(token, whole.prefix_tokens[name]) for name, token in tokens.prefix_tokens.items()]
            network.require(
                all(close(part.flip(0), all_of_them) for part, all_of_them in pairs),
                f"tokens of block {block} are others when the images are given in another order; row i is of image i",
            )
    for wrong in ([adapter.n_blocks], [-1], []):
        require_refusal(lambda wrong=wrong: adapter.tokens(images, wrong, True), f"{network.name}.tokens of {wrong}")


def _check_shapes(network: Network, block: int, tokens: BlockTokens) -> None:
    count, (rows, columns) = len(network.images), tokens.grid
    where = f"tokens of block {block}"
    network.require(
        tokens.patches.ndim == 3 and tokens.patches.shape[:2] == (count, rows * columns),
        f"{where} are {tuple(tokens.patches.shape)} for a grid of {rows} x {columns}; patches must be "
        f"({count}, {rows * columns}, D)",
    )
    width = tokens.patches.shape[2]
    names = tuple(tokens.prefix_tokens)
    network.require(
        names == network.adapter.prefix_tokens_of(block),
        f"{where} have the prefix tokens {names}; prefix_tokens says {network.adapter.prefix_tokens_of(block)}",
    )
    for name, token in tokens.prefix_tokens.items():
        network.require(
            token.shape == (count, width),
            f"{where}: {name!r} is {tuple(token.shape)}, not ({count}, {width})",
        )
    network.require(
        tokens.pooled.ndim == 2 and len(tokens.pooled) == count,
        f"{where}: pooled is {tuple(tokens.pooled.shape)}; it must be one vector for each of {count} images",
    )


def check_head(network: Network) -> None:
    """The network's own head gives the network's own answer on the vector that it reads.

    Raises:
        ContractError: it does not, or another vector is read without complaint.
    """
    adapter = network.adapter
    kinds = adapter.head_kinds
    tokens = adapter.tokens(network.images, [network.last], True)[network.last]
    if "logits" in adapter.capabilities and "token_heads" not in adapter.capabilities:
        for kind in kinds:
            network.require(
                network.same(adapter.classify(tokens.vector(kind), kind)),
                f"classify of the last block's {kind!r} gives other logits than the network; a kind of head_kinds must "
                "be what the network's own head reads",
            )
    for kind in {"pooled", "mean_patch", "no such token"} - set(kinds):
        require_refusal(
            lambda kind=kind: adapter.classify(tokens.pooled, kind), f"{network.name}.classify of a vector {kind!r}"
        )


def check_token_heads(network: Network) -> None:
    """Each token's own head, and their mean, which is the network's answer.

    Raises:
        ContractError: the logits are not those.
    """
    adapter = network.adapter
    found = adapter.logits_by_token(network.images)
    names = ["class", adapter.distillation_token, "mean"]
    network.require(list(found) == names, f"logits_by_token returns {list(found)}; it must return {names}")
    first, second, mean = found.values()
    network.require(network.same(mean), "logits_by_token: 'mean' is not the network's own answer")
    network.require(close((first + second) / 2, mean), "logits_by_token: 'mean' is not the mean of the two")
    network.require(not close(first, second), "logits_by_token gives the same logits for both tokens")
    if "tokens" in adapter.capabilities:
        tokens = adapter.tokens(network.images, [network.last], True)[network.last]
        for kind in names[:2]:
            network.require(
                close(adapter.classify(tokens.vector(kind), kind), found[kind]),
                f"classify of the last block's {kind!r} gives other logits than logits_by_token",
            )


def check_attention(network: Network) -> None:
    """Maps are distributions over all tokens, of their block, and agree with what is said of them.

    Raises:
        ContractError: they are not.
    """
    adapter, images = network.adapter, network.images
    blocks = list(adapter.attention_blocks)
    network.require(blocks, "claims 'attention' and has no attention_blocks")
    prefix = len(adapter.prefix_tokens)
    count = network.grid[0] * network.grid[1] + prefix
    maps = adapter.attention(images, blocks)
    network.require(list(maps) == blocks, f"attention of the blocks {blocks} returns those of {list(maps)}")
    for block, found in maps.items():
        _check_map(network, block, found, count)
        heads = adapter.n_heads(block)
        network.require(
            heads in (None, found.shape[1]), f"n_heads({block}) is {heads} and the map has {found.shape[1]} heads"
        )
        network.require(
            close(adapter.attention(images, [block])[block], found),
            f"attention of block {block} alone is another than among all blocks",
        )
        if prefix:
            network.require(
                close(adapter.prefix_attention(images, block), found[:, :, :prefix]),
                f"prefix_attention of block {block} is not the first {prefix} rows of its map",
            )
    for before, block in itertools.pairwise(blocks):
        flat = bool((maps[block] == maps[block].flatten()[0]).all())  # nobody looks anywhere: no sign of a mistake
        network.require(
            flat or not torch.equal(maps[block], maps[before]),
            f"attention of block {block} is that of block {before} to the last bit; each block has its own",
        )
    without = sorted(set(range(adapter.n_blocks)) - set(blocks))
    for wrong in ([adapter.n_blocks], [], without[:1]):
        require_refusal(lambda wrong=wrong: adapter.attention(images, wrong), f"{network.name}.attention of {wrong}")


def _check_map(network: Network, block: int, found: Tensor, count: int) -> None:
    where = f"attention of block {block}"
    shape = tuple(found.shape)
    network.require(
        len(shape) == 4 and shape[0] == len(network.images) and shape[2:] == (count, count),
        f"{where} is {shape}; it must be ({len(network.images)}, heads, {count}, {count}): a grid of "
        f"{network.grid[0]} x {network.grid[1]} and {len(network.adapter.prefix_tokens)} prefix tokens",
    )
    network.require((found >= 0).all(), f"{where} has values below 0; a map is what the softmax returns")
    sums = found.float().sum(dim=-1)
    rounding = 1e-4 if found.dtype == torch.float32 else 1e-2
    network.require(
        ((sums - 1).abs() <= rounding).all(),
        f"{where} has rows that sum to {sums.min():.4g} to {sums.max():.4g}; each must sum to one",
    )
