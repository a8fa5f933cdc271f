"""Files of weights as people have them: the network's own names are found in them, and what else is there is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import ipvit
from helpers.tiny import PatchNet
from ipvit.errors import InputError
from ipvit.models.io.state_dict import load_strictly
from ipvit.models.io.weights_file import WeightsFile, split_key
from ipvit.models.sources.building import fitted

State = dict[str, torch.Tensor]


def state(seed: int = 0) -> State:
    torch.manual_seed(seed)
    return PatchNet().state_dict()


def under(prefix: str, weights: State) -> State:
    return {prefix + key: value for key, value in weights.items()}


PROJECTION = {"head.mlp.0.weight": torch.zeros(2, 2), "head.last_layer.weight_g": torch.zeros(2, 1)}

FILES: dict[str, tuple[Any, list[str]]] = {
    "torchvision's average": (
        {"model": state(1), "model_ema": {"n_averaged": torch.tensor(5), **under("module.", state())}, "epoch": 3},
        ["model", "n_averaged"],
    ),
    "an AveragedModel": ({"n_averaged": torch.tensor(5), **under("module.", state())}, ["n_averaged"]),
    "DINO's full checkpoint": (
        {
            "student": under("module.backbone.", state(1)) | PROJECTION,
            "teacher": under("backbone.", state()) | PROJECTION,
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []},
            "dino_loss": {"center": torch.zeros(1, 4)},
        },
        ["head.last_layer.weight_g", "head.mlp.0.weight", "student.module.backbone"],
    ),
    "MoCo-v3": (
        {
            "state_dict": under("module.base_encoder.", state())
            | under("module.momentum_encoder.", state(1))
            | {"module.predictor.0.weight": torch.zeros(2, 2)}
        },
        [],
    ),
    "Lightning with metrics": (
        {"state_dict": under("model.", state()) | {"val_acc.tp": torch.zeros(4), "criterion.weight": torch.ones(4)}},
        ["criterion.weight", "val_acc.tp"],
    ),
    "thop's counters": (
        state() | {"total_ops": torch.zeros(1), "head.total_params": torch.zeros(1)},
        ["head.total_params", "total_ops"],
    ),
    "an encoder": (under("encoder.", state()), []),
    "wrappers in wrappers": ({"state": {"ddp": {"module": under("net.model.", state())}}}, []),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_networks_own_names_are_found_wherever_they_lie(kind: str, tmp_path: Path) -> None:
    content, left_out = FILES[kind]
    torch.save(content, tmp_path / "w.pth")
    file, network = WeightsFile.read(str(tmp_path / "w.pth")), PatchNet()
    load_strictly(network, file.state_for(network), "w.pth")
    assert all(torch.equal(value, state()[key]) for key, value in network.state_dict().items())
    if left_out:
        assert sorted(file.left_out) == left_out and left_out[0] in file.in_words


@pytest.mark.parametrize("key", ["student", "student.module.backbone"])
def test_a_key_picks_one_of_several_networks(key: str, tmp_path: Path) -> None:
    torch.save(FILES["DINO's full checkpoint"][0], tmp_path / "w.pth")
    picked = WeightsFile.read(f"{tmp_path}/w.pth#{key}").state_for(PatchNet())
    assert torch.equal(picked["head.weight"], state(1)["head.weight"])
    with pytest.raises(InputError, match=r"has no network 'pupil'; it has student, teacher"):
        WeightsFile.read(f"{tmp_path}/w.pth#pupil").state_for(PatchNet())


def test_two_networks_of_which_none_goes_first_are_refused_by_name(tmp_path: Path) -> None:
    torch.save(under("online.", state()) | under("target.", state(1)), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"several networks that fit: online, target; choose one as @FILE#online"):
        WeightsFile.read(str(tmp_path / "w.pth")).state_for(PatchNet())
    assert torch.equal(
        WeightsFile.read(f"{tmp_path}/w.pth#target").state_for(PatchNet())["head.bias"], state(1)["head.bias"]
    )


def test_what_lies_among_the_networks_names_and_is_not_its_own_is_refused(tmp_path: Path) -> None:
    torch.save(under("model.", state() | {"extra.weight": torch.ones(2)}), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"1 unexpected: extra\.weight"):
        load_strictly(PatchNet(), WeightsFile.read(str(tmp_path / "w.pth")).state_for(PatchNet()), "w.pth")


def test_a_name_with_a_key_is_shown_with_it(tmp_path: Path) -> None:
    (tmp_path / "a#b.pth").write_bytes(b"x")
    assert split_key(str(tmp_path / "a#b.pth"))[1] == ""
    assert ipvit.models.names.short_name("net@runs/dino.pth#teacher") == "net@dino#teacher"


def test_shards_are_read_from_their_folder(tmp_path: Path) -> None:
    weights = state()
    shards = {"head.bias": "model-1-of-2.safetensors", "head.weight": "model-2-of-2.safetensors"}
    for key, name in shards.items():
        save_file({key: weights[key]}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    file = WeightsFile.read(str(tmp_path))
    assert {k: v.tolist() for k, v in file.state_for(PatchNet()).items()} == {k: v.tolist() for k, v in weights.items()}
    assert len(file.sha256) == 64
    with pytest.raises(InputError, match=r"is the index of 2 shards, not weights; give their folder"):
        WeightsFile.read(str(index))
    (tmp_path / "model-2-of-2.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks 1 of its 2 shards: model-2-of-2"):
        WeightsFile.read(str(tmp_path))
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    with pytest.raises(InputError, match="outside its folder"):
        WeightsFile.read(str(tmp_path))
    index.unlink()
    with pytest.raises(InputError, match="holds no weights"):
        WeightsFile.read(str(tmp_path))


def test_a_git_lfs_pointer_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(InputError, match=r"is a Git LFS pointer, not the weights.*git lfs pull"):
        WeightsFile.read(str(path))


def test_a_file_without_a_classifier_comes_with_the_way_to_load_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = timm.create_model("resnet10t").state_dict()
    torch.save(
        {k: v for k, v in weights.items() if not k.startswith("fc.")} | {"fc.0.weight": torch.ones(1)},
        tmp_path / "w.pth",
    )
    with pytest.raises(InputError, match=r"missing: fc\.weight, fc\.bias.*num_classes=0"):
        ipvit.load_model(f"resnet10t@{tmp_path}/w.pth")
    model = ipvit.load_model(f"resnet10t?num_classes=0@{tmp_path}/w.pth")
    assert model.source.endswith("without fc.0.weight") and not model.can("logits")


def test_positions_of_a_file_in_half_precision_are_resampled_in_float32() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 3}
    small = timm.create_model("vit_tiny_patch16_224", img_size=64, **sizes)
    large = timm.create_model("vit_tiny_patch16_224", img_size=96, **sizes)
    half = {key: value.half() for key, value in small.state_dict().items()}
    found = fitted(half, large)["pos_embed"]
    right = fitted({key: value.float() for key, value in half.items()}, large)["pos_embed"]
    assert found.dtype == torch.float32 and torch.equal(found, right)
    assert not torch.equal(found, right.half().float())


@pytest.mark.parametrize("name", ["ema_model", "average_model", "swa_state_dict", "model_avg", "ema_weights", "polyak"])
def test_averaged_weights_go_first_and_the_others_are_told(tmp_path, name):
    network = nn.Linear(2, 2)
    state = {key: value + 1 for key, value in network.state_dict().items()}
    torch.save({"model": network.state_dict(), name: state}, tmp_path / "w.pth")
    file = WeightsFile.read(str(tmp_path / "w.pth"))
    assert torch.equal(file.state_for(network)["weight"], state["weight"])
    assert file.in_words.endswith("w.pth without model")


def test_whole_numbers_are_no_weights(tmp_path):
    network = nn.Linear(2, 2)
    state = {key: (10 * value).to(torch.int8) for key, value in network.state_dict().items()}
    with pytest.raises(InputError, match=r"hold 'weight' as int8, where Linear has floating-point numbers \(2 such"):
        load_strictly(network, state, "here")


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_a_file_for_a_network_that_scales_its_inputs_says_whether_it_does(tmp_path, name):
    torch.save({}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"\?transform_input=true for torchvision's published weights"):
        ipvit.load_model(f"torchvision:{name}@{tmp_path / 'w.pth'}")


@pytest.mark.parametrize(
    ("name", "head", "kept", "width"),
    [
        ("resnet18", "fc", 0, 512),
        ("mobilenet_v3_small", "classifier", 2, 1024),
        ("mobilenet_v3_small", "classifier", 0, 576),
    ],
)
def test_a_torchvision_file_without_its_classifier_is_loaded_as_the_hint_says(tmp_path, name, head, kept, width):
    whole = torchvision.models.get_model(name, weights=None).state_dict()
    names = [key for key in whole if key.startswith(f"{head}.")]
    path = tmp_path / "backbone.pth"
    torch.save({key: value for key, value in whole.items() if key not in names[kept:]}, path)
    with pytest.raises(InputError, match=rf"missing: {head}\..*NAME\?num_classes=0@FILE"):
        ipvit.load_model(f"torchvision:{name}@{path}")
    model = ipvit.load_model(f"torchvision:{name}?num_classes=0@{path}")
    assert "logits" not in model.capabilities
    assert model.classes is None
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, whole[key])
    with torch.no_grad():
        assert model.backbone(torch.rand(1, 3, 64, 64)).shape == (1, width)


def test_of_a_torchvision_file_with_its_classifier_the_classifier_can_be_left_out(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "whole.pth")
    model = ipvit.load_model(f"torchvision:resnet18?num_classes=0@{tmp_path / 'whole.pth'}")
    assert "logits" not in model.capabilities
    assert "fc.weight" in model.source


@pytest.mark.parametrize("key", [0, ("a", 1)])
def test_weights_may_lie_under_a_number(tmp_path, key):
    torch.save({key: state()}, tmp_path / "w.pth")
    found = WeightsFile.read(str(tmp_path / "w.pth")).state_for(PatchNet())
    assert found.keys() == PatchNet().state_dict().keys()


@pytest.mark.parametrize("name", ["resnet18", "torchvision:resnet18"])
@pytest.mark.parametrize("count", ["-1", "abc", "2.5", "true"])
def test_a_number_of_outputs_that_is_none_is_refused(name, count):
    with pytest.raises(InputError, match="num_classes is a number of outputs, 0 for no classifier, not"):
        ipvit.load_model(f"{name}?num_classes={count}", pretrained=False)
