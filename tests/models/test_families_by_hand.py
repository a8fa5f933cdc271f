"""Families beyond the plain ViT: attention, feature drop and token removal against forward passes written by hand."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers.adapter_networks import close, compute_eagerly, hugging_face, make
from ipvit.errors import InputError
from ipvit.models.adapters import Adapter, find_adapter, logits_of
from ipvit.models.adapters.attention_calls import attention_calls
from ipvit.models.adapters.transformer import TransformerAdapter


def heads_of(x: Tensor, heads: int) -> list[Tensor]:
    return list(x.chunk(heads, dim=-1))


def mixed(maps: list[Tensor], values: Tensor) -> Tensor:
    """Each head's map applied to its share of the values, side by side."""
    parts = zip(maps, heads_of(values, len(maps)), strict=True)
    return torch.cat([one_map @ part for one_map, part in parts], dim=-1)


def softmax_maps(q: Tensor, k: Tensor, heads: int, bias: Tensor | None = None) -> list[Tensor]:
    """softmax(q k / sqrt d), head by head, with a bias (heads, T, T) before the softmax."""
    scores = [
        torch.einsum("bid,bjd->bij", one, other) / one.shape[-1] ** 0.5
        for one, other in zip(heads_of(q, heads), heads_of(k, heads), strict=True)
    ]
    return [(score if bias is None else score + bias[head]).softmax(dim=-1) for head, score in enumerate(scores)]


def rotated(x: Tensor, rotations: Tensor, halves: bool) -> Tensor:
    """Rotate pairs of one head's features: neighbours, or those half the width apart."""
    sine, cosine = rotations.chunk(2, dim=-1)
    turned = torch.empty_like(x)
    half = x.shape[-1] // 2
    for place in range(x.shape[-1]):
        if halves:
            turned[..., place] = -x[..., place + half] if place < half else x[..., place - half]
        else:
            turned[..., place] = -x[..., place + 1] if place % 2 == 0 else x[..., place - 1]
    return x * cosine + turned * sine


def turned_patches(x: Tensor, rotations: list[Tensor], prefix: int, halves: bool) -> Tensor:
    """Rotate the patches of every head and none of the prefix tokens."""
    parts = [
        torch.cat([part[:, :prefix], rotated(part[:, prefix:], turn, halves)], dim=1)
        for part, turn in zip(heads_of(x, len(rotations)), rotations, strict=True)
    ]
    return torch.cat(parts, dim=-1)


def rotary_by_hand(network: Any, x: Tensor, keep: Tensor | None = None, start: int = 0) -> tuple[Tensor, list[Tensor]]:
    """Blocks with rotary positions, last norm and head of timm's Eva and NaFlexVit; the maps of the blocks.

    ``keep`` says which patches of an image are there.
    """
    prefix = network.num_prefix_tokens
    shape = {} if hasattr(network.rope, "feat_shape") and network.rope.feat_shape is not None else {"shape": (4, 4)}
    every = network.rope.get_embed(**shape)
    all_maps = []
    for number, block in list(enumerate(network.blocks))[start:]:
        attention = block.attn
        one = every[number] if every.ndim == 4 else every
        turns = list(one) if one.ndim == 3 else [one] * attention.num_heads
        turns = [turn if keep is None else turn[keep] for turn in turns]
        inside = block.norm1(x)
        if attention.qkv is None:
            q, k, v = attention.q_proj(inside), attention.k_proj(inside), attention.v_proj(inside)
        else:
            q, k, v = F.linear(inside, attention.qkv.weight, attention.qkv.bias).chunk(3, dim=-1)
            if getattr(attention, "q_bias", None) is not None:
                q, v = q + attention.q_bias, v + attention.v_bias
        q, k = (turned_patches(part, turns, prefix, attention.rotate_half) for part in (q, k))
        maps = softmax_maps(q, k, attention.num_heads)
        all_maps.append(torch.stack(maps, dim=1))
        out = attention.proj(attention.norm(mixed(maps, v)))
        x = x + (out if block.gamma_1 is None else block.gamma_1 * out)
        out = block.mlp(block.norm2(x))
        x = x + (out if block.gamma_2 is None else block.gamma_2 * out)
    x = network.norm(x)
    pooled = x[:, 0] if network.global_pool == "token" else x[:, prefix:].mean(dim=1)
    return network.head(network.fc_norm(pooled)), all_maps


ROTARY = ["timm eva", "timm eva-02", "timm eva, rotations of each block", "timm naflexvit, class token, rotations"]
PLACES = torch.tensor([1, 2, 7, 11, 14])


