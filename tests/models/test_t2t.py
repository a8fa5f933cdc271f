"""T2T-ViT: the published checkpoints' names and shapes, the performer's mathematics, fixed numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ipvit.models.sources.building import fitted
from ipvit.models.zoo.t2t import (
    VARIANTS,
    T2TViT,
    TokenPerformer,
    TokenTransformer,
    performer_attention,
    sinusoid_positions,
)

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 2.0, "num_classes": 5}


def small(**options: object) -> T2TViT:
    """A small network whose weights are a formula, so that its numbers need no random generator."""
    network = T2TViT(**{"img_size": 32, **SMALL, **options}).eval()
    with torch.no_grad():
        for place, (name, value) in enumerate(network.named_parameters()):
            if name != "pos_embed":
                wave = torch.sin(torch.arange(value.numel(), dtype=torch.float64) * (0.7 + 0.1 * place))
                scale = 1.0 if name.endswith(".w") else 0.15
                value.copy_((scale * wave + ("norm" in name and "weight" in name)).reshape(value.shape))
    return network


def pattern(height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.sin(torch.arange(3 * height * width, dtype=torch.float64) * 0.05).reshape(1, 3, height, width).float()


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("t2t_vit_7", 4.3),
        ("t2t_vit_14", 21.5),
        ("t2t_vit_24", 64.1),
        ("t2t_vit_t_14", 21.5),
        ("t2t_vit_t_19", 39.2),
        ("t2t_vit_t_24", 64.1),
    ],
)
def test_a_variant_has_as_many_parameters_as_its_authors_print(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = T2TViT(**VARIANTS[name])
    assert round(sum(value.numel() for value in network.parameters()) / 1e6, 1) == millions


def test_names_and_shapes_are_those_of_the_published_checkpoints() -> None:
    shapes = {name: tuple(value.shape) for name, value in T2TViT(**VARIANTS["t2t_vit_7"]).state_dict().items()}
    expected = {"cls_token": (1, 1, 256), "pos_embed": (1, 197, 256), "norm.weight": (256,), "norm.bias": (256,)}
    expected |= {"head.weight": (1000, 256), "head.bias": (1000,)}
    expected |= {"tokens_to_token.project.weight": (256, 576), "tokens_to_token.project.bias": (256,)}
    for place, width in (("attention1", 147), ("attention2", 576)):
        base = f"tokens_to_token.{place}."
        expected |= {f"{base}w": (32, 64), f"{base}kqv.weight": (192, width), f"{base}kqv.bias": (192,)}
        expected |= {f"{base}norm1.{part}": (width,) for part in ("weight", "bias")}
        expected |= {f"{base}norm2.{part}": (64,) for part in ("weight", "bias")}
        for layer in ("proj", "mlp.0", "mlp.2"):
            expected |= {f"{base}{layer}.weight": (64, 64), f"{base}{layer}.bias": (64,)}
    for block in range(7):
        base = f"blocks.{block}."
        expected |= {f"{base}{norm}.{part}": (256,) for norm in ("norm1", "norm2") for part in ("weight", "bias")}
        expected |= {f"{base}attn.qkv.weight": (768, 256), f"{base}attn.proj.weight": (256, 256)}
        expected |= {
            f"{base}attn.proj.bias": (256,),
            f"{base}mlp.fc1.weight": (512, 256),
            f"{base}mlp.fc1.bias": (512,),
        }
        expected |= {f"{base}mlp.fc2.weight": (256, 512), f"{base}mlp.fc2.bias": (256,)}
    assert shapes == expected


def test_the_transformer_variant_has_its_own_token_layers() -> None:
    state = T2TViT(**VARIANTS["t2t_vit_t_14"]).tokens_to_token.attention2.state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items() if "norm" not in name}
    assert shapes == {
        "attn.qkv.weight": (192, 576),
        "attn.proj.weight": (64, 64),
        "attn.proj.bias": (64,),
        "mlp.fc1.weight": (64, 64),
        "mlp.fc1.bias": (64,),
        "mlp.fc2.weight": (64, 64),
        "mlp.fc2.bias": (64,),
    }


def test_random_features_and_positions_are_stored_but_not_trained() -> None:
    fixed = {name for name, value in T2TViT(**SMALL).named_parameters() if not value.requires_grad}
    assert fixed == {"pos_embed", "tokens_to_token.attention1.w", "tokens_to_token.attention2.w"}


def test_the_directions_are_orthogonal_and_as_long_as_the_root_of_their_number() -> None:
    directions = TokenPerformer(12).w
    torch.testing.assert_close(directions @ directions.T, 32 * torch.eye(32), atol=1e-4, rtol=0)


def test_performer_attention_equals_its_formula_written_as_loops() -> None:
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(5, 4)) for _ in range(3))
    directions = rng.normal(size=(6, 4))

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        features = [math.exp(w @ x - x @ x / 2) * math.exp(w @ y - y @ y / 2) / len(directions) for w in directions]
        return sum(features)

    expected = np.stack(
        [sum(kernel(q, k) * v for k, v in zip(key, value, strict=True)) / sum(kernel(q, k) for k in key) for q in query]
    )
    tensors = [torch.tensor(x, dtype=torch.float32)[None] for x in (query, key, value)]
    found = performer_attention(*tensors, torch.tensor(directions, dtype=torch.float32))[0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_performer_attention_approaches_softmax_attention_with_more_features() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (0.25 * torch.randn(1, 20, 8, generator=generator) for _ in range(3))
    exact = torch.softmax(query @ key.transpose(1, 2), dim=-1) @ value
    errors = [
        (performer_attention(query, key, value, torch.randn(count, 8, generator=generator)) - exact).abs().max().item()
        for count in (32, 2048, 131072)
    ]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.003


def test_token_transformer_divides_scores_by_the_incoming_width_and_adds_to_the_value() -> None:
    torch.manual_seed(0)
    layer = TokenTransformer(12, 4).eval()
    x = torch.randn(2, 7, 12)
    normed = F.layer_norm(x, (12,), layer.norm1.weight, layer.norm1.bias, 1e-5)
    query, key, value = (normed @ weight.T for weight in layer.attn.qkv.weight.split(4))
    attention = torch.softmax(query @ key.transpose(1, 2) / math.sqrt(12), dim=-1)
    middle = value + (attention @ value) @ layer.attn.proj.weight.T + layer.attn.proj.bias
    normed = F.layer_norm(middle, (4,), layer.norm2.weight, layer.norm2.bias, 1e-5)
    hidden = F.gelu(normed @ layer.mlp.fc1.weight.T + layer.mlp.fc1.bias)
    expected = middle + hidden @ layer.mlp.fc2.weight.T + layer.mlp.fc2.bias
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_positions_are_sines_and_cosines() -> None:
    table = sinusoid_positions(5, 6)[0]
    expected = [
        [(math.cos if c % 2 else math.sin)(p / 10000 ** (2 * (c // 2) / 6)) for c in range(6)] for p in range(5)
    ]
    np.testing.assert_allclose(table.numpy(), np.array(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("performer", [-0.10288, -0.27729, -0.40531, -0.46664, -0.45259]),
        ("transformer", [0.08082, -0.01378, -0.09439, -0.14776, -0.16707]),
    ],
)
def test_a_known_network_gives_known_numbers(layer: str, expected: list[float]) -> None:
    with torch.inference_mode():
        logits = small(token_layer=layer)(pattern())[0]
    np.testing.assert_allclose(logits.numpy(), expected, atol=2e-4)


def test_features_hold_all_tokens_and_the_class_token_makes_the_logits() -> None:
    network = small()
    features = network.forward_features(pattern())
    assert features.shape == (1, 1 + 4, 32)
    torch.testing.assert_close(network(pattern()), network.head(features[:, 0]))


def test_a_token_depends_on_its_place_and_not_on_an_image_of_another_batch_element() -> None:
    network = small()
    both = torch.cat((pattern(), pattern().flip(-1)))
    torch.testing.assert_close(network(both)[:1], network(pattern()), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(network(both)[1], network(both)[0], atol=1e-3)


def test_rectangular_images_have_a_rectangular_grid() -> None:
    network = small(img_size=(32, 64))
    assert network.grid_size == (2, 4)
    assert network.forward_features(pattern(32, 64)).shape == (1, 9, 32)


def test_without_classes_the_class_token_is_returned() -> None:
    assert small(num_classes=0)(pattern()).shape == (1, 32)


def test_a_size_that_is_no_multiple_of_sixteen_is_refused() -> None:
    with pytest.raises(ValueError, match="100 x 100 is not a multiple of 16"):
        T2TViT(img_size=100)


def test_a_checkpoint_of_another_image_size_gets_its_positions_resampled() -> None:
    state, larger = small().state_dict(), T2TViT(img_size=64, **SMALL)
    found = fitted(state, larger)
    assert found["pos_embed"].shape == (1, 17, 32)
    torch.testing.assert_close(found["pos_embed"][:, 0], state["pos_embed"][:, 0])
    larger.load_state_dict(found)
