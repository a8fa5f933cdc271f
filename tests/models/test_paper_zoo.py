"""Every network of the paper: built, run, loaded from files laid out as the published ones."""

from __future__ import annotations

import argparse
import gc
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
import torch

import ipvit
from ipvit.errors import InputError
from ipvit.models.io import weights_file
from ipvit.models.loading import load_paper
from ipvit.models.sources.paper import build_paper
from ipvit.models.zoo.paper import ALIASES, NETWORKS, paper_name

QUICK = ("deit_tiny", "resnet50", "no_pos_deit_t")
"""Networks of different kinds; all of them take minutes together."""


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    """Give the memory of one network back before the next is built."""
    yield
    gc.collect()


def names() -> list[object]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]


def pixels(batch: int = 1, size: int = 224) -> torch.Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def same_weights(model: ipvit.Model, state: dict[str, torch.Tensor]) -> bool:
    own = model.backbone.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[key], value) for key, value in state.items())


def randomised(name: str) -> torch.nn.Module:
    """The network with weights that no seed of ours makes."""
    network = build_paper(NETWORKS[name])
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(0.01 * torch.rand(value.shape, generator=generator))
    return network


@pytest.mark.parametrize("name", names())
def test_a_network_has_its_parameters_and_answers_an_image(name: str) -> None:
    network = NETWORKS[name]
    model = ipvit.load_model(f"paper:{name}", pretrained=False)
    assert sum(value.numel() for value in model.backbone.parameters()) == network.parameters
    with torch.inference_mode():
        output = model(pixels())
    headless = network.options.get("num_classes") == 0
    assert output.shape == (1, 384 if headless else 1000)
    assert output.isfinite().all()
    assert model.classes is None if headless else len(model.classes or ()) == 1000
    assert model.name == f"paper:{name}"


def test_every_network_sees_what_the_authors_evaluation_shows() -> None:
    for network in NETWORKS.values():
        view = network.preprocessing.view
        assert (view.size, view.resize, view.interpolation) == ((224, 224), (256, 256), "bilinear")
        half = network.family in ("ViT", "TnT")
        assert network.preprocessing.mean == ((0.5,) * 3 if half else (0.485, 0.456, 0.406))
        assert network.preprocessing.std == ((0.5,) * 3 if half else (0.229, 0.224, 0.225))


def test_weights_are_at_addresses_whose_names_state_their_digest_where_the_publisher_does() -> None:
    stated = {name: network.sha256 for name, network in NETWORKS.items() if network.sha256}
    assert stated == {
        "vgg19_bn": "c79401a0",
        "resnet50": "0676ba61",
        "squeezenet": "b66bff10",
        "densenet121": "a639ec97",
        "resnet50_sin": "c8e5653e",
        "regnety_040": "f0d569f9",
        "regnety_080": "e7f3eb93",
        "regnety_160": "a5fe301d",
        "deit_tiny": "a1311bcf",
        "deit_small": "cd65a155",
        "deit_base": "b5f2ef4d",
        "deit_tiny_distilled": "b40b3cf7",
        "deit_small_distilled": "649709d9",
        "deit_base_distilled": "df68dfff",
        "vit_small": "15ec54c9",
        "vit_base": "80ecf9dd",
        "vit_large": "4ee7a4dc",
    }
    urls = [network.weights for network in NETWORKS.values() if network.weights]
    assert len(set(urls)) == len(urls) == len(NETWORKS) - 1
    assert all(urlparse(url).scheme == "https" for url in urls)


def test_torchvisions_addresses_are_torchvisions_own() -> None:
    import torchvision.models as zoo

    for name in ("vgg19_bn", "resnet50", "squeezenet", "densenet121"):
        builder = NETWORKS[name].constructor.partition(":")[2]
        assert NETWORKS[name].weights == zoo.get_model_weights(builder)["IMAGENET1K_V1"].url


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("DeiT-S", "deit_small"),
        ("ResNet50", "resnet50"),
        ("ResNet50-SIN", "resnet50_sin"),
        ("DeiT-T-SIN", "deit_t_sin"),
        ("DeiT-S-SIN distilled", "deit_s_sin_dist"),
        ("T2T-24", "t2t_vit_24"),
        ("TnT-S", "tnt_small"),
        ("ViT-L", "vit_large"),
        ("AugMix", "resnet50_augmix"),
        ("DeiT-T no-pos", "no_pos_deit_t"),
        ("deit_s_sin_dist", "deit_s_sin_dist"),
        ("paper:dino_vits8", "dino_vits8"),
    ],
)
def test_networks_are_known_as_the_paper_writes_them(written: str, name: str) -> None:
    assert paper_name(written) == name


def test_no_two_networks_are_written_alike() -> None:
    written = [(text, network.name) for network in NETWORKS.values() for text in (network.name, network.title)]
    for text, name in [*written, *ALIASES.items()]:
        assert paper_name(text) == name


def test_an_unknown_network_is_answered_with_close_ones() -> None:
    with pytest.raises(InputError, match=r"no network 'deit_smal'\. Did you mean 'deit_small'"):
        ipvit.load_model("paper:deit_smal", pretrained=False)


