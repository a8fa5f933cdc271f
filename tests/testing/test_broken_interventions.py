"""An adapter that changes something wrong inside a network, or leaves a trace of it, is caught."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from helpers.broken_adapters import DISTILLED, RESNET, VIT, answering, broken, changed, own, with_methods
from ipvit.testing import ContractError, check_adapter

# --- dropping features -----------------------------------------------------------------------------------------------


def fewer_states(self, found, images, blocks):
    return found if len(blocks) == 1 else {}


def first_state(self, found, images, blocks):
    return found if len(blocks) == 1 else dict.fromkeys(found, found[0])


def of_block_0(self, found, *_):
    return dataclasses.replace(found, block=0)


def from_images(self, state, block=None):
    """Compute everything anew, from the images that the state has kept."""
    return self.network(state.images)


def used_up(self, found, state, *_):
    state.block_input.args[0].zero_()
    return found


def used_up_at_first(self, found, state, *_):
    return used_up(self, found, state) if state.block == 0 else found


def at_any_block(self, state, block=None):
    return own(self, "run_from_block")(state)


def clamped(self, images, block):
    return own(self, "run_to_block")(images, max(0, min(block, 2)))


class Resumed:
    """Goes on from the images instead of the state, but for :meth:`run_from_block`."""

    def resumed(self, state):
        return own(self, "resumed")(state) if self.inside else own(self, "resumed")(dataclasses.replace(state, block=0))

    inside = False

    def run_from_block(self, state, block=None):
        self.inside = True
        try:
            return own(self, "run_from_block")(state, block)
        finally:
            self.inside = False


RESUMING = [
    (VIT, changed("run_to_blocks", fewer_states), r"run_to_blocks of \[0, 1, 2\] returns states of \[\]"),
    (VIT, changed("run_to_block", of_block_0), r"run_to_block\(1\) returns the state of block 0"),
    (
        VIT,
        changed("run_from_block", lambda self, found, *_: found + 1),
        "gives other logits than the plain network, from",
    ),
    (VIT, {"run_from_block": from_images}, "run_from_block still looks at the images from block 0 on"),
    (RESNET, changed("run_from_block", used_up), "run_from_block returns something else when it is called twice"),
    (RESNET, changed("run_from_block", used_up_at_first), "run_from_block uses up the state of block 0: a second time"),
    (VIT, changed("run_to_blocks", first_state), "run_to_blocks gives another state of block 1 than when it is asked"),
    (VIT, {"run_from_block": at_any_block}, "run_from_block of a state of block 0 at block 1 returns something"),
    (VIT, dict(vars(Resumed)), "resumed before block 1, the last block has other tokens than in a plain pass"),
    (VIT, {"run_to_block": clamped}, r"Broken.run_to_block\(3\) returns something"),
]


@pytest.mark.parametrize(("name", "methods", "words"), RESUMING, ids=[words for *_, words in RESUMING])
def test_stopping_and_going_on(name, methods, words):
    methods = {key: method for key, method in methods.items() if key not in ("__dict__", "__weakref__")}
    broken(name, words, **methods)


def the_other_way_round(self, state, keep):
    return own(self, "drop")(state, ~keep)


def in_place(self, found, state, keep):
    state.block_input.args[0].copy_(found.block_input.args[0])
    return found


def flat_masks_only(self, state, keep):
    return own(self, "drop")(state, ~keep if keep.ndim == 3 and not keep.all() else keep)


def one_mask_for_all(self, state, keep):
    return own(self, "drop")(state, keep[:1])


def nothing(self, state, keep):
    return own(self, "drop")(state, torch.ones_like(keep))


def any_mask(self, state, keep):
    return state if keep.shape[-1] == 5 else own(self, "drop")(state, keep)


def half_of_the_channels(self, found, state, keep):
    kept = state.block_input.args[0].clone()
    kept[..., : kept.shape[-1] // 2] = found.block_input.args[0][..., : kept.shape[-1] // 2]
    return dataclasses.replace(found, block_input=dataclasses.replace(found.block_input, args=(kept,)))


DROPPING = [
    (VIT, {"drop": the_other_way_round}, "drop before block 0 changes the logits although every place is kept"),
    (VIT, changed("drop", in_place), "drop before block 0 changes the state it is given"),
    (VIT, {"drop": flat_masks_only}, r"drop before block 0 takes a mask \(1, rows, columns\) for another"),
    (VIT, {"drop": one_mask_for_all}, "drop before block 0 mixes the masks of the images up"),
    (RESNET, {"drop": nothing}, "drop before block 0 of every other place changes nothing"),
    (VIT, {"drop": any_mask}, r"Broken.drop with a mask \(2, 4, 5\) torch.bool returns something"),
    (VIT, changed("drop", half_of_the_channels), "drop of all places before the first block still tells two images"),
]


@pytest.mark.parametrize(("name", "methods", "words"), DROPPING, ids=[words for *_, words in DROPPING])
def test_dropping_features(name, methods, words):
    broken(name, words, **methods)


# --- removing patches ------------------------------------------------------------------------------------------------


def transposed(self, images, keep):
    return own(self, "token_removal")(images, keep.transpose(1, 2))


def same_for_all(self, images, keep):
    return own(self, "token_removal")(images, keep[:1].expand(len(keep), -1, -1))


def none_removed(self, images, keep):
    return self.network(images)


REMOVING = [
    (changed("token_removal", lambda self, found, *_: found + 1), "changes the logits although every patch is kept"),
    ({"token_removal": none_removed}, "token_removal of every other patch changes nothing"),
    ({"token_removal": transposed}, "token_removal still sees the pixels of patches that are removed"),
    ({"token_removal": same_for_all}, "token_removal mixes the masks of the images up"),
    (answering("token_removal", 0), "token_removal of another number of patches in each image returns something"),
]


@pytest.mark.parametrize(("methods", "words"), REMOVING, ids=[words for _, words in REMOVING])
def test_removing_patches(methods, words):
    broken(VIT, words, **methods)


# --- the network afterwards ------------------------------------------------------------------------------------------


def leaving(what: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a method that leaves something behind."""

    def after(self, found, *_):
        what(self.network)
        return found

    return changed("logits_by_token", after)


