"""``check_adapter``: does an adapter say what is inside a network, and leave the network as it found it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ipvit.errors import error_line
from ipvit.models.adapters import Adapter, BlockTokens, FeatureState, logits_of
from ipvit.models.capabilities import CAPABILITIES
from ipvit.models.model import Model
from ipvit.testing.contract import (
    NetworkState,
    close,
    no_error,
    randomness_untouched,
    require_refusal,
    seeded,
)
from ipvit.testing.intervention import check_feature_drop, check_token_removal
from ipvit.testing.network import Network
from ipvit.testing.reading import check_attention, check_head, check_token_heads, check_tokens


def check_adapter(adapter: Adapter | Model, images: Tensor | None = None) -> None:
    """Hold an adapter to what :class:`ipvit.models.adapters.Adapter` promises for the capabilities that it claims.

    All of it is compared with the plain network: the tokens of the last block through the network's own head, stopping
    before a block and going on, dropping or removing nothing and something, attention maps. What is not claimed must
    be refused. Afterwards the network must be as it was: modes, hooks, weights, answers, also where a pass failed.

    Args:
        adapter: of a network in evaluation mode, or a model, whose adapter is then meant.
        images: ``(B, 3, H, W)``, two or more and different: as the network takes them for an adapter, in [0, 1] for a
            model. By default random ones of the model's input size; an adapter does not know that size.

    Raises:
        ContractError: a promise is not kept; the message says which.
        ValueError: there are no images for an adapter, or fewer than two.
    """
    with seeded(0):
        network = _network(adapter, images)
        found = NetworkState(network.adapter.network)
        with torch.no_grad():
            _check_statements(network)
            _check_plain(network)
            _check_left_as_found(network, found)
        _check_gradients(network)
        with torch.no_grad():
            for capability, checks in _CHECKS.items():
                if capability in network.adapter.capabilities:
                    for check in checks:
                        with no_error(f"{network.name}, asked for {capability!r},"):
                            check(network)
                else:
                    _check_refused(network, capability)
            found.require_unchanged(network.name)
            _check_left_as_found_after_failure(network, found)


_CHECKS: dict[str, tuple[Callable[[Network], None], ...]] = {
    "tokens": (check_tokens, check_head),
    "attention": (check_attention,),
    "feature_drop": (check_feature_drop,),
    "token_removal": (check_token_removal,),
    "token_heads": (check_token_heads,),
}


def _network(adapter: Adapter | Model, images: Tensor | None) -> Network:
    if isinstance(adapter, Model):
        if images is None:
            images = torch.rand(2, 3, *adapter.image_size)
        with torch.no_grad():
            images = adapter.normalize(images.to(adapter.device))
        adapter = adapter.adapter
    if images is None:
        raise ValueError("an adapter does not know the size of its images: give images (B, 3, H, W), or the model")
    if len(images) < 2:
        raise ValueError("two images or more are needed, to tell what belongs to which")
    name = type(adapter).__name__
    with torch.no_grad(), no_error(f"{name}: a plain pass of {type(adapter.network).__name__}"):
        plain = logits_of(adapter.network(images))
    return Network(adapter, images, plain, name)


def _check_statements(network: Network) -> None:
    adapter = network.adapter
    unknown = sorted(adapter.capabilities - CAPABILITIES)
    network.require(
        not unknown, f"claims {', '.join(unknown)}; the capabilities that there are: {', '.join(sorted(CAPABILITIES))}"
    )
    names = adapter.block_names
    network.require(len(set(names)) == len(names), f"block_names has a name twice: {', '.join(names)}")
    network.require(
        adapter.n_blocks == len(names), f"n_blocks is {adapter.n_blocks} and block_names has {len(names)} names"
    )
    inside = adapter.capabilities & {"tokens", "attention", "feature_drop"}
    network.require(
        adapter.n_blocks or not inside, f"claims {', '.join(sorted(inside))} and has no blocks; set block_names"
    )
    training = [name for name, module in adapter.network.named_modules() if module.training]
    network.require(not training, "is of a network in training mode; call eval() on the network first")


def _check_plain(network: Network) -> None:
    plain = network.plain
    network.require(
        plain.ndim == 2 and len(plain) == len(network.images),
        f"is of a network that returns {tuple(plain.shape)}; it must return logits (B, classes)",
    )
    network.require(
        network.same(network.forward()), "is of a network that gives other logits for the same images the second time"
    )
    network.require(
        not torch.equal(plain[0], plain[1]),
        "is of a network that says the same of two images; nothing could be told from that, give other images",
    )


def _check_gradients(network: Network) -> None:
    if "gradients" not in network.adapter.capabilities:
        return
    images = network.images.clone().requires_grad_()
    with no_error(f"{network.name}: taking gradients with respect to the images"), torch.enable_grad():
        (gradient,) = torch.autograd.grad(logits_of(network.adapter.network(images)).square().sum(), images)
    network.require(
        (gradient != 0).flatten(1).any(dim=1).all(),
        "claims 'gradients', and the gradient of the logits is zero on a whole image",
    )


def _check_refused(network: Network, capability: str) -> None:
    doing = f"{network.name} does not claim {capability!r}, but asking for it"
    require_refusal(lambda: _asked(network, capability), doing)


def _asked(network: Network, capability: str) -> object:
    adapter, images = network.adapter, network.images
    if capability == "tokens":
        return adapter.tokens(images, [0], True)
    if capability == "attention":
        return adapter.attention(images, [network.last])
    if capability == "feature_drop":
        return adapter.run_to_block(images, 0)
    if capability == "token_removal":
        return adapter.token_removal(images, torch.ones(len(images), 1, 1, dtype=torch.bool))
    return adapter.logits_by_token(images)


def _uses(network: Network) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield everything that the adapter can be asked to do."""
    adapter, images = network.adapter, network.images
    everywhere = range(adapter.n_blocks)
    if "tokens" in adapter.capabilities:
        yield "tokens", lambda: adapter.tokens(images, everywhere, True)
    if "attention" in adapter.capabilities:
        yield "attention", lambda: adapter.attention(images, adapter.attention_blocks)
        if adapter.prefix_tokens:
            yield "prefix_attention", lambda: adapter.prefix_attention(images, adapter.attention_blocks[-1])
    if "feature_drop" in adapter.capabilities:
        yield "run_to_block", lambda: adapter.run_to_block(images, network.last)
        yield "run_to_blocks", lambda: adapter.run_to_blocks(images, everywhere)
        state = adapter.run_to_block(images, min(1, network.last))
        keep = torch.ones(1, *state.grid, dtype=torch.bool)
        yield "drop", lambda: adapter.drop(state, keep)
        yield "run_from_block", lambda: adapter.run_from_block(state)
    if "token_removal" in adapter.capabilities:
        yield "token_removal", lambda: adapter.token_removal(images, network.everything())
    if "token_heads" in adapter.capabilities:
        yield "logits_by_token", lambda: adapter.logits_by_token(images)


