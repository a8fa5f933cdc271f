"""What our adapters offer beyond the contract that ``ipvit.testing.check_adapter`` holds every adapter to."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import ipvit
from helpers.adapter_networks import FACTORIES, close, make, make_all_with, vit
from ipvit.errors import InputError
from ipvit.models import adapters as package
from ipvit.models.adapters import CAPABILITIES, Adapter, find_adapter, logits_of
from ipvit.models.adapters.base import checked_attention
from ipvit.models.adapters.staged import StagedAdapter
from ipvit.models.adapters.transformer import TransformerAdapter


def logits(adapter: Adapter, images: Tensor) -> Tensor:
    return logits_of(adapter.network(images))


@pytest.mark.parametrize("name", FACTORIES)
def test_a_network_claims_what_its_family_is_known_to_offer(name: str) -> None:
    adapter, _ = make(name)
    assert adapter.capabilities == {known for known in CAPABILITIES if name in make_all_with(known)}
    assert adapter.n_blocks == len(adapter.block_names) == len(set(adapter.block_names))


@pytest.mark.parametrize("name", make_all_with("gradients"))
def test_gradients_reach_the_images(name: str) -> None:
    adapter, images = make(name)
    images.requires_grad_()
    logits(adapter, images).square().sum().backward()
    assert images.grad is not None and (images.grad != 0).float().mean() > 0.1


def test_a_network_that_pools_logits_has_no_head_for_features() -> None:
    adapter, images = make("torchvision squeezenet")
    with torch.no_grad():
        tokens = adapter.tokens(images, [adapter.n_blocks - 1], norm=True)[adapter.n_blocks - 1]
    close(tokens.vector("mean_patch"), tokens.patches.mean(dim=1))
    with pytest.raises(InputError, match="no head of SqueezeNet"):
        adapter.classify(tokens.vector("pooled"), "pooled")


@pytest.mark.parametrize("name", make_all_with("attention"))
def test_our_families_tell_their_heads_without_a_pass(name: str) -> None:
    adapter, _ = make(name)
    assert [adapter.n_heads(block) for block in range(adapter.n_blocks)] == [3] * adapter.n_blocks


@pytest.mark.parametrize("name", [name for name in make_all_with("tokens") if name.startswith("timm")])
def test_the_pooled_vector_is_timms_pre_logits(name: str) -> None:
    adapter, images = make(name)
    last = adapter.n_blocks - 1
    with torch.no_grad():
        pooled = adapter.tokens(images, [last], norm=True)[last].pooled
        close(pooled, adapter.network.forward_head(adapter.network.forward_features(images), pre_logits=True))


@pytest.mark.parametrize("name", make_all_with("feature_drop"))
def test_what_leaves_a_block_is_what_enters_the_next(name: str) -> None:
    adapter, images = make(name)
    with torch.no_grad():
        tokens = adapter.tokens(images, range(adapter.n_blocks), norm=False)
        for block in range(1, adapter.n_blocks):
            before, state = tokens[block - 1], adapter.run_to_block(images, block)
            entering = state.block_input.args[getattr(adapter, "token_argument", 0)]
            pooled = adapter.block_names[block] == "pool"
            if name == "timm hiera" and entering.dim() == 3:  # in another order than that of the image
                assert entering.shape[1:] == before.patches.shape[1:] and state.grid == before.grid
                close(entering.sum(dim=1), before.patches.sum(dim=1))
            elif entering.dim() == 3 and not (pooled and name.startswith("hf stages")):
                prefix = entering.shape[1] - before.patches.shape[1]
                close(entering[:, prefix:], before.patches)
                if prefix == len(before.prefix_tokens):  # a class token may join here
                    close(
                        entering[:, :prefix],
                        torch.stack([*before.prefix_tokens.values()], 1) if prefix else entering[:, :0],
                    )
                assert state.grid == before.grid
            elif adapter.block_names[block] != "pool":
                assert entering.flatten(1).shape[1] == before.patches.flatten(1).shape[1]
                close(entering.sum(), before.patches.sum())


@pytest.mark.parametrize("name", ["timm vit", "timm tnt", "torchvision vit", "timm resnet", "timm swin"])
def test_resuming_does_not_compute_the_earlier_blocks_again(name: str) -> None:
    adapter, images = make(name)
    blocks = adapter.blocks if isinstance(adapter, TransformerAdapter) else earliest(adapter)
    computed: list[nn.Module] = []
    for part in blocks[0].modules():
        if part is not blocks[0]:
            part.register_forward_hook(lambda module, *_: computed.append(module))
    with torch.no_grad():
        state = adapter.run_to_block(images, 1)
        assert computed
        computed.clear()
        adapter.run_from_block(state)
    assert not computed


def test_a_stage_that_works_in_place_does_not_use_up_the_state() -> None:
    adapter, images = make("timm resnet")
    adapter.network.layer2 = nn.Sequential(nn.ReLU(inplace=True), adapter.network.layer2)
    adapter.network.layer1 = nn.Sequential(adapter.network.layer1, nn.BatchNorm2d(8).eval())  # negative values too
    adapter = find_adapter(adapter.network)
    with torch.no_grad():
        adapter.network.layer1[1].bias.fill_(-1.0)
        state = adapter.run_to_block(images, 1)
        before = state.block_input.args[0].clone()
        adapter.run_from_block(state)
        assert (before < 0).any() and torch.equal(state.block_input.args[0], before)


@pytest.mark.parametrize("name", make_all_with("feature_drop"))
def test_without_any_place_nothing_of_the_image_is_left(name: str) -> None:
    adapter, images = make(name)
    blocks = [0] if adapter.prefix_tokens else range(adapter.n_blocks)
    with torch.no_grad():
        for block in blocks:
            state = adapter.run_to_block(images, block)
            bare = adapter.run_from_block(adapter.drop(state, torch.zeros(1, *state.grid, dtype=torch.bool)))
            close(bare[0], bare[1])


def earliest(adapter: Adapter) -> tuple[nn.Module, ...]:
    """The modules of the first stage."""
    assert isinstance(adapter, StagedAdapter)
    return adapter.chain.stages[0].modules


def test_an_attention_map_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="do not sum to one"):
        checked_attention({3: torch.full((1, 2, 4, 4), 0.3)})
    with pytest.raises(InputError, match="not an attention map"):
        checked_attention({3: torch.empty(0, 2, 4, 4)})
    with pytest.raises(InputError, match="not an attention map"):
        checked_attention({3: torch.full((2, 4, 4), 0.25)})


def test_one_image_without_finite_attention_does_not_spoil_the_others() -> None:
    maps = torch.full((2, 1, 4, 4), 0.25)
    maps[1] = float("nan")
    checked = checked_attention({3: maps})[3]
    assert checked[0].isfinite().all() and checked[1].isnan().all()
    with pytest.raises(InputError, match="do not sum to one"):
        checked_attention({3: maps * 1.2})


def test_wrong_blocks_masks_and_tokens_are_refused_in_one_line() -> None:
    adapter, images = make("timm vit")
    with pytest.raises(InputError, match="blocks 0 to 2; asked for \\[3\\]"):
        adapter.tokens(images, [0, 3], norm=True)
    state = adapter.run_to_block(images, 1)
    with pytest.raises(InputError, match="must be bool of shape \\(2, 4, 4\\)"):
        adapter.drop(state, torch.ones(2, 4, 5, dtype=torch.bool))
    with pytest.raises(InputError, match="must be bool"):
        adapter.drop(state, torch.ones(2, 4, 4))
    with pytest.raises(InputError, match="cannot be resumed at block 2"):
        adapter.run_from_block(state, 2)
    uneven = torch.ones(2, 4, 4, dtype=torch.bool)
    uneven[0, 0, 0] = False
    with pytest.raises(InputError, match="same number of patches"):
        adapter.token_removal(images, uneven)
    with pytest.raises(InputError, match="no token 'shape'; it has class, mean_patch, pooled"):
        adapter.tokens(images, [0], norm=True)[0].vector("shape")


def test_a_mask_of_tokens_may_lie_on_the_processor() -> None:
    adapter, images = make("timm vit")
    there = images.to("meta")
    adapter.network.to("meta")
    keep = (torch.arange(16) % 3 > 0).reshape(1, 4, 4).expand(2, 4, 4)
    assert adapter.token_removal(there, keep).device.type == "meta"


def test_a_model_without_a_capability_says_so_by_name() -> None:
    adapter, _ = make("timm resnet")
    model = ipvit.wrap(adapter.network, size=64, name="my-resnet")
    assert {"tokens", "feature_drop"} < model.capabilities
    with pytest.raises(
        InputError,
        match=r"'my-resnet' does not offer 'attention' \(it computes no.*\); it offers feature_drop, gradients",
    ):
        model.attention(torch.rand(1, 3, 64, 64), [0])
    with pytest.raises(InputError, match="ResNet does not offer 'attention'"):
        adapter.attention(torch.rand(1, 3, 64, 64), [0])


def test_a_model_takes_images_in_0_1_and_normalises_them() -> None:
    adapter, _ = make("timm vit, distilled")
    model = ipvit.wrap(adapter.network, size=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    images = torch.rand(2, 3, 32, 32)
    normalised = (images - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    with torch.no_grad():
        close(model.tokens(images)[2].pooled, adapter.tokens(normalised, [2], norm=True)[2].pooled)
        close(model.attention(images, [1])[1], adapter.attention(normalised, [1])[1])
        keep = torch.rand(2, 4, 4) > 0.4
        state = model.run_to_block(images, 1)
        close(
            model.run_from_block(model.drop(state, keep), 1),
            adapter.run_from_block(adapter.drop(adapter.run_to_block(normalised, 1), keep)),
        )
        kept = torch.arange(16).reshape(1, 4, 4).expand(2, 4, 4) < 5
        close(model.without_patches(images, kept), adapter.token_removal(normalised, kept))
        close(model.logits_by_token(images)["mean"], model(images))
    assert model.adapter is model.adapter


def test_a_second_token_that_was_taught_shape_is_called_shape() -> None:
    adapter, _ = make("timm vit, distilled")
    model = ipvit.wrap(adapter.network, size=32)
    model.distillation_token = "shape"
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        tokens = model.tokens(images, [2])[2]
        assert model.adapter.prefix_tokens == ("class", "shape")
        assert list(model.logits_by_token(images)) == ["class", "shape", "mean"]
        close(tokens.vector("shape"), tokens.vector("distillation"))
        close(model.classify(tokens.vector("shape"), "shape"), model.logits_by_token(images)["shape"])


@pytest.mark.slow
def test_a_compiled_model_is_read_through_its_original() -> None:
    adapter, images = make("timm vit")
    model = ipvit.wrap(adapter.network, size=32)
    model.backbone = torch.compile(adapter.network)
    assert model.adapter.network is adapter.network
    model.attention(images, [0])


def test_another_backbone_in_the_same_model_gets_another_adapter() -> None:
    first, _ = make("timm vit")
    second, _ = make("timm resnet")
    model = ipvit.wrap(first.network, size=32)
    assert "attention" in model.capabilities
    model.backbone = second.network
    assert "attention" not in model.capabilities


def test_a_network_without_classifier_offers_no_logits() -> None:
    headless = find_adapter(type(vit())(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3, num_classes=0))
    assert "logits" not in headless.capabilities and "tokens" in headless.capabilities


@pytest.mark.parametrize("kind", ["ResNet", "RegNet", "ConvNext"])
def test_hugging_faces_stages_without_classifier_offer_no_logits(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_sizes": [8, 12], "depths": [1, 1]} | ({"num_stages": 2} if kind == "ConvNext" else {})
    sizes |= {} if kind == "ConvNext" else {"embedding_size": 8}
    sizes |= {"groups_width": 4} if kind == "RegNet" else {}
    network = getattr(transformers, f"{kind}ForImageClassification")
    config = getattr(transformers, f"{kind}Config")
    headless, whole = (find_adapter(network(config(**sizes, num_labels=count)).eval()) for count in (0, 3))
    assert "logits" not in headless.capabilities and "tokens" in headless.capabilities
    assert "logits" in whole.capabilities
    assert (headless.head_kinds, whole.head_kinds) == ((), ("pooled",))


def test_the_difference_of_two_softmaxes_is_no_attention_map() -> None:
    """Its weights may be negative: neither of the two softmaxes is what the block attends by."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
    adapter = find_adapter(type(vit())(**sizes, attn_layer="diff").eval())
    assert "attention" not in adapter.capabilities and "tokens" in adapter.capabilities
    with pytest.raises(InputError, match="do not compute attention as a softmax"):
        adapter.attention(torch.rand(1, 3, 32, 32), [0])


