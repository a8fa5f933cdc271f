"""What comes out of a network is looked at when it is bound, and what it can do is what it has shown."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models.volo import VOLO
from torch import Tensor, nn

import ipvit
from helpers.adapter_networks import vit
from helpers.tiny import PatchNet
from ipvit.errors import InputError
from ipvit.models.adapters.timm.vit import TimmVisionTransformer
from ipvit.models.dry_pass import outputs_of
from ipvit.models.label_mapping import outputs_for

FOUR = ["a", "b", "c", "d"]


class Returns(nn.Module):
    """A network that returns what a function makes of its logits."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.inner, self.function = PatchNet(), function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.inner(x))


@dataclasses.dataclass
class Answer:
    logits: Tensor


REFUSED: dict[str, tuple[Any, str]] = {
    "logits and features": (lambda y: (y, y.repeat(1, 3)), r"returned a tuple of \(2, 4\) and \(2, 12\)"),
    "a mapping without logits": (lambda y: {"scores": y}, r"returned a mapping of scores \(2, 4\)"),
    "one vector for all": (lambda y: y.mean(dim=0), r"returned a tensor \(4,\) of float32"),
    "a map": (lambda y: y[:, :, None, None], r"returned a tensor \(2, 4, 1, 1\) of float32"),
    "decisions": (lambda y: y.argmax(dim=1, keepdim=True), r"returned a tensor \(2, 1\) of int64.*floating point"),
    "nothing": (lambda _: None, "returned an object of type NoneType"),
    "not a number": (lambda y: y * float("nan"), "not finite"),
    "too many": (
        lambda y: torch.cat([y, y[:, :1]], dim=1),
        r"has 5 outputs and 4 names of classes \(a, b, c, \.\.\.\)",
    ),
    "too few": (lambda y: y[:, :3], "has 3 outputs and 4 names"),
    "probabilities": (lambda y: y.softmax(dim=1), "returned probabilities, which sum to 1.*before softmax"),
    "an error": (lambda _: 1 / 0, "cannot take pictures.*ZeroDivisionError"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_comes_back_and_does_not_fit_is_refused_in_one_line(kind: str) -> None:
    function, words = REFUSED[kind]
    with pytest.raises(InputError, match=words) as caught:
        ipvit.wrap(Returns(function), size=16, classes=FOUR, name="net")
    assert str(caught.value).startswith("net ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("function", [lambda y: {"loss": 0, "logits": y}, lambda y: (y,), Answer, lambda y: y.double()])
def test_logits_in_a_mapping_in_an_object_or_alone_in_a_tuple_are_taken(function: Any) -> None:
    model = ipvit.wrap(Returns(function), size=16, classes=FOUR)
    images = torch.rand(3, 3, 16, 16)
    assert model.n_outputs == 4
    torch.testing.assert_close(model(images), model.backbone.inner(model.normalize(images)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_say_so_when_bound(dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match=r"is of (float16|bfloat16|float64); give module\.float\(\)"):
        ipvit.wrap(PatchNet().to(dtype), size=16)


def test_weights_without_values_say_so_when_bound() -> None:
    with torch.device("meta"):
        network = PatchNet()
    with pytest.raises(InputError, match="is on the device 'meta'"):
        ipvit.wrap(network, size=16)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*deprecated")
def test_a_quantised_network_has_a_digest_and_no_gradients() -> None:
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        network = torch.ao.quantization.quantize_dynamic(PatchNet().eval(), {nn.Linear}, dtype=torch.qint8)
        models.append(ipvit.wrap(network, size=16, classes=FOUR))
    assert models[0].digest == models[1].digest != models[2].digest
    assert models[0](torch.rand(1, 3, 16, 16)).shape == (1, 4)
    assert not models[0].can("gradients")


def test_state_of_ones_own_is_part_of_the_digest_and_what_cannot_be_told_apart_is_refused() -> None:
    class Stateful(PatchNet):
        def __init__(self, extra: Any) -> None:
            torch.manual_seed(0)
            super().__init__()
            self.extra = extra

        def get_extra_state(self) -> Any:
            return self.extra

        def set_extra_state(self, state: Any) -> None:
            self.extra = state

    digests = [ipvit.wrap(Stateful(extra), size=16).digest for extra in ({"a": 1}, {"a": 1}, {"a": torch.ones(2)})]
    assert digests[0] == digests[1] != digests[2]
    with pytest.raises(InputError, match="state 'extra_state' of type object"):
        _ = ipvit.wrap(Stateful(object()), size=16).digest


def test_a_network_of_one_channel_and_a_size_with_two_numbers() -> None:
    with pytest.raises(InputError, match="takes 1 channels, and pictures here have 3"):
        ipvit.load_model("resnet10t?in_chans=1", pretrained=False)
    model = ipvit.load_model("vit_tiny_patch16_224?img_size=64,32&depth=1&num_classes=3", pretrained=False)
    assert model.image_size == (64, 32) and model(torch.rand(1, 3, 64, 32)).shape == (1, 3)
    assert model.adapter.patch_grid(model.image_size) == (4, 2)


def test_the_pass_leaves_modes_and_random_numbers_as_they_were() -> None:
    model = ipvit.wrap(nn.Sequential(nn.Dropout(0.5), PatchNet()), size=16)
    model.train()
    before = torch.random.get_rng_state()
    assert outputs_of(model) == 4 and model.can("gradients")
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.random.get_rng_state(), before)


# What it can do.


class Mistaken(TimmVisionTransformer):
    """Reads a network that is built another way than it thinks."""

    wrong = ""

    def tokens(self, images: Tensor, blocks: Any, norm: bool) -> Any:
        found = super().tokens(images, blocks, norm)
        if self.wrong == "tokens":
            return {block: dataclasses.replace(one, grid=(3, 3)) for block, one in found.items()}
        return found

    def attention(self, images: Tensor, blocks: Any) -> Any:
        maps = super().attention(images, blocks)
        return {block: one[:, :, 1:, 1:].softmax(dim=-1) for block, one in maps.items()} if self.wrong else maps

    def drop(self, state: Any, keep: Tensor) -> Any:
        return state if self.wrong == "feature_drop" else super().drop(state, keep)

    def run_from_block(self, state: Any, block: int | None = None) -> Tensor:
        return super().run_from_block(state, block) * (2 if self.wrong == "resume" else 1)


@pytest.mark.parametrize(
    ("wrong", "capability", "words"),
    [
        ("tokens", "tokens", "are (2, 16, 24) for a grid of 3x3"),
        ("attention", "attention", "is over 16 tokens, where there are 1 and 4x4 patches"),
        ("feature_drop", "feature_drop", "losing half of what enters block 1 changes nothing"),
        ("resume", "feature_drop", "gives other logits than the network"),
    ],
)
def test_what_an_adapter_claims_and_does_not_do_is_not_offered(wrong: str, capability: str, words: str) -> None:
    model = ipvit.wrap(vit(), size=32, name="net", adapter=type("Wrong", (Mistaken,), {"wrong": wrong}))
    assert words in model.why_not(capability) and capability not in model.capabilities
    with pytest.raises(InputError, match=f"does not offer '{capability}' \\("):
        model._able(capability)
    assert model.can("token_removal") and ipvit.wrap(vit(), size=32, adapter=Mistaken).can(capability)


def test_a_head_that_reads_something_else_as_well_is_not_taken_for_the_networks_own() -> None:
    torch.manual_seed(0)
    network = VOLO(
        layers=(1, 1, 1, 1),
        embed_dims=(24, 24, 24, 24),
        num_heads=(2, 2, 2, 2),
        num_classes=4,
        img_size=32,
        patch_size=8,
    )
    with torch.no_grad():
        network.aux_head.weight.normal_()
    model = ipvit.wrap(network, size=32)
    assert model.can("tokens") and model.adapter.head_kinds == ("pooled",) and model.head_kinds == ()
    assert ipvit.wrap(vit(), size=32).head_kinds == ("pooled", "class")


@pytest.mark.parametrize("name", ["pit_ti_224?img_size=64", "crossvit_tiny_240"])
def test_a_network_that_gives_no_map_to_drop_from_says_so_before_a_run(name: str, tmp_path: Path) -> None:
    model = ipvit.load_model(name, pretrained=False)
    data = ipvit.MemoryDataset(torch.rand(2, 3, 64, 64), [0, 1], list(model.classes or ())[:2])
    with pytest.raises(InputError, match=r"feature-drop needs the capability feature_drop.*[(]feature_drop: its "):
        ipvit.run(ipvit.FeatureDrop(), models=model, data=data, out=tmp_path / "out", workers=0, progress=False)
    assert not (tmp_path / "out").exists()


# Names.


def data_of(classes: list[str]) -> ipvit.MemoryDataset:
    return ipvit.MemoryDataset(torch.rand(len(classes), 3, 16, 16), np.arange(len(classes)), classes, name="D")


def test_classes_as_many_as_outputs_without_names_are_taken_in_order_and_the_rule_is_told(tmp_path: Path) -> None:
    model, notes = ipvit.wrap(PatchNet(), size=16, name="net"), list[str]()
    assert outputs_for(data_of(["n1", "n2", "n3", "n4"]), model, notes).tolist() == [0, 1, 2, 3]
    assert "D has as many classes as net" in notes[0] and "in their order" in notes[0]
    run = ipvit.run(
        ipvit.Shuffle(grids=("1x1",)),
        models=model,
        data=data_of(["n1", "n2", "n3", "n4"]),
        out=tmp_path,
        workers=0,
        progress=False,
    )
    assert notes[0] in run.manifest.notes


@pytest.mark.parametrize("classes", [["0", "1"], ["cat", "dog"], ["0", "1", "2", "3", "4"]])
def test_other_numbers_of_classes_than_outputs_without_names_are_refused(classes: list[str]) -> None:
    model = ipvit.wrap(PatchNet(), size=16, name="net")
    with pytest.raises(InputError, match=r"cannot map .* to the 4 outputs of net, whose class names are unknown"):
        outputs_for(data_of(classes), model)


def test_folders_that_are_numbers_are_taken_by_number_and_not_as_text() -> None:
    folders = sorted(map(str, range(12)))  # 10 stands after 1
    named = ipvit.wrap(PatchNet(12), size=16, classes=[f"n{i:02d}" for i in range(12)])
    for model in (named, ipvit.wrap(PatchNet(12), size=16)):
        notes: list[str] = []
        assert outputs_for(data_of(folders), model, notes).tolist() == [int(name) for name in folders]
        assert "by number" in notes[0]
    from_one = [str(int(name) + 1) for name in folders]
    assert outputs_for(data_of(from_one), ipvit.wrap(PatchNet(12), size=16)).tolist() == [int(n) for n in folders]
    with pytest.raises(InputError, match="cannot map"):
        outputs_for(data_of(from_one), named)


def test_a_tower_without_a_classifier_for_the_classes_is_refused() -> None:
    tower = ipvit.wrap(timm.create_model("resnet10t", num_classes=512), size=32, name="tower")
    with pytest.raises(InputError, match="to the 512 outputs of tower"):
        outputs_for(data_of(["0", "1"]), tower)


def small() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "224"}, "size is a number of pixels, or height and width, from 1 to 8192, not '224'"),
        ({"size": (1, 2, 3)}, "size is a number of pixels"),
        ({"size": 32.0}, "size is a number of pixels"),
        ({"size": True}, "size is a number of pixels"),
        ({"size": 10**7}, "size is a number of pixels"),
        ({"mean": 0.5}, "must be three numbers each"),
        ({"mean": "abc"}, "must be three numbers each"),
        ({"std": (None, 1, 1)}, "must be three numbers each"),
        ({"crop_pct": None}, "crop_pct is a share of the resized side, above 0 and up to 1, not None"),
        ({"classes": "abcde"}, "classes is a list of names in the order of the outputs, not 'abcde'"),
        ({"classes": {0: "cat"}}, "not a mapping: give its names alone"),
        ({"classes": {"a", "b"}}, "classes is a list of names"),
        ({"classes": 5}, "classes is a list of names"),
        ({"name": 5}, "name is text, not 5"),
        ({"adapter": 3}, "adapter must be a subclass of"),
        ({"adapter": lambda _: 3}, "adapter must make an"),
    ],
)
def test_odd_arguments_of_wrap_are_one_line(options, words):
    with pytest.raises(InputError, match=words) as found:
        ipvit.wrap(small(), **({"size": 8} | options))
    assert "\n" not in str(found.value)


def test_what_is_no_network_of_ones_own_is_refused():
    model = ipvit.wrap(small(), size=8)
    for given, words in (
        (model, "is a Model already: wrapped again it would normalise its pictures twice"),
        (nn.Flatten, "Flatten is a class, not a network"),
        (lambda x: x, "must be a torch.nn.Module, not <function"),
        (None, "must be a torch.nn.Module, not None"),
    ):
        with pytest.raises(InputError, match=words):
            ipvit.wrap(given)


def test_numbers_of_a_scale_may_lie_in_an_array_or_a_tensor():
    plain = ipvit.wrap(small(), size=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    arrays = ipvit.wrap(small(), size=8, mean=torch.full((3,), 0.5), std=np.full(3, 0.25, np.float32))
    assert torch.equal(plain(torch.ones(1, 3, 8, 8)), arrays(torch.ones(1, 3, 8, 8)))
    assert plain.digest == arrays.digest
