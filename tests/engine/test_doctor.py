"""The doctor: a right set-up is called right, a wrong one is recognised for what it is."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import ipvit
from ipvit.cli import main
from ipvit.data.dataset import MemoryDataset
from ipvit.data.subset import Subset
from ipvit.engine.diagnosis import examine
from ipvit.models.loading import demo_models
from ipvit.models.published import Published, published

COLOURS = torch.tensor(
    [
        [0.50, 0.45, 0.55],
        [0.55, 0.50, 0.42],
        [0.45, 0.55, 0.50],
        [0.42, 0.48, 0.60],
        [0.60, 0.42, 0.47],
        [0.48, 0.62, 0.44],
    ]
)
NAMES = ["disc", "triangle", "square", "star", "cross", "heart"]
STATED = Published(100.0, "", 0, "a test")


class NearestColour(nn.Module):
    """Knows each class by its colour, as it looks after normalisation with mean and std of 0.5."""

    def forward(self, x):
        return -torch.cdist(x.mean(dim=(2, 3)), (COLOURS - 0.5) / 0.5)


class Painted(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.inner, self.change = NearestColour(), change

    def forward(self, x):
        return self.inner(self.change(x))


def model(classes=NAMES, mean=(0.5,) * 3, std=(0.5,) * 3, change=lambda x: x):
    return ipvit.wrap(Painted(change), size=8, crop_pct=1.0, mean=mean, std=std, classes=list(classes))


def data(per_class: int = 20) -> MemoryDataset:
    labels = torch.arange(len(NAMES)).repeat(per_class)
    noise = 0.02 * torch.randn(len(labels), 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return MemoryDataset((COLOURS[labels][:, :, None, None] + noise).clamp(0, 1), labels, NAMES)


def diagnose(network, images=None, stated=STATED):
    return examine(network, images or data(), torch.device("cpu"), published=stated)


def test_a_right_set_up_is_right():
    found = diagnose(model())
    assert found.right and found.top1 == 100 and found.images == 120 and found.causes == []
    assert found.low == pytest.approx(96.9, abs=0.1) and found.high == 100


def test_a_wrong_normalisation_is_named_with_the_right_one():
    found = diagnose(model(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
    assert found.right is False
    assert found.causes[0].startswith("normalisation: mean 0.5 and std 0.5 instead of 0.485/0.456/0.406 and 0.229/")


def test_swapped_channels_are_named():
    assert diagnose(model(change=lambda x: x.flip(1))).causes[0].startswith("channels: blue, green, red")


def test_pixels_that_should_go_up_to_255_are_named():
    assert diagnose(model(change=lambda x: (x + 1) / 255 - 1)).causes[0].startswith("pixels: 0 to 255")


def test_labels_counted_one_off_are_named():
    (cause,) = diagnose(model([*NAMES[1:], "none"]), MemoryDataset(*without_the_first())).causes
    assert cause == "label order: outputs are counted one off (100.0 % with -1)"


def without_the_first():
    images = data()
    rows = [i for i in range(len(images)) if images.labels[i] > 0]
    return torch.stack([images.read(i) for i in rows]), images.labels[rows] - 1, NAMES[1:]


def test_mixed_up_classes_are_told_from_unknown_ones():
    (cause,) = diagnose(model(sorted(NAMES))).causes
    assert cause.startswith("label order: the classes are mixed up (100.0 %")
    (cause,) = diagnose(model(change=lambda x: torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))).causes
    assert cause.startswith("none of the usual mistakes explains it")


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(
    ("key", "words"), [(str, "once as text"), (lambda i: f"name {7 * i % 30:02d}", "once by name")]
)
def test_classes_in_another_order_are_told_even_from_one_image_each(inverse, key, words):
    """With one image of each class there is nothing to vote on, but the usual orders can be tried."""
    names = [f"name {7 * i % 30:02d}" for i in range(30)]
    order = np.array(sorted(range(30), key=key))
    order = np.argsort(order) if inverse else order
    values = torch.linspace(0, 1, 30)

    class Brightness(nn.Module):
        def forward(self, x):
            return -(x.mean(dim=(1, 2, 3))[:, None] - values[order][None]).abs()

    network = ipvit.wrap(Brightness(), size=8, crop_pct=1.0, mean=(0,) * 3, std=(1,) * 3, classes=names)
    images = MemoryDataset(values[:, None, None, None].expand(30, 3, 8, 8).contiguous(), torch.arange(30), names)
    (cause,) = diagnose(network, images).causes
    assert words in cause and cause.endswith("(100.0 % in the other order)")


def test_an_order_that_changes_nothing_is_no_reason():
    """Class names are often sorted already: that they are is no mix-up, whatever else is wrong."""
    names, values = [f"name {i:02d}" for i in range(30)], torch.linspace(0, 1, 30)

    class OftenRight(nn.Module):
        def forward(self, x):
            seen = x.mean(dim=(1, 2, 3))[:, None]
            return -(torch.where(seen > 0.81, 0.0, seen) - values[None]).abs()

    network = ipvit.wrap(OftenRight(), size=8, crop_pct=1.0, mean=(0,) * 3, std=(1,) * 3, classes=names)
    found = diagnose(network, MemoryDataset(values[:, None, None, None].expand(30, 3, 8, 8), torch.arange(30), names))
    assert found.right is False and found.top1 == 80
    assert not any(cause.startswith("label order") for cause in found.causes)


def test_a_wrong_input_size_is_named_with_the_right_one():
    class Sized(nn.Module):
        def forward(self, x):
            right = NearestColour()(x)
            return right if x.shape[-1] == 224 else right.roll(1, dims=1) - 0.9 * right.roll(2, dims=1)

    network = ipvit.wrap(Sized(), size=96, crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3, classes=NAMES)
    assert diagnose(network).causes[0].startswith("input size: 224 pixels instead of 96: +")


def test_a_network_of_one_size_is_not_given_another():
    class Fixed(nn.Module):
        def forward(self, x):
            assert x.shape[-1] == 8, "positions are for one size"
            return NearestColour()(x.flip(1))

    network = ipvit.wrap(Fixed(), size=8, crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3, classes=NAMES)
    assert diagnose(network).causes[0].startswith("channels: blue, green, red")


def test_better_than_published_is_not_right_either():
    found = diagnose(model(), stated=Published(70.0, "", 0, "a test"))
    assert not found.right and "trained on" in found.causes[0]


def test_the_published_value_may_lie_anywhere_in_the_interval():
    few = data(2)
    assert diagnose(model(), few, Published(80.0, "", 0, "a test")).right, "12 of 12 right is compatible with 80 %"
    assert not diagnose(model(), data(), Published(90.0, "", 0, "a test")).right


def test_without_a_published_value_nothing_is_claimed():
    found = diagnose(model(), stated=None)
    assert found.right is None and found.top1 == 100


def test_published_values_are_those_of_the_very_weights():
    assert published("torchvision:resnet50?weights=IMAGENET1K_V1").top1 == 76.13
    assert published("torchvision:resnet50").top1 > 80
    assert published("paper:resnet50").top1 == 76.13 and published("paper:deit_small").top1 == 79.9
    for unknown in (
        "paper:resnet50@mine.pth",
        "deit_small_patch16_224@x.pth",
        "paper:dino_vits16",
        "a.py:b",
        "resnet50?num_classes=10",
        "vit_base_patch16_224?img_size=512",
        "hf-hub:somebody/resnet50.a1_in1k",
        "nothing_known",
    ):
        assert published(unknown) is None
    assert published("demo:deit_micro").images == 1000


def test_images_without_labels_cannot_be_measured():
    with pytest.raises(ipvit.InputError, match="has no class folders"):
        diagnose(model(), MemoryDataset(torch.zeros(2, 3, 8, 8)))


def test_the_command_line_says_what_is_there_and_asks_for_what_it_needs(capsys):
    assert main(["doctor", "demo:deit_micro", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["models"] == {"demo:deit_micro": None}
    assert found["versions"]["torch"] == torch.__version__.split("+")[0] or found["versions"]["torch"]
    assert {"cores", "threads", "disk_free", "shared_memory_free", "extras", "device"} <= set(found)
    assert main(["doctor", "--data", "demo:trifeature"]) == 2
    assert "which network?" in capsys.readouterr().err
    assert main(["doctor", "demo:deit_micro", "--data", "demo:trifeature", "--expect", "150"]) == 2


def test_a_network_that_is_not_right_is_told_of_by_the_exit_code(capsys):
    arguments = ["doctor", "demo:resnet_micro", "--data", "demo:trifeature", "--limit", "60", "--expect"]
    assert main([*arguments, "99"]) == 0
    assert main([*arguments, "20"]) == 1
    assert "published 20.0 % (--expect): not right" in capsys.readouterr().out


def test_a_network_without_a_classifier_loads_and_has_no_accuracy_to_measure(capsys):
    assert main(["doctor", "demo:dino_micro"]) == 0
    assert "demo:dino_micro: loads; it has no classifier" in capsys.readouterr().out
    assert main(["doctor", "demo:dino_micro", "--data", "demo:trifeature", "--expect", "90"]) == 2
    assert "demo:dino_micro loads; it has no classifier, so there is no accuracy" in capsys.readouterr().err


@pytest.mark.slow
def test_the_bundled_networks_have_their_recorded_accuracies(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "97.1 % top-1 on 1,000 images" in printed and "99.1 % top-1 on 1,000 images" in printed
    assert printed.count("): right") == len(demo_models()) - 1
    assert "demo:dino_micro: loads; it has no classifier" in printed


class Swapped(nn.Module):
    """A network that was trained on blue, green, red."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.flip(1))