def entering(adapter: Adapter, images: Tensor, block: int) -> Tensor:
    assert isinstance(adapter, TransformerAdapter)
    return adapter.run_to_block(images, block).block_input.args[0].clone()


def keeping(places: Tensor, count: int = 16, side: int = 4) -> Tensor:
    keep = torch.zeros(2, count, dtype=torch.bool)
    keep[:, places] = True
    return keep.reshape(2, side, -1)


@pytest.mark.parametrize("name", ROTARY)
def test_blocks_with_rotary_positions_are_read_dropped_and_thinned_out_as_by_hand(name: str) -> None:
    adapter, images = make(name)
    network, prefix = adapter.network, len(adapter.prefix_tokens)
    with torch.no_grad():
        tokens = entering(adapter, images, 0)
        logits, maps = rotary_by_hand(network, tokens)
        close(network(images), logits)
        for block, found in adapter.attention(images, range(3)).items():
            close(found, maps[block])
        half = entering(adapter, images, 1)
        half[:, prefix + PLACES] = 0
        dropped = adapter.run_from_block(adapter.drop(adapter.run_to_block(images, 1), ~keeping(PLACES)))
        close(dropped, rotary_by_hand(network, half, start=1)[0])
        left = torch.cat([tokens[:, :prefix], tokens[:, prefix + PLACES]], dim=1)
        close(adapter.token_removal(images, keeping(PLACES)), rotary_by_hand(network, left, PLACES)[0])


@pytest.mark.parametrize("name", ROTARY)
def test_each_image_may_lose_other_patches_with_their_rotations(name: str) -> None:
    adapter, images = make(name)
    keep = torch.cat([keeping(PLACES)[:1], keeping(15 - PLACES)[1:]])
    with torch.no_grad():
        together = adapter.token_removal(images, keep)
        for image in range(2):
            alone = adapter.token_removal(images[image : image + 1], keep[image : image + 1])
            close(together[image : image + 1], alone)


def test_naflexvit_without_rotations_is_a_plain_vit_with_its_own_positions() -> None:
    adapter, images = make("timm naflexvit")
    network: Any = adapter.network
    with torch.no_grad():
        cut = images.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
        patches = F.linear(cut, network.embeds.proj.weight, network.embeds.proj.bias)
        tokens = patches + network.embeds.pos_embed.flatten(1, 2)
        close(entering(adapter, images, 0), tokens)

        def rest(x: Tensor) -> Tensor:
            for block in network.blocks:
                q, k, v = block.attn.qkv(block.norm1(x)).chunk(3, dim=-1)
                maps.append(torch.stack(softmax_maps(q, k, 3), dim=1))
                x = x + block.ls1(block.attn.proj(mixed(list(maps[-1].unbind(1)), v)))
                x = x + block.ls2(block.mlp(block.norm2(x)))
            return network.head(network.fc_norm(x.mean(dim=1)))

        maps: list[Tensor] = []
        close(network(images), rest(tokens))
        for block, found in adapter.attention(images, range(3)).items():
            close(found, maps[block])
        close(adapter.token_removal(images, keeping(PLACES)), rest(tokens[:, PLACES]))


@pytest.mark.parametrize("name", ["timm beit", "timm beit, one bias for all"])
def test_beits_biases_between_places_go_with_the_patches(name: str) -> None:
    adapter, images = make(name)
    network: Any = adapter.network

    def rest(x: Tensor, kept: Tensor, start: int = 0) -> Tensor:
        for block in list(network.blocks)[start:]:
            owner = block.attn if network.rel_pos_bias is None else network.rel_pos_bias
            index = owner.relative_position_index.view(17, 17)
            bias = torch.empty(3, len(kept), len(kept))
            for row, column in itertools.product(range(len(kept)), repeat=2):
                bias[:, row, column] = owner.relative_position_bias_table[index[kept[row], kept[column]]]
            qkv = F.linear(block.norm1(x), block.attn.qkv.weight)
            q, k, v = qkv.chunk(3, dim=-1)
            maps.append(torch.stack(softmax_maps(q + block.attn.q_bias, k, 3, bias), dim=1))
            out = block.attn.proj(mixed(list(maps[-1].unbind(1)), v + block.attn.v_bias))
            x = x + (out if block.gamma_1 is None else block.gamma_1 * out)
            out = block.mlp(block.norm2(x))
            x = x + (out if block.gamma_2 is None else block.gamma_2 * out)
        return network.head(network.fc_norm(x[:, 1:].mean(dim=1)))

    with torch.no_grad():
        maps: list[Tensor] = []
        tokens, everything = entering(adapter, images, 0), torch.arange(17)
        close(network(images), rest(tokens, everything))
        for block, found in adapter.attention(images, range(3)).items():
            close(found, maps[block])
        left = torch.cat([torch.zeros(1, dtype=torch.long), PLACES + 1])
        close(adapter.token_removal(images, keeping(PLACES)), rest(tokens[:, left], left))


