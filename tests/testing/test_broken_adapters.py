"""An adapter that says something wrong of itself, or reads something wrong, is caught."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from helpers.adapter_networks import make
from helpers.broken_adapters import (
    DISTILLED,
    PLAIN,
    RESNET,
    VIT,
    Change,
    always,
    answering,
    broken,
    changed,
    of_blocks,
    own,
    with_methods,
)
from ipvit.models.adapters import Adapter
from ipvit.testing import ContractError, check_adapter

# --- what it states, and the plain network ---------------------------------------------------------------------------


def claiming(*more: str, without: str = "") -> dict[str, Any]:
    return {"capabilities": property(lambda self: (super(type(self), self).capabilities | set(more)) - {without})}


def never(self, *_: Any) -> Any:
    raise NotImplementedError


STATED = [
    (VIT, claiming("x-ray"), "Broken: claims x-ray; the capabilities that there are"),
    (VIT, {"n_blocks": property(lambda self: 2)}, "n_blocks is 2 and block_names has 3 names"),
    (PLAIN, claiming("tokens"), "claims tokens and has no blocks"),
    (
        VIT,
        {"tokens": never} | claiming(without="tokens"),
        "but asking for it raises NotImplementedError; it must raise",
    ),
    (RESNET, {"attention": lambda self, *_: {}}, "does not claim 'attention', but asking for it returns something"),
    (VIT, {"tokens": never}, "Broken.tokens raises NotImplementedError"),
    (VIT, {"classify": never}, "Broken, asked for 'tokens', raises NotImplementedError"),
]


@pytest.mark.parametrize(("name", "methods", "words"), STATED, ids=[words for *_, words in STATED])
def test_what_it_states(name, methods, words):
    broken(name, words, **methods)


def test_the_names_of_blocks_differ():
    adapter, images = with_methods(VIT)
    adapter.block_names = ("a", "b", "b")
    with pytest.raises(ContractError, match="block_names has a name twice: a, b, b"):
        check_adapter(adapter, images)


class Odd(nn.Module):
    def __init__(self, ending):
        super().__init__()
        self.head = nn.Linear(3, 4)
        self.ending = ending

    def forward(self, images):
        return self.ending(self.head(images.mean(dim=(2, 3))))


NETWORKS = [
    (lambda logits: logits[0], r"is of a network that returns \(4,\); it must return logits \(B, classes\)"),
    (lambda logits: logits + torch.rand(1), "gives other logits for the same images the second time"),
    (lambda logits: logits * 0, "says the same of two images"),
    (lambda logits: logits.detach(), "taking gradients with respect to the images raises RuntimeError"),
    (lambda logits: logits.detach() + 0 * logits, "the gradient of the logits is zero on a whole image"),
    (lambda logits: None, "a plain pass of Odd raises InputError"),
]


@pytest.mark.parametrize(("ending", "words"), NETWORKS, ids=[words for _, words in NETWORKS])
def test_the_plain_network(ending, words):
    with pytest.raises(ContractError, match=words):
        check_adapter(Adapter(Odd(ending).eval()), torch.rand(2, 3, 8, 8))


def test_a_network_in_training_mode_is_refused():
    adapter, images = make(VIT)
    adapter.network.train()
    with pytest.raises(ContractError, match="is of a network in training mode; call eval"):
        check_adapter(adapter, images)


# --- tokens ----------------------------------------------------------------------------------------------------------


def single(blocks: Any) -> bool:
    return len(list(blocks)) == 1


def tokens(only: Callable[[Any], bool] = always, **fields: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a method ``tokens`` in which each of some fields is what a function makes of the block's tokens."""

    def other(found: Any) -> Any:
        return dataclasses.replace(found, **{name: make_it(found) for name, make_it in fields.items()})

    return of_blocks("tokens", other, only)


def first_only(self, found, *_):
    return {0: found[min(found)]}