def test_a_subclass_is_read_like_its_base_and_unknown_networks_offer_logits_only() -> None:
    class Mine(type(vit())):
        pass

    mine = Mine(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3)
    assert type(find_adapter(mine)) is type(find_adapter(vit()))
    assert type(find_adapter(nn.Flatten())) is Adapter


class Entry:
    """An installed package's entry point."""

    name, value = "theirs", "their.package:Theirs"

    def __init__(self, loaded: object) -> None:
        self.loaded = loaded

    def load(self) -> object:
        return self.loaded


@pytest.fixture
def looked_up_anew() -> Iterator[None]:
    """What is installed is looked up once in a process."""
    package._registered.cache_clear()
    yield
    package._registered.cache_clear()


@pytest.mark.usefixtures("looked_up_anew")
def test_an_installed_adapter_goes_before_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Theirs(Adapter):
        handles = ("timm.models.vision_transformer.VisionTransformer",)

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Entry(Theirs)] if "models" in group else [])
    assert type(find_adapter(vit())) is Theirs
    package._registered.cache_clear()
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Entry(dict)])
    with pytest.raises(InputError, match="is no subclass of ipvit's Adapter"):
        find_adapter(vit())


def test_every_class_is_handled_by_one_of_our_adapters_only() -> None:
    handled = [name for adapter in package.adapters() for name in adapter.handles]
    assert len(handled) == len(set(handled)) > 20