def _check_left_as_found(network: Network, found: NetworkState) -> None:
    """Using the adapter changes nothing, draws nothing at random, and says the same twice."""
    images = network.images.clone()
    for name, use in _uses(network):
        doing = f"{network.name}.{name}"
        with no_error(doing), randomness_untouched(doing):
            one, other = list(_tensors(use())), list(_tensors(use()))
        found.require_unchanged(doing)
        network.require(torch.equal(network.images, images), f"{name} changes the images; it must work on a copy")
        network.require(network.same(network.forward()), f"{name} leaves a network behind that gives other logits")
        alike = len(one) == len(other) and all(close(a, b) for a, b in zip(one, other, strict=True))
        network.require(alike, f"{name} returns something else when it is called twice")


def _check_left_as_found_after_failure(network: Network, found: NetworkState) -> None:
    """A pass that fails in the middle, for want of memory, leaves the network as it was, and the error passes."""
    module = _in_the_middle(network)
    for name, use in list(_uses(network)):
        reached: list[nn.Module] = []

        def fail(module: nn.Module, _: object, reached: list[nn.Module] = reached) -> None:
            reached.append(module)
            raise MemoryError("a failure that the check provokes")

        handle = module.register_forward_pre_hook(fail)
        try:
            use()
            raised = None
        except Exception as error:  # noqa: BLE001 - anything may come out of somebody's adapter
            raised = error
        finally:
            handle.remove()
        network.require(raised or not reached, f"{name} returns something where the network raises a MemoryError")
        network.require(
            raised is None or isinstance(raised, MemoryError),
            f"{name} raises {error_line(raised, named=True)} where the network raises a MemoryError; let errors pass",
        )
        found.require_unchanged(f"{network.name}.{name}, when a pass fails,")
        network.require(network.same(network.forward()), f"{name} leaves another network behind when it fails")


def _in_the_middle(network: Network) -> nn.Module:
    """Return a module that is called when three quarters of a pass are done."""
    called: list[nn.Module] = []
    leaves = [module for module in network.adapter.network.modules() if not list(module.children())]
    handles = [leaf.register_forward_pre_hook(lambda module, _: called.append(module)) for leaf in leaves]
    network.forward()
    for handle in handles:
        handle.remove()
    return called[len(called) * 3 // 4]


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in what an adapter returned."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, BlockTokens):
        yield from (*value.prefix_tokens.values(), value.patches, value.pooled)
    elif isinstance(value, FeatureState):
        yield from _tensors(value.block_input.args)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