def careless(self, images):
    handle = self.network.head.register_forward_hook(lambda *_: None)
    found = own(self, "logits_by_token")(images)
    handle.remove()
    return found


def of_another_kind(self, images):
    try:
        return own(self, "logits_by_token")(images)
    except MemoryError as error:
        raise ValueError("no memory") from error


def swallowing(self, images):
    try:
        return own(self, "logits_by_token")(images)
    except MemoryError:
        return {}


def hooked(self, found, *_):
    self.network.head.register_forward_hook(lambda *_: None)
    return found


def brighter(self, found, images):
    images += 1e-6
    return found


AFTERWARDS = [
    (leaving(lambda net: net.head.register_forward_hook(lambda *_: None)), "leaves a forward hook on head"),
    (leaving(lambda net: net.head.register_forward_pre_hook(lambda *_: None)), "leaves a forward pre-hook on head"),
    (leaving(lambda net: net.train()), r"leaves another mode \(training or evaluation\) on the network"),
    (leaving(lambda net: setattr(net.head, "forward", net.head.forward)), "leaves a replaced forward method on head"),
    (leaving(lambda net: setattr(net, "pos_drop", nn.Identity().eval())), "leaves another module on pos_drop"),
    (leaving(lambda net: net.head.weight.data.add_(1)), "changes the weight head.weight"),
    (leaving(lambda net: net.head.weight.requires_grad_(False)), "changes requires_grad of the weight head.weight"),
    (
        leaving(lambda net: setattr(net.blocks[0].attn, "fused_attn", None)),
        "leaves another fused_attn on blocks.0.attn",
    ),
    (leaving(lambda net: torch.rand(1)), "logits_by_token changes the global random state of torch"),
    (changed("classify", hooked), "^Broken leaves a forward hook on head; it must be as it was found"),
    (changed("logits_by_token", brighter), "logits_by_token changes the images; it must work on a copy"),
    ({"logits_by_token": careless}, "Broken.logits_by_token, when a pass fails, leaves a forward hook on head"),
    ({"logits_by_token": swallowing}, "logits_by_token returns something where the network raises a MemoryError"),
    ({"logits_by_token": of_another_kind}, "raises ValueError: no memory where the network raises a MemoryError"),
]


@pytest.mark.parametrize(("methods", "words"), AFTERWARDS, ids=[words for _, words in AFTERWARDS])
def test_what_is_left(methods, words):
    broken(DISTILLED, words, **methods)


def test_the_same_is_said_twice():
    calls: list[int] = []

    def other(self, found, *_):
        calls.append(1)
        return found | {"mean": found["mean"] + len(calls)}

    words = "logits_by_token returns something else when it is called twice"
    broken(DISTILLED, words, **changed("logits_by_token", other))


@pytest.mark.parametrize(
    ("when", "words"),
    [
        (lambda failed: not failed, "logits_by_token leaves a network behind that gives other logits"),
        (lambda failed: failed, "logits_by_token leaves another network behind when it fails"),
    ],
)
def test_the_network_answers_as_before(when, words):
    """A plain number that the network looks at is no weight and no hook: only the answers tell."""
    adapter, images = with_methods(DISTILLED)
    network = adapter.network
    plain, network.shift = network.forward, 0.0
    network.forward = lambda x: plain(x) + network.shift

    def logits_by_token(self, images):
        failed = True
        try:
            found = own(self, "logits_by_token")(images)
            failed = False
            return found
        finally:
            network.shift = float(when(failed))

    type(adapter).logits_by_token = logits_by_token
    with pytest.raises(ContractError, match=words):
        check_adapter(adapter, images)