def test_weights_that_only_a_person_can_download_say_where() -> None:
    with pytest.raises(InputError, match=r"from https://drive\.google\.com/\S+ and give paper:resnet50_augmix@FILE"):
        ipvit.load_model("paper:resnet50_augmix")


def test_pretrained_weights_come_from_the_published_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = randomised("deit_tiny").state_dict()
    file = save(tmp_path / "deit.pth", {"model": state})
    asked = []
    monkeypatch.setattr(weights_file, "resolve", lambda location: asked.append(location) or file)
    model = ipvit.load_model("paper:DeiT-T")
    assert asked == ["https://dl.fbaipublicfiles.com/deit/deit_tiny_patch16_224-a1311bcf.pth"]
    assert same_weights(model, state)
    assert model.source == asked[0]
    assert model.weights_sha256 is not None


@pytest.mark.parametrize("name", ["deit_t_sin_dist", "no_pos_deit_t", "patch_22_deit_t"])
def test_the_authors_files_load_as_they_are(name: str, tmp_path: Path) -> None:
    state = randomised(name).state_dict()
    file = save(tmp_path / "x.pth", {"model": state, "optimizer": {"lr": 0.1}, "args": argparse.Namespace(lr=0.1)})
    assert same_weights(ipvit.load_model(f"paper:{name}@{file}"), state)
    expected = {"deit_t_sin_dist": (1, 198, 192), "patch_22_deit_t": (1, 101, 192)}.get(name)
    assert tuple(state["pos_embed"].shape) == expected if expected else "pos_embed" not in state


def test_an_average_of_weights_is_taken_before_the_last_weights(tmp_path: Path) -> None:
    average, last = randomised("t2t_vit_7").state_dict(), build_paper(NETWORKS["t2t_vit_7"]).state_dict()
    content = {
        "epoch": 309,
        "arch": "t2t_vit_7",
        "state_dict": last,
        "state_dict_ema": average,
        "metric": np.float64(71.7),
    }
    assert same_weights(load_paper("T2T-7", weights=str(save(tmp_path / "x.pth.tar", content))), average)


def test_data_parallel_names_load(tmp_path: Path) -> None:
    state = randomised("resnet50_sin").state_dict()
    content = {"state_dict": {f"module.{key}": value for key, value in state.items()}, "best_prec1": torch.tensor(60.2)}
    assert same_weights(load_paper("ResNet50-SIN", weights=str(save(tmp_path / "x.pth.tar", content))), state)


def test_densenets_old_names_load(tmp_path: Path) -> None:
    state = randomised("densenet121").state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value for key, value in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert same_weights(load_paper("densenet121", weights=str(save(tmp_path / "x.pth", old))), state)


def test_the_first_vit_small_loads_with_its_flat_patch_weights(tmp_path: Path) -> None:
    state = randomised("vit_small").state_dict()
    flat = {**state, "patch_embed.proj.weight": state["patch_embed.proj.weight"].flatten(1)}
    assert same_weights(load_paper("ViT-S", weights=str(save(tmp_path / "x.pth", flat))), state)


def test_tnts_first_names_load(tmp_path: Path) -> None:
    state = randomised("tnt_small").state_dict()
    renamed = (
        ("patch_pos", "outer_pos"),
        ("pixel_pos", "inner_pos"),
        ("pixel_embed", "patch_embed"),
        ("norm1_proj", "proj_norm1"),
        ("norm2_proj", "proj_norm2"),
        ("norm_mlp_in", "inner_norm2"),
        ("norm_in", "inner_norm1"),
        ("attn_in", "inner_attn"),
        ("mlp_in", "inner_mlp"),
        ("norm_out", "outer_norm1"),
        ("attn_out", "outer_attn"),
        ("norm_mlp", "outer_norm2"),
        (".mlp.", ".outer_mlp."),
    )
    old = {}
    for key, value in state.items():
        for new, before in renamed:
            if new in key:
                key = key.replace(new, before)
                break
        old[key] = value
    old["outer_tokens"] = torch.zeros(1, 196, 384)
    assert same_weights(load_paper("TnT-S", weights=str(save(tmp_path / "x.pth.tar", old))), state)