def class_map(attention: Any, x: Tensor) -> Tensor:
    """Where the class token, the first of the tokens, looks: (B, heads, 1, T)."""
    return torch.stack(softmax_maps(attention.q(x[:, :1]), attention.k(x), attention.num_heads), dim=1)


def cait_by_hand(network: Any, patches: Tensor, start: int, class_token: Tensor | None = None) -> Tensor:
    """CaiT from a block on: blocks of patches, then the class token looks at them again and again."""
    first = len(network.blocks)
    for block in list(network.blocks)[start:]:
        patches = block(patches)
    x = network.cls_token.expand(len(patches), -1, -1) if class_token is None else class_token
    for block in list(network.blocks_token_only)[max(start - first, 0) :]:
        tokens = block.norm1(torch.cat([x, patches], dim=1))
        maps = class_map(block.attn, tokens)
        out = block.attn.proj(mixed(list(maps.unbind(1)), block.attn.v(tokens)))
        x = x + block.gamma_1 * out
        x = x + block.gamma_2 * block.mlp(block.norm2(x))
    return network.head(network.norm(x)[:, 0])


def test_caits_class_token_looks_at_the_patches_in_its_last_blocks_only() -> None:
    adapter, images = make("timm cait")
    network: Any = adapter.network
    with torch.no_grad():
        patches = network.patch_embed(images) + network.pos_embed
        close(network(images), cait_by_hand(network, patches, 0))
        state = adapter.run_to_block(images, 4)
        tokens, class_token = state.block_input.args
        map_by_hand = class_map(
            network.blocks_token_only[1].attn, network.blocks_token_only[1].norm1(torch.cat([class_token, tokens], 1))
        )
        close(adapter.attention(images, [4])[4][:, :, :1], map_by_hand)
        close(adapter.prefix_attention(images, 4), map_by_hand)
        assert torch.equal(adapter.attention(images, [4])[4][0, 0, 1:], torch.eye(17)[1:])
        for block in range(5):
            state = adapter.run_to_block(images, block)
            less = state.block_input.args[0].clone()
            less[:, PLACES] = 0
            given = state.block_input.args[1] if block > 3 else None
            dropped = adapter.run_from_block(adapter.drop(state, ~keeping(PLACES)))
            close(dropped, cait_by_hand(network, less, block, given))
        close(adapter.token_removal(images, keeping(PLACES)), cait_by_hand(network, patches[:, PLACES], 0))
        with pytest.raises(InputError, match="no attention map in block 0, whose heads are mixed with each other"):
            adapter.attention(images, [0])


def test_xcits_class_token_looks_at_the_patches_in_its_last_blocks_only() -> None:
    adapter, images = make("timm xcit")
    network: Any = adapter.network

    def rest(x: Tensor, start: int) -> Tensor:
        for block in list(network.blocks)[start:]:
            x = block(x, 4, 4)
        if start <= len(network.blocks):
            x = torch.cat([network.cls_token.expand(len(x), -1, -1), x], dim=1)
        for block in list(network.cls_attn_blocks)[max(start - len(network.blocks), 0) :]:
            normed = block.norm1(x)
            maps.append(class_map(block.attn, normed))
            seen = block.attn.proj(mixed(list(maps[-1].unbind(1)), block.attn.v(normed)))
            x = x + block.gamma1 * torch.cat([seen, normed[:, 1:]], dim=1)
            x = block.norm2(x) if block.tokens_norm else torch.cat([block.norm2(x[:, :1]), x[:, 1:]], dim=1)
            x = x + torch.cat([block.gamma2 * block.mlp(x[:, :1]), x[:, 1:]], dim=1)
        return network.head(network.norm(x)[:, 0])

    with torch.no_grad():
        maps: list[Tensor] = []
        close(network(images), rest(entering(adapter, images, 0), 0))
        close(adapter.prefix_attention(images, 3), maps[0])
        close(adapter.prefix_attention(images, 4), maps[1])
        for block in range(3):
            less = entering(adapter, images, block)
            less[:, PLACES] = 0
            close(
                adapter.run_from_block(adapter.drop(adapter.run_to_block(images, block), ~keeping(PLACES))),
                rest(less, block),
            )
        with pytest.raises(InputError, match="whose attention is between channels; it has maps in blocks 3 to 4"):
            adapter.attention(images, [1])


