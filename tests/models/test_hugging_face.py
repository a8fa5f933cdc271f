"""Image classifiers of the package transformers, from a folder and from a hub that is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import ipvit
from ipvit.data.decode import apply_view
from ipvit.errors import InputError
from ipvit.models.sources import huggingface
from ipvit.models.sources.image_processor import (
    MEAN_APART,
    MOST_APART,
    candidates,
    preprocessing_of,
    probe_pictures,
)

PROCESSOR = {
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.5, 0.5],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    labels = {0: "cat", 1: "dog", 2: "owl"}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.ViTConfig(
        **sizes, image_size=32, patch_size=8, id2label=labels, label2id={name: place for place, name in labels.items()}
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return tmp_path / "vit"


@pytest.mark.parametrize("name", ["me@home", "a@b@c"])
def test_a_folder_may_have_an_at_sign_in_its_path(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    moved = folder.rename(tmp_path / name / "vit@2")
    model = ipvit.load_model(f"transformers:{moved}")
    assert model.classes == ("cat", "dog", "owl")
    torch.save({key: value * 0 for key, value in model.backbone.state_dict().items()}, tmp_path / name / "zero.pth")
    zero = ipvit.load_model(f"transformers:{moved}@{tmp_path / name / 'zero.pth'}")
    assert not zero(torch.rand(1, 3, 32, 32)).any()
    assert zero.name == f"transformers:{moved}@zero"


def test_a_trained_file_may_lie_below_a_folder_with_an_at_sign(tmp_path: Path) -> None:
    from ipvit.models.names import split_weights

    (tmp_path / "me@home").mkdir()
    path = tmp_path / "me@home" / "best.safetensors"
    path.write_bytes(b"not weights")
    assert split_weights(str(path)) == (str(path), "")
    assert split_weights(f"resnet50@{path}") == ("resnet50", str(path))
    with pytest.raises(InputError, match=r"me@home/best\.safetensors: not a readable"):
        ipvit.load_model(str(path))


def test_a_folder_gives_labels_preprocessing_and_the_classifiers_own_logits(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = ipvit.load_model(f"transformers:{folder}")
    assert model.classes == ("cat", "dog", "owl")
    assert model.preprocessing.mean == (0.5, 0.4, 0.3)
    assert (model.image_size, model.preprocessing.view.interpolation) == ((32, 32), "bilinear")
    images = torch.rand(2, 3, 32, 32)
    own = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    normalised = (images - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / 0.5
    with torch.inference_mode():
        torch.testing.assert_close(model(images), own(pixel_values=normalised).logits)


def test_random_weights_are_others_and_always_the_same(folder: Path) -> None:
    digests = [ipvit.load_model(f"transformers:{folder}", pretrained=False).digest for _ in range(2)]
    assert digests[0] == digests[1] != ipvit.load_model(f"transformers:{folder}").digest


def test_weights_of_ones_own_are_loaded(folder: Path, tmp_path: Path) -> None:
    state = {key: value * 0 for key, value in ipvit.load_model(f"transformers:{folder}").backbone.state_dict().items()}
    torch.save(state, tmp_path / "zero.pth")
    model = ipvit.load_model(f"transformers:{folder}@{tmp_path / 'zero.pth'}")
    assert model(torch.rand(1, 3, 32, 32)).abs().sum() == 0


def test_a_hub_name_is_loaded_with_the_library_that_its_configuration_is_of(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    config = tmp_path / "config.json"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: str(config))
    monkeypatch.setattr(huggingface, "load_transformers", lambda parsed, pretrained: f"transformers {parsed.name}")
    monkeypatch.setattr(huggingface, "build_timm", lambda parsed, pretrained: f"timm {parsed.name}")
    parsed = ipvit.models.loading.ModelName.parse("hf-hub:owner/net")
    config.write_text(json.dumps({"model_type": "vit", "architectures": ["ViTForImageClassification"]}))
    assert huggingface.load_hub(parsed, True) == "transformers owner/net"
    config.write_text(json.dumps({"architecture": "vit_tiny", "pretrained_cfg": {}}))
    assert huggingface.load_hub(parsed, True) == "timm hf-hub:owner/net"


def test_without_the_package_the_way_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'ipvit\[transformers\]'"):
        ipvit.load_model("transformers:owner/net")


def test_a_folder_without_a_classifier_is_refused_on_one_line(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(InputError, match="no image classifier") as caught:
        ipvit.load_model(f"transformers:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_a_network_without_a_trained_classifier_is_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in state.items() if not key.startswith("classifier")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"no weights for classifier\.bias, classifier\.weight"):
        ipvit.load_model(f"transformers:{folder}")


@pytest.mark.parametrize(
    ("stated", "size", "resize", "mode"),
    [
        ({"size": {"height": 224, "width": 200}}, (224, 200), (224, 200), "squash"),
        ({"size": 224}, (224, 224), (224, 224), "squash"),
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            (224, 224),
            (256, 256),
            "center_floor",
        ),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (224, 224), (256, 256), "center_floor"),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, 384), (384, 384), "squash"),
    ],
)
def test_an_image_processors_sizes_become_a_view(
    stated: dict[str, Any], size: tuple[int, int], resize: tuple[int, int], mode: str
) -> None:
    view = next(candidates({**PROCESSOR, **stated}, "net")).view
    assert (view.size, view.resize, view.crop_mode) == (size, resize, mode)


def test_what_a_view_cannot_express_is_refused() -> None:
    with pytest.raises(InputError, match="resizes by Pillow's method 1"):
        next(candidates({**PROCESSOR, "resample": 1}, "net"))
    with pytest.raises(InputError, match="states no input size"):
        next(candidates({"do_normalize": True}, "net"))
    with pytest.raises(InputError, match="blue, green, red"):
        next(candidates({**PROCESSOR, "do_flip_channel_order": True}, "net"))
    assert next(candidates({**PROCESSOR, "do_normalize": False}, "net")).std == (1.0, 1.0, 1.0)


EDGE_32 = {"size": {"shortest_edge": 32}}
SQUARE_32 = {"size": {"height": 32, "width": 32}}
CROP_32 = {"crop_size": {"height": 32, "width": 32}}

EXPRESSED: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTImageProcessor", SQUARE_32),
    "one mean for all channels": ("ViTImageProcessor", SQUARE_32 | {"image_mean": 0.4, "image_std": 0.3}),
    "pixels from -1 to 1": ("ViTImageProcessor", SQUARE_32 | {"rescale_factor": 1 / 127.5}),
    "pixels up to 255": ("ViTImageProcessor", SQUARE_32 | {"do_rescale": False, "image_mean": [120.0] * 3}),
    "deit": ("DeiTImageProcessor", {"size": {"height": 37, "width": 37}} | CROP_32),
    "clip, with a number for a size": ("CLIPImageProcessor", {"size": 32} | CROP_32),
    "mobilenet": ("MobileNetV2ImageProcessor", {"size": {"shortest_edge": 37}} | CROP_32),
    "convnext": ("ConvNextImageProcessor", EDGE_32 | {"crop_pct": 0.875}),
    "levit": ("LevitImageProcessor", EDGE_32 | CROP_32),
    "poolformer": ("PoolFormerImageProcessor", EDGE_32 | CROP_32 | {"crop_pct": 0.9}),
    "efficientnet": ("EfficientNetImageProcessor", SQUARE_32),
    "efficientnet, offset": ("EfficientNetImageProcessor", SQUARE_32 | {"rescale_offset": True, "include_top": False}),
    "mobilevit, red first": (
        "MobileViTImageProcessor",
        {"size": {"shortest_edge": 36}, "do_flip_channel_order": False} | CROP_32,
    ),
}


@pytest.mark.parametrize("kind", EXPRESSED)
def test_pictures_are_those_of_the_networks_own_image_processor(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    name, stated = EXPRESSED[kind]
    processor = getattr(transformers, name)(**stated)
    found = preprocessing_of(processor, "net")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (found.mean, found.std))
    for picture in probe_pictures(found.view):
        theirs = torch.as_tensor(processor(images=picture, return_tensors="pt")["pixel_values"])[0]
        ours = apply_view(torch.from_numpy(picture).permute(2, 0, 1), found.view) / 255
        apart = ((theirs - (ours - mean) / std) * std * 255).abs()
        assert apart.mean() <= MEAN_APART and apart.max() <= MOST_APART


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "mobilevit": ("MobileViTImageProcessor", EDGE_32 | CROP_32, "blue, green, red"),
    "perceiver": ("PerceiverImageProcessor", SQUARE_32 | {"crop_size": {"height": 37, "width": 37}}, "PerceiverImage"),
    "textnet": ("TextNetImageProcessor", EDGE_32, "TextNetImageProcessor does to pictures cannot be expressed"),
    "donut": ("DonutImageProcessor", SQUARE_32, "DonutImageProcessor does to pictures cannot be expressed"),
    "no resizing": ("ViTImageProcessor", SQUARE_32 | {"do_resize": False}, "ViTImageProcessor does to pictures"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_pictures_than_the_image_processors_are_refused_by_name(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    name, stated, words = REFUSED[kind]
    with pytest.raises(InputError, match=words) as caught:
        preprocessing_of(getattr(transformers, name)(**stated), "transformers:owner/net")
    assert str(caught.value).startswith("transformers:owner/net") and "\n" not in str(caught.value)


def test_an_image_processor_whose_method_is_the_default_of_its_class(folder: Path) -> None:
    pytest.importorskip("transformers")
    stated = {key: value for key, value in PROCESSOR.items() if key != "resample"}
    stated |= {"image_processor_type": "BeitImageProcessor", "do_center_crop": False}  # whose default has changed
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))
    assert ipvit.load_model(f"transformers:{folder}").preprocessing.view.interpolation == "bicubic"


def backbone(path: Path, kind: str) -> Path:
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, f"{kind}Model"):
        pytest.skip(f"this release of transformers has no {kind}")
    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes, intermediate_size=48)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(path)
    stated = PROCESSOR | {"image_processor_type": "ViTImageProcessor"}
    (path / "preprocessor_config.json").write_text(json.dumps(stated))
    return path


def test_a_backbone_that_transformers_has_no_classifier_for_is_read_without_one(tmp_path: Path) -> None:
    model = ipvit.load_model(f"transformers:{backbone(tmp_path / 'dino', 'DINOv3ViT')}")
    assert model.classes is None and model.n_outputs == 0
    assert model.capabilities == {"gradients", "tokens", "attention", "feature_drop", "token_removal"}
    with torch.no_grad():
        assert model.tokens(torch.rand(2, 3, 32, 32))[1].patches.shape == (2, 16, 24)


def test_a_checkpoint_of_a_backbone_alone_says_how_it_is_loaded(tmp_path: Path) -> None:
    folder = backbone(tmp_path / "dino", "Dinov2")
    with pytest.raises(InputError, match="its backbone alone is transformers:.*[?]num_labels=0"):
        ipvit.load_model(f"transformers:{folder}")
    model = ipvit.load_model(f"transformers:{folder}?num_labels=0")
    assert model.n_outputs == 0 and "logits" not in model.capabilities and model.can("attention")
