"""Attacks on cells of a grid and on frequencies, and PatchDrop as a defence: what must hold, and closed forms."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from torch import nn

import ipvit
from ipvit.perturb.attack import Clean, PatchDropVote, apgd, attack_cells, attack_vote, band_limited, is_right
from ipvit.perturb.attacks.band import in_band
from ipvit.perturb.budget import Budget
from ipvit.perturb.seeding import keys

GRID = (4, 4)


class Weighted(nn.Module):
    """Two classes; the second's logit is linear in the image, with a weight for every cell."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight.repeat_interleave(2, 0).repeat_interleave(2, 1)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = ((x - 0.5).mean(1) * self.weight).flatten(1).sum(1)
        return torch.stack([0.01 + torch.zeros_like(value), value], dim=1)


def images_of(n: int, size: int = 8) -> torch.Tensor:
    return 0.5 + 0.002 * torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def keys_of(n: int) -> np.ndarray:
    return keys([str(i) for i in range(n)])


def cells_changed(images: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
    changed = (images != moved).any(1).view(len(images), 4, 2, 4, 2)
    return changed.any(4).any(2).flatten(1)


@pytest.mark.parametrize("choice", ["gradient", "greedy"])
def test_the_cells_of_the_largest_slope_of_a_linear_network_are_chosen(choice):
    weight = torch.zeros(4, 4)
    weight[1, 2], weight[3, 0], weight[0, 0] = 0.001, -0.0008, 0.0003
    images, network = images_of(6), Weighted(weight)
    labels = network(images).argmax(1)
    found = attack_cells(network, images, labels, keys_of(6), grid=GRID, count=2, choice=choice, steps=3)
    changed = cells_changed(images, found.images)
    assert (labels == 0).all() and is_right(found.logits, labels).all()
    assert changed.sum(1).tolist() == [2] * 6 and changed[:, [1 * 4 + 2, 3 * 4 + 0]].all()


def test_random_cells_belong_to_the_image_and_are_as_many():
    images, network = images_of(6), Weighted(torch.ones(4, 4) * 1e-6)
    labels = network(images).argmax(1)
    options = {"grid": GRID, "count": 3, "choice": "random", "steps": 2}
    whole = attack_cells(network, images, labels, keys_of(6), **options)
    alone = attack_cells(network, images[4:5], labels[4:5], keys_of(6)[4:5], **options)
    assert cells_changed(images, whole.images).sum(1).tolist() == [3] * 6
    assert torch.equal(whole.images[4:5], alone.images) and whole.images.min() >= 0 and whole.images.max() <= 1


def test_harmful_cells_do_more_than_random_ones():
    network = Weighted(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)) ** 3 * 0.004)
    images = images_of(30)
    labels = network(images).argmax(1)
    left = {}
    for choice in ("gradient", "greedy", "random"):
        found = attack_cells(network, images, labels, keys_of(30), grid=GRID, count=2, choice=choice, steps=8)
        left[choice] = int(is_right(found.logits, labels).sum())
    assert max(left["gradient"], left["greedy"]) < left["random"]


def test_a_grid_that_does_not_divide_the_image_has_cells_that_differ_by_a_pixel():
    network, images = Weighted(torch.ones(4, 4) * 1e-6), images_of(3)
    labels = network(images).argmax(1)
    found = attack_cells(network, images, labels, keys_of(3), grid=(3, 3), count=1, steps=2)
    rows, columns = ((images != found.images).any(1).any(dim).sum(1) for dim in (2, 1))
    assert set(rows.tolist()) | set(columns.tolist()) <= {2, 3}


@pytest.mark.parametrize(("grid", "count"), [((9, 9), 1), ((4, 4), 17), ((4, 4), 0)])
def test_more_cells_than_there_are_are_refused(grid, count):
    network, images = Weighted(torch.ones(4, 4)), images_of(2)
    with pytest.raises(ValueError, match="cells"):
        attack_cells(network, images, torch.zeros(2, dtype=torch.long), keys_of(2), grid=grid, count=count)


def test_no_step_of_the_painting_is_lost():
    """One step moves every value of the cell by its length along the sign of a linear network's slope."""
    weight = torch.zeros(4, 4)
    weight[1, 2] = 1e-5
    images, network = images_of(4), Weighted(weight)
    labels = network(images).argmax(1)
    for steps in (1, 2, 3):
        found = attack_cells(network, images, labels, keys_of(4), grid=GRID, count=1, steps=steps, step_size=0.1)
        change = (found.images - images)[:, :, 2:4, 4:6]
        assert torch.allclose(change, torch.full_like(change, 0.1 * steps), atol=1e-6), steps


def test_a_loss_that_draws_attention_draws_it():
    model = ipvit.load_model("demo:deit_micro").eval().requires_grad_(False)
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(1)

    def received(x: torch.Tensor) -> torch.Tensor:
        maps = torch.stack([found.mean(dim=(1, 2)) for found in model.attention(x, range(4)).values()]).mean(0)
        return maps[:, -64:]

    shares = []
    for drawing in (None, received):
        options = {"grid": (8, 8), "count": 1, "steps": 10, "received": drawing}
        found = attack_cells(model, images, labels, keys_of(4), **options)
        changed = (images != found.images).any(1).view(4, 8, 8, 8, 8).any(4).any(2).flatten(1)
        shares.append((received(found.images) * changed).sum(1))
    assert (shares[1] > shares[0]).all()


