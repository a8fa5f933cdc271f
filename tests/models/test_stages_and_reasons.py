"""Networks of stages: features are lost and read as a plain hook does it, and what a family lacks is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers.adapter_networks import close, make, small
from ipvit.errors import InputError
from ipvit.models.adapters import find_adapter, logits_of

STAGES = {
    "timm swin": lambda network: [*network.layers],
    "timm swin v2": lambda network: [*network.layers],
    "timm features: maxvit": lambda network: [*network.stages],
    "timm features: mobilevit": lambda network: [*network.stages],
    "timm features: mobilevit v2": lambda network: [*network.stages],
    "timm features: mambaout": lambda network: [*network.stages],
    "hf stages: swin": lambda network: [*network.swin.encoder.layers],
    "hf stages: swin v2": lambda network: [*network.swinv2.encoder.layers],
    "hf stages: convnext": lambda network: [*network.convnext.encoder.stages],
    "hf stages: convnext v2": lambda network: [*network.convnextv2.encoder.stages],
    "hf stages: resnet": lambda network: [*network.resnet.encoder.stages],
}


@pytest.mark.parametrize("name", STAGES)
def test_features_of_a_stage_are_lost_as_a_plain_hook_loses_them(name: str) -> None:
    adapter, images = make(name)
    network: Any = adapter.network
    stage = STAGES[name](network)[-1]
    block = max(number for number in range(adapter.n_blocks) if adapter.block_names[number] != "pool")
    state = adapter.run_to_block(images, block)
    keep = torch.rand(2, *state.grid) > 0.5
    lost = []

    def lose(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        features = args[0].clone()
        if features.ndim == 3:  # places in a row
            features[~keep.flatten(1)] = 0
        elif features.shape[1:3] == keep.shape[1:]:  # channels last
            features[~keep] = 0
        else:
            features.permute(0, 2, 3, 1)[~keep] = 0
        lost.append(features)
        return (features, *args[1:])

    with torch.no_grad():
        handle = stage.register_forward_pre_hook(lose)
        expected = logits_of(network(images))
        handle.remove()
        close(adapter.run_from_block(adapter.drop(state, keep)), expected)
        assert lost and not torch.allclose(expected, logits_of(network(images)), atol=1e-4)


@pytest.mark.parametrize("name", ["hf stages: swin", "hf stages: convnext", "hf stages: resnet"])
def test_tokens_of_hugging_faces_stages_are_its_own_hidden_states(name: str) -> None:
    adapter, images = make(name)
    last = adapter.n_blocks - 1
    with torch.no_grad():
        tokens = adapter.tokens(images, range(adapter.n_blocks), norm=False)
        own = adapter.network(images, output_hidden_states=True)
    states = getattr(own, "reshaped_hidden_states", None) or own.hidden_states
    for block in range(last):
        close(tokens[block].patches, states[block + 1].flatten(2).transpose(1, 2))
        assert tokens[block].grid == tuple(states[block + 1].shape[2:])


REASONS = [
    ("timm swin", "attention", "within windows"),
    ("timm swin v2", "token_removal", "windows cut a whole grid"),
    ("torchvision swin", "attention", "within windows"),
    ("hf stages: swin", "attention", "within windows"),
    ("timm features: maxvit", "attention", "within blocks and along a grid"),
    ("timm features: mobilevit", "attention", "between convolutions"),
    ("timm features: mambaout", "attention", "computes no attention"),
    ("timm hiera", "attention", "within mask units"),
    ("timm xcit", "token_removal", "convolution that needs the whole grid"),
    ("timm resnet", "token_removal", "convolutions run over a whole map"),
    ("hf stages: convnext", "attention", "computes no attention"),
    ("timm tnt, legacy", "token_removal", "see neighbouring pixels"),
    ("any module", "tokens", "ipvit has no adapter"),
]


@pytest.mark.parametrize(("name", "capability", "words"), REASONS)
def test_what_a_family_lacks_is_said_in_one_sentence(name: str, capability: str, words: str) -> None:
    adapter, images = make(name)
    assert words in adapter.lacking(capability) and "\n" not in adapter.lacking(capability)
    ask = {
        "attention": lambda: adapter.attention(images, [0]),
        "token_removal": lambda: adapter.token_removal(images, torch.ones(2, 4, 4, dtype=torch.bool)),
        "tokens": lambda: adapter.tokens(images, [0], norm=False),
    }
    with pytest.raises(InputError, match=f"does not offer '{capability}': .*{words}"):
        ask[capability]()


@pytest.mark.parametrize(
    ("name", "kwargs", "capability", "words"),
    [
        ("efficientvim_m1", {}, "feature_drop", "a classifier of its own"),
        ("crossvit_tiny_240", {}, "feature_drop", "branches look at the image side by side"),
        ("pit_ti_224", {}, "feature_drop", "sequences of tokens"),
    ],
)
def test_networks_of_which_no_stage_can_lose_features_say_why(
    name: str, kwargs: dict[str, Any], capability: str, words: str
) -> None:
    adapter = find_adapter(small(name, **kwargs).eval())
    assert capability not in adapter.capabilities and words in adapter.lacking(capability)
    with pytest.raises(InputError, match=words):
        adapter.run_to_block(torch.randn(1, 3, 224, 224), 0)
