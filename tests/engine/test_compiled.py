"""A compiled network sees batches of one size. torch's compiler is replaced: what counts is what it is given."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers.plain_loops import measured
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.engine.loop.compiled import Compiled
from ipvit.models.adapters import unwrap

DISCRETE = ["model", "image", "condition", "label", "prediction", "correct"]


class Several(nn.Module):
    """Answers with a tuple, a dictionary in it, and a number that is no image's."""

    def forward(self, images):
        means = images.mean(dim=(2, 3))
        return means, {"largest": images.amax(dim=(1, 2, 3)), "classes": 3}


ROOM = {"images": 1000}
"""How many images at a time fit into the memory."""


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of the batches that a compiled network gets."""
    seen: list[int] = []

    def compiled(network: nn.Module):
        def run(images: torch.Tensor):
            seen.append(len(images))
            if len(images) > ROOM["images"]:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return network(images)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    return seen


def test_a_smaller_batch_is_filled_up_and_its_copies_are_thrown_away(sizes):
    network = Compiled(Several())
    images = torch.rand(5, 3, 4, 4)
    with torch.inference_mode():
        network(images)
        means, rest = network(images[:2])
    assert sizes == [5, 5]
    assert torch.equal(means, images[:2].mean(dim=(2, 3)))
    assert torch.equal(rest["largest"], images[:2].amax(dim=(1, 2, 3))) and rest["classes"] == 3


def test_with_gradients_a_batch_stays_as_it_is(sizes):
    network = Compiled(Several())
    with torch.inference_mode():
        network(torch.rand(5, 3, 4, 4))
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    network(images)[0].sum().backward()
    assert sizes == [5, 2] and images.grad is not None


def test_it_is_seen_through():
    inner = Several()
    assert unwrap(Compiled(inner)) is inner


def test_a_run_compiles_for_one_size_and_finds_the_same(tmp_path, sizes):
    data = photos()  # of 30 images
    plain = measured(small_occlusion(), tiny_model(), data, tmp_path / "plain", batch_size=8)
    assert sizes == []
    compiled = measured(small_occlusion(), tiny_model(), data, tmp_path / "compiled", batch_size=8, compile=True)
    assert set(sizes) == {8}
    assert plain.select(DISCRETE).equals(compiled.select(DISCRETE))
    assert np.allclose(plain["confidence"], compiled["confidence"], atol=1e-6)


def test_what_was_halved_for_lack_of_memory_is_not_filled_up_again(sizes, monkeypatch):
    network = Compiled(Several())
    with torch.inference_mode():
        network(torch.rand(8, 3, 4, 4))
        monkeypatch.setitem(ROOM, "images", 4)
        with pytest.raises(torch.OutOfMemoryError):
            network(torch.rand(4, 3, 4, 4))
        assert len(network(torch.rand(4, 3, 4, 4))[0]) == 4
        assert len(network(torch.rand(2, 3, 4, 4))[0]) == 2
    assert sizes == [8, 8, 4, 4]