def test_a_band_is_that_of_scipys_cosine_transform():
    values = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    rows, columns = np.arange(8)[:, None] / 7, np.arange(12)[None] / 11
    kept = np.hypot(rows, columns) / np.sqrt(2) <= 0.3
    expected = idctn(dctn(values.numpy(), axes=(2, 3), norm="ortho") * kept, axes=(2, 3), norm="ortho")
    low, high = (in_band(values, band, 0.3) for band in ("low", "high"))
    assert np.allclose(low.numpy(), expected) and torch.allclose(low + high, values)


@pytest.mark.parametrize("band", ["low", "high"])
@pytest.mark.parametrize(("norm", "size"), [("linf", 0.05), ("l2", 0.5)])
def test_a_band_limited_perturbation_has_no_other_frequencies_and_stays_within_its_budget(band, norm, size):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
    images = 0.3 + 0.4 * torch.rand(8, 3, 8, 8)  # far from 0 and 1: nothing is clipped
    labels = network(images).argmax(1)
    found = band_limited(network, images, labels, Budget(norm, size), band=band, cutoff=0.4, steps=5)
    change = found.images.double() - images.double()
    assert (change != 0).any() and torch.allclose(in_band(change, band, 0.4), change, atol=1e-6)
    far = change.abs().flatten(1).amax(1) if norm == "linf" else change.flatten(1).norm(dim=1)
    assert (far <= size).all()


class Bright(nn.Module):
    """Says how bright the image is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = 40 * (x.flatten(1).mean(1) - 0.24)
        return torch.stack([torch.zeros_like(value), value], dim=1)


def test_patchdrop_votes_are_counted():
    images = torch.full((6, 3, 8, 8), 0.52)
    vote = PatchDropVote(Bright().eval(), GRID, keys_of(6), share=0.5, votes=5)
    counts = vote(images)
    assert counts.argmax(1).tolist() == [1] * 6, "half of 0.52 is 0.26 in every drop"
    assert ((counts[:, 1] >= 5) & (counts[:, 1] <= 5.5)).all()


def test_what_the_vote_draws_belongs_to_the_image_and_is_new_in_every_pass():
    network = Weighted(torch.randn(4, 4, generator=torch.Generator().manual_seed(1))).eval()
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    whole = PatchDropVote(network, GRID, keys_of(6), soft=True)
    alone = PatchDropVote(network, GRID, keys_of(6)[3:4], soft=True)
    first, second = whole(images), whole(images)
    assert not torch.equal(first, second)
    assert torch.allclose(alone(images[3:4]), first[3:4]) and torch.allclose(alone(images[3:4]), second[3:4])
    with pytest.raises(ValueError, match="keys for 6 images, not for 2"):
        whole(images[:2])


def test_the_mean_of_many_soft_votes_is_the_mean_over_all_drops():
    """With one of four cells dropped there are four drops: the mean over them is a plain loop."""
    network = Weighted(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)) * 0.3).eval()
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    every = []
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        dropped = images.clone()
        dropped[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0
        every.append(network(dropped).softmax(1))
    vote = PatchDropVote(network, (2, 2), keys_of(2), share=0.25, votes=4000, soft=True)
    assert torch.allclose(vote(images).exp(), torch.stack(every).mean(0), atol=0.01)


def test_an_attack_that_knows_of_the_vote_breaks_it():
    images = torch.full((6, 3, 8, 8), 0.52)
    labels = torch.ones(6, dtype=torch.long)
    found = attack_vote(Bright().eval(), images, labels, Budget("linf", 0.1), keys_of(6), grid=GRID, steps=5, draws=4)
    assert not is_right(found.logits, labels).any() and not found.zero_gradient.any()
    assert (found.images - images).abs().max() <= 0.1
    short = attack_vote(Bright().eval(), images, labels, Budget("linf", 0.01), keys_of(6), grid=GRID, steps=5, draws=4)
    assert is_right(short.logits, labels).all(), "half of 0.51 is 0.255, and the vote falls below 0.48"


def test_what_counts_for_a_random_network_is_a_pass_that_the_attack_has_not_seen():
    """A network that is wrong in its first 40 passes and right ever after is right."""
    passes = []

    def moody(x: torch.Tensor) -> torch.Tensor:
        passes.append(1)
        value = x.flatten(1).mean(1) - (10 if len(passes) <= 40 else 0)
        return torch.stack([torch.zeros_like(value), value], dim=1)

    images, labels = torch.full((3, 3, 8, 8), 0.5), torch.ones(3, dtype=torch.long)
    clean = Clean(torch.tensor([[0.0, 1.0]] * 3))
    options = {"steps": 9, "draws": 4, "clean": clean}
    found = apgd(moody, images, labels, Budget("linf", 0.1), keys_of(3), **options)
    assert len(passes) == 41 and is_right(found.logits, labels).all()