TOKENS = [
    (changed("tokens", first_only), r"returns those of \[0\], not one each"),
    (tokens(grid=lambda t: (4, 5)), r"tokens of block 0 are \(2, 16, 24\) for a grid of 4 x 5"),
    (tokens(prefix_tokens=lambda t: {}), r"have the prefix tokens \(\); prefix_tokens says \('class',\)"),
    (tokens(prefix_tokens=lambda t: {"class": t.patches}), r"'class' is \(2, 16, 24\), not \(2, 24\)"),
    (tokens(pooled=lambda t: t.patches), r"pooled is \(2, 16, 24\); it must be one vector for each"),
    (tokens(single, patches=lambda t: t.patches + 1), "tokens of block 0 alone are others than among all blocks"),
    (tokens(patches=lambda t: t.patches - t.patches[0]), "are others when the images are given in another order"),
    (answering("tokens", {}), r"Broken.tokens of \[3\] returns something; it must raise an InputError"),
    (
        changed("classify", lambda self, found, *_: found + 1),
        "classify of the last block's '.*' gives other logits than",
    ),
    (answering("classify", 0), "Broken.classify of a vector '.*' returns something"),
]


@pytest.mark.parametrize(("methods", "words"), TOKENS, ids=[words for _, words in TOKENS])
def test_its_tokens(methods, words):
    broken(VIT, words, **methods)


def heads(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    return changed("logits_by_token", lambda self, found, *_: change(found))


def crossed(found):
    return {"class": found["distillation"], "distillation": found["class"], "mean": found["mean"]}


HEADS = [
    (heads(lambda found: {"mean": found["mean"]}), r"logits_by_token returns \['mean'\]; it must return \['class', '"),
    (heads(lambda found: found | {"mean": found["class"]}), "'mean' is not the network's own answer"),
    (heads(lambda found: found | {"class": found["mean"]}), "'mean' is not the mean of the two"),
    (heads(lambda found: dict.fromkeys(found, found["mean"])), "gives the same logits for both tokens"),
    (heads(crossed), "classify of the last block's 'class' gives other logits than logits_by_token"),
]


@pytest.mark.parametrize(("methods", "words"), HEADS, ids=[words for _, words in HEADS])
def test_the_heads_of_its_tokens(methods, words):
    broken(DISTILLED, words, **methods)


# --- attention -------------------------------------------------------------------------------------------------------


def of_the_first(self, found, images, blocks):
    return dict.fromkeys(found, own(self, "attention")(images, [0])[0])


def first_rows(self, images, block):
    return self.attention(images, [block])[block][:, :, :1]


def maps(change: Change, only: Callable[[Any], bool] = always) -> dict[str, Any]:
    return of_blocks("attention", change, only)


ATTENTION = [
    (changed("attention", first_only), r"returns those of \[0\]"),
    (
        maps(lambda a: a[:, 0]),
        r"block 0 is \(2, 17, 17\); it must be \(2, heads, 17, 17\): a grid of 4 x 4 and 1 prefix",
    ),
    (maps(lambda a: a - 0.5), "attention of block 0 has values below 0"),
    (maps(lambda a: a * 1.5), "has rows that sum to 1.5 to 1.5; each must sum to one"),
    ({"n_heads": lambda self, block: 7}, r"n_heads\(0\) is 7 and the map has 3 heads"),
    (maps(lambda a: a.flip(1), single), "attention of block 0 alone is another than among all blocks"),
    (changed("prefix_attention", lambda self, found, *_: found.flip(1)), "block 0 is not the first 1 rows of its map"),
    (
        changed("attention", of_the_first) | {"prefix_attention": first_rows},
        "attention of block 1 is that of block 0 to the last bit; each block has its",
    ),
    (answering("attention", {}), r"Broken.attention of \[3\] returns something"),
]


@pytest.mark.parametrize(("methods", "words"), ATTENTION, ids=[words for _, words in ATTENTION])
def test_its_attention(methods, words):
    broken(VIT, words, **methods)
