"""Networks of which only timm's feature levels are known: read rightly, or refused with a reason."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import ipvit
from ipvit.models.adapters.timm.features import TimmFeatures


class Levels(nn.Module):
    """Two levels of 4 channels on a grid of 4 x 4 places, as timm describes them."""

    num_classes = 5
    feature_info = (
        {"module": "one", "num_chs": 4, "reduction": 8},
        {"module": "two", "num_chs": 4, "reduction": 8},
    )

    def __init__(self, beside: bool = False, channels_last: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = ChannelsLast() if channels_last else nn.Conv2d(3, 4, 8, 8)
        self.two = nn.Linear(4, 4) if channels_last else nn.Conv2d(4, 4, 1)
        self.beside = nn.Conv2d(3, 4, 8, 8) if beside else None
        self.channels_last = channels_last
        self.head = nn.Linear(4, 5)

    def get_classifier(self) -> nn.Module:
        return self.head

    def levels(self, images: Tensor) -> list[Tensor]:
        one = self.one(images)
        two = self.two(one.relu())
        if self.beside is not None:
            two = two + self.beside(images)
        return [one, two]

    def forward_intermediates(self, images: Tensor, indices: list[int], **asked: Any) -> Any:
        maps = [level.permute(0, 3, 1, 2) if self.channels_last else level for level in self.levels(images)]
        found = [maps[index] for index in indices]
        return found if asked.get("intermediates_only") else (maps[-1], found)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        vector = features.mean(dim=(2, 3))
        return vector if pre_logits else self.head(vector)

    def forward(self, images: Tensor) -> Tensor:
        last = self.levels(images)[-1]
        return self.head(last.mean(dim=(1, 2) if self.channels_last else (2, 3)))


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).permute(0, 2, 3, 1)


def test_a_level_on_one_branch_of_two_is_refused_and_one_that_all_goes_through_is_not() -> None:
    whole, branched = ipvit.wrap(Levels(), size=32), ipvit.wrap(Levels(beside=True), size=32, name="branched")
    assert isinstance(branched.adapter, TimmFeatures) and whole.can("feature_drop")
    assert branched.why_not("feature_drop") == "two pictures are still told apart without any feature that enters two"
    assert branched.can("tokens")


def test_as_many_channels_as_places_on_a_side_are_told_apart_from_them() -> None:
    for channels_last in (False, True):
        network = Levels(channels_last=channels_last).eval()
        model = ipvit.wrap(network, size=32, mean=(0, 0, 0), std=(1, 1, 1))
        images = torch.rand(2, 3, 32, 32)
        keep = torch.tensor([[r * 4 + c in (1, 6, 8, 15) for c in range(4)] for r in range(4)])
        with torch.no_grad():
            one = network.one(images)
            less = one * (keep[None, :, :, None] if channels_last else keep[None, None])
            two = network.two(less.relu())
            expected = network.head(two.mean(dim=(1, 2) if channels_last else (2, 3)))
            state = model.run_to_block(images, 1)
            found = model.run_from_block(model.drop(state, keep[None].expand(2, -1, -1)))
        torch.testing.assert_close(found, expected)


def test_a_network_of_no_known_family_says_what_is_missing() -> None:
    model = ipvit.wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5)), size=8)
    assert model.capabilities == {"logits", "gradients"}
    for capability in ("tokens", "attention", "feature_drop", "token_removal"):
        assert "ipvit has no adapter" in model.why_not(capability)