def test_swins_first_layout_loads(tmp_path: Path) -> None:
    state = randomised("swin_tiny").state_dict()
    old = {}
    for key, value in state.items():
        found = re.match(r"layers\.(\d)\.downsample\.(.*)", key)
        if found:
            key = f"layers.{int(found[1]) - 1}.downsample.{found[2]}"
        old[key.replace("head.fc.", "head.")] = value
    old["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    old["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    assert same_weights(load_paper("Swin-T", weights=str(save(tmp_path / "x.pth", {"model": old}))), state)


def test_dinos_file_loads_with_or_without_a_projection_head(tmp_path: Path) -> None:
    state = randomised("dino_vits16").state_dict()
    extra = {**state, "head.mlp.0.weight": torch.zeros(2, 384)}
    for content in (state, extra):
        assert same_weights(load_paper("DINO", weights=str(save(tmp_path / "x.pth", content))), state)


def test_weights_of_another_network_are_refused_by_name_of_key(tmp_path: Path) -> None:
    file = save(tmp_path / "x.pth", {"model": randomised("deit_t_sin").state_dict()})
    with pytest.raises(InputError, match=r"missing: dist_token.*pos_embed \(1, 197, 192\) instead of \(1, 198, 192\)"):
        ipvit.load_model(f"paper:deit_t_sin_dist@{file}")


def test_without_positions_a_shuffle_of_whole_patches_changes_nothing() -> None:
    model, images = load_paper("DeiT-T no-pos", pretrained=False), pixels()
    cells = images.unfold(2, 16, 16).unfold(3, 16, 16).reshape(3, 196, 16, 16)
    order = torch.randperm(196, generator=torch.Generator().manual_seed(1))
    shuffled = cells[:, order].reshape(3, 14, 14, 16, 16).permute(0, 1, 3, 2, 4).reshape(1, 3, 224, 224)
    with_positions = load_paper("DeiT-T", pretrained=False)
    with torch.inference_mode():
        torch.testing.assert_close(model(shuffled), model(images), atol=1e-4, rtol=1e-3)
        assert not torch.allclose(with_positions(shuffled), with_positions(images), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("patch", "seen"), [(22, 220), (38, 190)])
def test_a_patch_that_does_not_divide_the_image_leaves_out_the_rest(patch: int, seen: int) -> None:
    model, images = load_paper(f"patch_{patch}_deit_t", pretrained=False), pixels()
    outside, inside = images.clone(), images.clone()
    outside[..., seen:, :], outside[..., :, seen:] = 0, 1
    inside[..., seen - 1, seen - 1] = 0
    with torch.inference_mode():
        assert torch.equal(model(outside), model(images))
        assert not torch.equal(model(inside), model(images))


def test_the_first_vit_small_divides_its_scores_by_the_root_of_its_whole_width() -> None:
    attention = build_paper(NETWORKS["vit_small"]).blocks[0].attn
    x = torch.randn(1, 5, 768, generator=torch.Generator().manual_seed(0)) * 3
    with torch.inference_mode():
        query, key, value = attention.qkv(x).reshape(1, 5, 3, 8, 96).permute(2, 0, 3, 1, 4)

        def by_hand(width: int) -> torch.Tensor:
            weights = torch.softmax(query @ key.transpose(-2, -1) / width**0.5, dim=-1)
            return attention.proj((weights @ value).transpose(1, 2).reshape(1, 5, 768))

        torch.testing.assert_close(attention(x), by_hand(768), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(attention(x), by_hand(96), atol=1e-3)


def test_distilled_networks_name_their_second_token_and_answer_with_the_mean_of_both_heads() -> None:
    shape, usual = load_paper("deit_t_sin_dist", False), load_paper("deit_tiny_distilled", False)
    assert (shape.distillation_token, usual.distillation_token) == ("shape", "distillation")
    with torch.inference_mode():
        features = shape.backbone.forward_features(shape.normalize(pixels()))
        mean = (shape.backbone.head(features[:, 0]) + shape.backbone.head_dist(features[:, 1])) / 2
        torch.testing.assert_close(shape(pixels()), mean)


def test_random_weights_are_always_the_same() -> None:
    digests = {load_paper("t2t_vit_7", pretrained=False).digest for _ in range(2)}
    assert len(digests) == 1
    assert load_paper("deit_tiny", pretrained=False).digest not in digests


def test_options_change_the_constructor_and_the_input_size() -> None:
    model = ipvit.load_model("paper:deit_tiny?img_size=64&num_classes=3", pretrained=False)
    assert model.image_size == (64, 64)
    assert model.classes is None
    assert model(pixels(size=64)).shape == (1, 3)
    with pytest.raises(InputError, match="does not take"):
        ipvit.load_model("paper:t2t_vit_7?nonsense=1", pretrained=False)
    with pytest.raises(InputError, match="multiple of 16"):
        ipvit.load_model("paper:t2t_vit_7?img_size=100", pretrained=False)


def test_positions_are_enlarged_by_the_authors_plain_bicubic_kernel(tmp_path):
    small = build_paper(NETWORKS["deit_tiny"], {"depth": 1})
    torch.save({"model": small.state_dict()}, tmp_path / "small.pth")
    large = ipvit.load_model(f"paper:deit_tiny?depth=1&img_size=320@{tmp_path / 'small.pth'}")
    grid = small.pos_embed[:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    plain = torch.nn.functional.interpolate(grid, size=(20, 20), mode="bicubic", align_corners=False)
    assert torch.equal(large.backbone.pos_embed[:, 1:], plain.permute(0, 2, 3, 1).reshape(1, 400, -1))
    assert torch.equal(large.backbone.pos_embed[:, :1], small.pos_embed[:, :1])
    smooth = torch.nn.functional.interpolate(grid, size=(20, 20), mode="bicubic", antialias=True)
    assert not torch.allclose(smooth, plain, atol=1e-4), "what timm does"
