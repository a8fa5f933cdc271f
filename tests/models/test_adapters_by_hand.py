"""What adapters read and change, against forward passes written out by hand from the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import to_tensor

import ipvit
from helpers.adapter_networks import VIT, close, compute_eagerly, hugging_face, make, vit
from ipvit.models.adapters import find_adapter
from ipvit.models.adapters.transformer import TransformerAdapter


def normed(x: Tensor, norm: Any) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def softmax_of(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """softmax(q k / sqrt d), head by head."""
    size = q.shape[-1] // heads
    maps = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        maps.append((torch.einsum("bid,bjd->bij", q[..., part], k[..., part]) / size**0.5).softmax(dim=-1))
    return torch.stack(maps, dim=1)


def by_hand(network: VisionTransformer, x: Tensor, start: int = 0) -> Tensor:
    """The blocks from ``start`` on, the last norm and the head of a plain timm ViT, for tokens (B, T, D)."""
    for block in list(network.blocks)[start:]:
        attention = block.attn
        q, k, v = F.linear(normed(x, block.norm1), attention.qkv.weight, attention.qkv.bias).chunk(3, dim=-1)
        maps = softmax_of(q, k, attention.num_heads)
        mixed = torch.cat(
            [m @ part for m, part in zip(maps.unbind(1), v.chunk(attention.num_heads, -1), strict=True)], -1
        )
        x = x + F.linear(mixed, attention.proj.weight, attention.proj.bias)
        hidden = F.gelu(F.linear(normed(x, block.norm2), block.mlp.fc1.weight, block.mlp.fc1.bias))
        x = x + F.linear(hidden, block.mlp.fc2.weight, block.mlp.fc2.bias)
    if network.global_pool == "avg":
        pooled = normed(x[:, network.num_prefix_tokens :].mean(dim=1), network.fc_norm)
    else:
        pooled = normed(x[:, 0], network.norm)
    return F.linear(pooled, network.head.weight, network.head.bias)


def embedded(network: VisionTransformer, images: Tensor) -> Tensor:
    """Patches, prefix tokens and positions of a plain timm ViT: what enters block 0."""
    weight = network.patch_embed.proj.weight
    tile = weight.shape[-1]
    cut = images.unfold(2, tile, tile).unfold(3, tile, tile).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    patches = cut @ weight.flatten(1).T + network.patch_embed.proj.bias
    prefix_tokens = [
        token.expand(len(images), -1, -1) for token in (network.cls_token, network.reg_token) if token is not None
    ]
    if network.no_embed_class:
        return torch.cat([*prefix_tokens, patches + network.pos_embed], dim=1)
    return torch.cat([*prefix_tokens, patches], dim=1) + network.pos_embed


PLAIN = ["timm vit", "timm vit, registers", "timm vit, no class token", "timm vit, average pooling"]


@pytest.mark.parametrize("name", PLAIN)
def test_dropping_features_of_a_transformer_zeroes_whole_patch_tokens(name: str) -> None:
    adapter, images = make(name)
    network, prefix_tokens = adapter.network, len(adapter.prefix_tokens)
    keep = torch.rand(2, 4, 4) > 0.5
    with torch.no_grad():
        close(by_hand(network, embedded(network, images)), network(images))
        for block in range(3):
            tokens = embedded(network, images)
            for earlier in list(network.blocks)[:block]:
                tokens = earlier(tokens)
            for image in range(2):
                for place in range(16):
                    if not keep[image, place // 4, place % 4]:
                        tokens[image, prefix_tokens + place] = 0
            dropped = adapter.run_from_block(adapter.drop(adapter.run_to_block(images, block), keep), block)
            close(dropped, by_hand(network, tokens, block))


@pytest.mark.parametrize("name", PLAIN)
def test_a_removed_patch_never_enters_the_blocks_and_the_others_keep_their_positions(name: str) -> None:
    adapter, images = make(name)
    network, prefix_tokens = adapter.network, len(adapter.prefix_tokens)
    keep = torch.zeros(2, 16, dtype=torch.bool)
    keep[0, [1, 2, 7, 11, 15]] = True
    keep[1, [0, 4, 5, 6, 13]] = True
    with torch.no_grad():
        tokens = embedded(network, images)
        fewer = torch.stack(
            [tokens[i, [*range(prefix_tokens), *(keep[i].nonzero()[:, 0] + prefix_tokens).tolist()]] for i in range(2)]
        )
        assert fewer.shape[1] == prefix_tokens + 5
        close(adapter.token_removal(images, keep.reshape(2, 4, 4)), by_hand(network, fewer))


def entering(adapter: TransformerAdapter, images: Tensor, block: int) -> Tensor:
    return adapter.run_to_block(images, block).block_input.args[adapter.token_argument]


@pytest.mark.parametrize("name", ["timm vit", "timm vit, distilled", "timm vit, registers", "t2t"])
def test_attention_is_the_softmax_of_queries_and_keys(name: str) -> None:
    adapter, images = make(name)
    assert isinstance(adapter, TransformerAdapter)
    with torch.no_grad():
        maps = adapter.attention(images, range(3))
        for number, block in enumerate(adapter.network.blocks):
            x = normed(entering(adapter, images, number), block.norm1)
            q, k, _ = F.linear(x, block.attn.qkv.weight, block.attn.qkv.bias).chunk(3, dim=-1)
            close(maps[number], softmax_of(q, k, 3))


def test_tnts_attention_is_that_of_its_outer_transformer() -> None:
    adapter, images = make("timm tnt")
    assert isinstance(adapter, TransformerAdapter)
    inputs = []
    block = adapter.network.blocks[1]
    handle = block.attn_out.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        adapter.network(images)
        handle.remove()
        q, k = F.linear(inputs[0], block.attn_out.qk.weight, block.attn_out.qk.bias).chunk(2, dim=-1)
        close(adapter.attention(images, [1])[1], softmax_of(q, k, 3))


def test_torchvisions_attention_is_the_softmax_of_queries_and_keys() -> None:
    adapter, images = make("torchvision vit")
    assert isinstance(adapter, TransformerAdapter)
    with torch.no_grad():
        for number, block in enumerate(adapter.blocks):
            x = normed(entering(adapter, images, number), block.ln_1)
            inside: Any = block.self_attention
            q, k, _ = F.linear(x, inside.in_proj_weight, inside.in_proj_bias).chunk(3, dim=-1)
            close(adapter.attention(images, [number])[number], softmax_of(q, k, 3))


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("ViTForImageClassification", "ViTConfig"),
        ("DeiTForImageClassificationWithTeacher", "DeiTConfig"),
        ("Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig"),
    ],
)
def test_hugging_faces_attention_and_tokens_are_its_own(kind: str, config: str) -> None:
    torch.manual_seed(0)
    network = hugging_face(kind, config).eval()
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    images = torch.randn(2, 3, 32, 32)
    adapter = find_adapter(network)
    with torch.no_grad():
        maps = adapter.attention(images, range(3))
        tokens = adapter.tokens(images, range(3), norm=False)
        compute_eagerly(network)
        own = network(images, output_attentions=True, output_hidden_states=True)
    for block in range(3):
        close(maps[block], own.attentions[block])
        prefix_tokens = torch.stack(list(tokens[block].prefix_tokens.values()), dim=1)
        close(torch.cat([prefix_tokens, tokens[block].patches], dim=1), own.hidden_states[block + 1])


def test_dropping_a_patch_of_tnt_takes_its_pixels_along() -> None:
    adapter, images = make("timm tnt")
    network = adapter.network
    keep = torch.rand(2, 16) > 0.5
    with torch.no_grad():
        pixels, tokens = (arg.clone() for arg in adapter.run_to_block(images, 1).block_input.args)
        pixels.reshape(2, 16, *pixels.shape[1:])[~keep] = 0
        tokens[:, 1:][~keep] = 0
        for block in list(network.blocks)[1:]:
            pixels, tokens = block(pixels, tokens)
        expected = network.head(network.norm(tokens)[:, 0])
        close(adapter.run_from_block(adapter.drop(adapter.run_to_block(images, 1), keep)), expected)


def test_removing_a_patch_of_tnt_takes_its_pixels_along() -> None:
    adapter, images = make("timm tnt")
    network = adapter.network
    index = torch.tensor([0, 3, 9, 14])
    keep = torch.zeros(2, 16, dtype=torch.bool)
    keep[:, index] = True
    with torch.no_grad():
        pixels, tokens = adapter.run_to_block(images, 0).block_input.args
        pixels = pixels.reshape(2, 16, *pixels.shape[1:])[:, index].flatten(0, 1)
        tokens = torch.cat([tokens[:, :1], tokens[:, 1:][:, index]], dim=1)
        for block in network.blocks:
            pixels, tokens = block(pixels, tokens)
        close(adapter.token_removal(images, keep.reshape(2, 4, 4)), network.head(network.norm(tokens)[:, 0]))


@pytest.mark.parametrize("name", ["timm resnet", "timm resnet, deep stem", "torchvision resnet"])
def test_dropping_features_of_a_resnet_zeroes_positions_of_a_layers_input(name: str) -> None:
    adapter, images = make(name)
    network = adapter.network
    stem = [network.conv1, network.bn1, getattr(network, "act1", None) or network.relu, network.maxpool]
    layers = [network.layer1, network.layer2, network.layer3, network.layer4]
    with torch.no_grad():
        for block in range(5):
            x = nn.Sequential(*stem, *layers[:block])(images)
            keep = torch.rand(2, x.shape[2], x.shape[3]) > 0.5
            x = nn.Sequential(*layers[block:])(x * keep[:, None])
            expected = network.fc(x.mean(dim=(2, 3)))
            close(adapter.run_from_block(adapter.drop(adapter.run_to_block(images, block), keep), block), expected)


def test_norm_puts_tokens_of_every_block_through_the_last_norm() -> None:
    adapter, images = make("timm vit")
    network = adapter.network
    with torch.no_grad():
        raw, tokens = (adapter.tokens(images, range(3), norm=norm) for norm in (False, True))
        for block in range(3):
            close(tokens[block].patches, normed(raw[block].patches, network.norm))
            close(tokens[block].vector("class"), normed(raw[block].vector("class"), network.norm))
            expected = network.head(normed(raw[block].vector("class"), network.norm))
            close(adapter.classify(tokens[block].vector("class")), expected)


def test_positions_of_a_checkpoint_are_resampled_as_timm_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    name, sizes = "vit_tiny_patch16_224", {"embed_dim": 12, "depth": 1, "num_heads": 3, "num_classes": 4}
    small = timm.create_model(name, **sizes)
    save_file(small.state_dict(), tmp_path / "small.safetensors")
    options = "&".join(f"{key}={value}" for key, value in sizes.items())
    model = ipvit.load_model(f"{name}?{options}&img_size=320@{tmp_path / 'small.safetensors'}")
    large = model.backbone
    assert isinstance(large, VisionTransformer) and model.image_size == (320, 320)
    expected = resample_abs_pos_embed(small.pos_embed, new_size=[20, 20], old_size=[14, 14], num_prefix_tokens=1)
    close(large.pos_embed, expected)
    assert torch.equal(large.blocks[0].attn.qkv.weight, small.blocks[0].attn.qkv.weight)
    image = torch.rand(1, 3, 320, 320)
    with torch.no_grad():
        tokens = model.tokens(image, [0])[0]
        assert tokens.grid == (20, 20) and tokens.patches.shape == (1, 400, 12)
        assert model.attention(image, [0])[0].shape == (1, 3, 401, 401)


def test_a_network_for_any_size_resamples_its_positions_in_every_reading() -> None:
    torch.manual_seed(0)
    flexible = vit(dynamic_img_size=True).eval()
    fixed = VisionTransformer(**VIT | {"img_size": (48, 64)}, num_classes=5).eval()
    state = flexible.state_dict()
    positions = resample_abs_pos_embed(flexible.pos_embed, new_size=[6, 8], old_size=[4, 4], num_prefix_tokens=1)
    fixed.load_state_dict(state | {"pos_embed": positions})
    images = torch.randn(2, 3, 48, 64)
    one, other = find_adapter(flexible), find_adapter(fixed)
    keep = torch.rand(1, 6, 8) > 0.5
    with torch.no_grad():
        close(flexible(images), fixed(images))
        close(one.tokens(images, [1], norm=True)[1].patches, other.tokens(images, [1], norm=True)[1].patches)
        close(
            one.run_from_block(one.drop(one.run_to_block(images, 1), keep)),
            other.run_from_block(other.drop(other.run_to_block(images, 1), keep)),
        )
        keep = keep.expand(2, -1, -1)
        close(one.token_removal(images, keep), other.token_removal(images, keep))


@pytest.mark.slow
def test_saliency_attention_of_a_real_network_finds_the_objects(real: Path) -> None:
    weights = real / "dinov2_vits14_saliency.safetensors"
    if not weights.is_file():
        pytest.skip(f"no {weights.name} in the folder that IPVIT_REAL names")
    model = ipvit.load_model(f"vit_small_patch14_dinov2?img_size=224&num_classes=0@{weights}")
    names = sorted(path.stem for path in (real / "masked" / "masks").iterdir())[:16]

    def picture(folder: str, name: str, mode: str) -> Tensor:
        (path,) = (real / "masked" / folder).glob(f"{name}.*")
        return to_tensor(Image.open(path).convert(mode).resize((224, 224)))[None]

    images = torch.cat([picture("images", name, "RGB") for name in names])
    masks = F.adaptive_avg_pool2d(torch.cat([picture("masks", name, "L") for name in names]), 16) > 0.5
    with torch.no_grad():
        attention = model.attention(images, [11])[11]
    assert attention.shape == (16, 6, 257, 257)
    maps = attention[:, :, 0, 1:].unflatten(-1, (16, 16))
    chosen = maps > maps.mean(dim=(2, 3), keepdim=True)
    overlap = (chosen & masks).sum(dim=(2, 3)) / (chosen | masks).sum(dim=(2, 3))
    everything = masks.float().mean(dim=(1, 2, 3))
    assert overlap.amax(dim=1).mean() > 2 * everything.mean()
    assert overlap[:, 3].mean() < overlap.amax(dim=1).mean() / 2  # this head looks at the background