def hieras_order(rows: int, columns: int, poolings: int) -> list[int]:
    """The places of a map, row by row, in the order of Hiera's tokens: those that are pooled together lie far apart."""

    def key(place: int) -> list[int]:
        row, column = divmod(place, columns)
        digits = []
        for _ in range(poolings):
            digits += [row % 2, column % 2]
            row, column = row // 2, column // 2
        return [*digits, row, column]

    return sorted(range(rows * columns), key=key)


def test_hieras_features_are_dropped_at_their_place_in_the_image() -> None:
    adapter, images = make("timm hiera")
    network: Any = adapter.network
    with torch.no_grad():
        x = network.unroll(network._pos_embed(network.patch_embed(images)))
        tokens = adapter.tokens(images, range(4), norm=False)
        for block in range(1, 4):
            x = network.blocks[block - 1](x)
            side = 16 // 2 ** (block - 1)
            order = hieras_order(side, side, 4 - block)
            assert torch.equal(tokens[block - 1].patches[:, order], x)
            keep = torch.rand(2, side, side) > 0.5
            less = x * keep.flatten(1)[:, order, None]
            for later in list(network.blocks)[block:]:
                less = later(less)
            close(adapter.run_from_block(adapter.drop(adapter.run_to_block(images, block), keep)), network.head(less))