SET_UPS = {
    "normalisation: mean 0.5 and std 0.5 instead of 0.485": {
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    },
    "input size: 224 pixels instead of 112": {"size": 112},
    "crop: 0.875 of the resized image instead of 0.4": {"crop_pct": 0.4},
    "channels: blue, green, red": {"wrap": Swapped},
    "label order: outputs are counted one off": {"order": lambda names: [*names[1:], names[0]]},
    "label order: outputs and class names are sorted once by number": {
        "order": lambda names: [names[i] for i in sorted(range(len(names)), key=str)]
    },
}


A_PART = {"normalisation": 2, "input size": 3, "crop": 3, "label order": 6}
"""What costs so much accuracy that every so many photos show it."""


@pytest.mark.slow
@pytest.mark.parametrize("what", SET_UPS)
def test_a_real_network_that_is_set_up_wrong_is_found_out(real, what):
    right, images = real_network(real)
    view, change = right.preprocessing.view, SET_UPS[what]
    if step := next((step for start, step in A_PART.items() if what.startswith(start)), 0):
        images = Subset(images, np.arange(0, len(images), step))
    wrong = ipvit.wrap(
        change.get("wrap", lambda network: network)(right.backbone),
        size=change.get("size", view.size),
        crop_pct=change.get("crop_pct", view.crop_pct),
        interpolation=view.interpolation,
        mean=change.get("mean", right.preprocessing.mean),
        std=change.get("std", right.preprocessing.std),
        classes=change.get("order", list)(list(right.classes)),
    )
    found = diagnose(wrong, images, Published(91.1, "", 0, "measured"))
    print(f"\n{found.top1:.1f} %: {found.causes}")
    assert found.right is False and found.causes[0].startswith(what)


@pytest.mark.slow
def test_a_real_network_that_is_set_up_right_is_called_right(real):
    network, images = real_network(real)
    found = diagnose(network, images, Published(91.1, "", 0, "measured"))
    assert found.right and found.causes == [] and found.top1 == pytest.approx(91.1, abs=0.05)


def real_network(real):
    name = f"tf_efficientnet_lite0@{real}/efficientnet_lite0.safetensors"
    return ipvit.load_model(name), ipvit.load_dataset(real / "imagenet-sample")