def test_hiera_leaves_out_mask_units_as_in_its_pre_training() -> None:
    adapter, images = make("timm hiera")
    network: Any = adapter.network
    keep = torch.tensor([[[True, False], [True, True]], [[False, True], [True, True]]])
    order = hieras_order(16, 16, 3)
    with torch.no_grad():
        covered = images * keep[:, None].repeat_interleave(32, 2).repeat_interleave(32, 3)
        x = network._pos_embed(network.patch_embed(covered))[:, order]
        unit = [(place // 16 // 8, place % 16 // 8) for place in order]
        left = torch.stack(
            [
                torch.stack([x[image, at] for at, (row, column) in enumerate(unit) if keep[image, row, column]])
                for image in range(2)
            ]
        )
        for block in network.blocks:
            left = block(left)
        close(adapter.token_removal(images, keep), network.head(left))


EAGER = [
    "hf clip",
    "hf siglip",
    "hf beit",
    "hf beit, class token, one bias for all",
    "hf vit-msn",
    "hf i-jepa",
    "hf dinov2, registers",
]


@pytest.mark.parametrize("name", EAGER)
def test_hugging_faces_maps_and_tokens_are_its_own(name: str) -> None:
    adapter, images = make(name)
    network: Any = adapter.network
    with torch.no_grad():
        maps = adapter.attention(images, range(3))
        tokens = adapter.tokens(images, range(3), norm=False)
        compute_eagerly(network)
        own = network(images, output_attentions=True, output_hidden_states=True)
        close(adapter.attention(images, [1])[1], maps[1])
    prefix = len(adapter.prefix_tokens)
    for block in range(3):
        close(maps[block], own.attentions[block])
        close(tokens[block].patches, own.hidden_states[block + 1][:, prefix:])


@pytest.mark.parametrize(("name", "prefix"), [("hf clip", 1), ("hf siglip", 0)])
def test_clips_and_siglips_classifiers_are_continued_by_hand(name: str, prefix: int) -> None:
    adapter, images = make(name)
    network: Any = adapter.network

    def rest(x: Tensor, start: int = 0) -> Tensor:
        for layer in list(network.vision_model.encoder.layers)[start:]:
            inside = layer.layer_norm1(x)
            attention = layer.self_attn
            q, k, v = (part(inside) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
            x = x + attention.out_proj(mixed(softmax_maps(q, k, 3), v))
            x = x + layer.mlp(layer.layer_norm2(x))
        x = x if prefix else network.vision_model.post_layernorm(x)  # CLIP's classifier reads what is not normalised
        return network.classifier(x[:, prefix:].mean(dim=1))

    with torch.no_grad():
        tower = network.vision_model
        tokens = tower.embeddings(images)
        tokens = tower.pre_layrnorm(tokens) if prefix else tokens
        close(logits_of(network(images)), rest(tokens))
        half = entering(adapter, images, 2)
        half[:, prefix + PLACES] = 0
        close(adapter.run_from_block(adapter.drop(adapter.run_to_block(images, 2), ~keeping(PLACES))), rest(half, 2))
        left = torch.cat([tokens[:, :prefix], tokens[:, prefix + PLACES]], dim=1)
        close(adapter.token_removal(images, keeping(PLACES)), rest(left))


def test_hugging_faces_beit_loses_biases_with_its_patches() -> None:
    adapter, images = make("hf beit")
    network: Any = adapter.network
    left = torch.cat([torch.zeros(1, dtype=torch.long), PLACES + 1])
    with torch.no_grad():
        body = network.beit
        tokens = body.embeddings(images)
        x = (tokens[0] if isinstance(tokens, tuple) else tokens)[:, left]
        if not hasattr(body, "layers"):
            pytest.skip("this release of transformers has other parts; the contract holds its adapter to account")
        for layer in body.layers:
            inside, attention = layer.layernorm_before(x), layer.attention
            q, k, v = (part(inside) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
            bias = layer.relative_position_bias((4, 4))[0][:, left][:, :, left]
            out = attention.o_proj(mixed(softmax_maps(q, k, 3, bias), v))
            x = x + layer.lambda_1 * out
            x = x + layer.lambda_2 * layer.mlp(layer.layernorm_after(x))
        expected = network.classifier(body.pooler.layernorm(x[:, 1:].mean(dim=1)))
        close(adapter.token_removal(images, keeping(PLACES)), expected)


def dinov3() -> tuple[Adapter, Tensor]:
    torch.manual_seed(0)
    network = hugging_face("DINOv3ViTModel", "DINOv3ViTConfig", num_register_tokens=2).eval()
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return find_adapter(network), torch.randn(2, 3, 32, 32)


def test_hugging_faces_dinov3_is_read_and_thinned_out_without_a_classifier() -> None:
    adapter, images = dinov3()
    network: Any = adapter.network
    assert adapter.prefix_tokens == ("class", "register0", "register1") and "logits" not in adapter.capabilities
    with torch.no_grad():
        maps, tokens = adapter.attention(images, range(3)), adapter.tokens(images, [2], norm=True)[2]
        compute_eagerly(network)
        own = network(images, output_attentions=True)
        for block in range(3):
            close(maps[block], own.attentions[block])
        close(tokens.vector("class"), own.pooler_output)
        close(tokens.patches, own.last_hidden_state[:, 3:])
        x = entering(adapter, images, 0)[:, [0, 1, 2, *(PLACES + 3).tolist()]]
        sine_and_cosine = [part[PLACES] for part in network.rope_embeddings(images)]
        for layer in adapter.blocks:  # type: ignore[attr-defined]
            x = layer(x, position_embeddings=tuple(sine_and_cosine))
            x = x[0] if isinstance(x, tuple) else x
        close(adapter.token_removal(images, keeping(PLACES)), network.norm(x)[:, 0])


class TwoMaps(torch.nn.Module):
    """A block that attends twice."""

    def forward(self, x: Tensor) -> Tensor:
        split = x.unflatten(-1, (2, -1)).transpose(1, 2)
        for _ in range(2):
            split = F.scaled_dot_product_attention(split, split, split)
        return split.transpose(1, 2).flatten(2)


def test_a_block_with_two_maps_or_none_is_refused() -> None:
    blocks = [TwoMaps(), torch.nn.Identity()]
    network = torch.nn.Sequential(*blocks)
    with pytest.raises(InputError, match="block 0 of Sequential computes 2 attention maps"):
        attention_calls(network, torch.randn(1, 4, 6), blocks, [0])
    with pytest.raises(InputError, match="block 1 of Sequential computes no attention maps"):
        attention_calls(network, torch.randn(1, 4, 6), blocks, [1])


@pytest.mark.parametrize("queries", [None, 2])
def test_a_map_is_read_with_its_mask_scale_and_shared_keys(queries: int | None) -> None:
    class Masked(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            q, k = x.unflatten(-1, (4, -1)).transpose(1, 2), x[..., :6].unflatten(-1, (2, -1)).transpose(1, 2)
            return F.scaled_dot_product_attention(q, k, k, attn_mask=mask, scale=0.7, enable_gqa=True)

    torch.manual_seed(0)
    block, x = Masked(), torch.randn(1, 5, 12)
    mask = torch.rand(5, 5) > 0.3
    mask.fill_diagonal_(True)
    found = attention_calls(torch.nn.Sequential(block), x, [block], [0], queries)[0]
    for head in range(4):
        q, k = x[0, :, 3 * head : 3 * head + 3], x[0, :, 3 * (head // 2) : 3 * (head // 2) + 3]
        expected = torch.where(mask, 0.7 * q @ k.T, float("-inf")).softmax(dim=-1)
        close(found[0, head], expected[:queries])
