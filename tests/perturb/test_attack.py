"""FGSM and PGD against the closed form, a plain loop, and what must hold exactly."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import ipvit
from helpers.tiny import PatchNet
from ipvit.perturb.attack import clean_pass, fgsm, is_right, linf_bounds, margin_loss, pgd, random_starts
from ipvit.perturb.seeding import keys

SIZE = (3, 6, 6)


class Linear(nn.Module):
    """Two classes; the difference of their logits is linear in the image."""

    def __init__(self, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.weight = scale * torch.randn(2, math.prod(SIZE), generator=rng)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight.T

    def worst(self, images: torch.Tensor, labels: torch.Tensor, epsilon: float) -> torch.Tensor:
        """The closed form: every pixel at that end of its interval that helps the other class more."""
        towards = (self.weight[1 - labels] - self.weight[labels]).view_as(images)
        low, high = (images - epsilon / 255).clamp(0, 1), (images + epsilon / 255).clamp(0, 1)
        return torch.where(towards > 0, high, low)


def photos(n: int = 12, size: tuple[int, ...] = SIZE, seed: int = 1) -> torch.Tensor:
    """8-bit images as the engine makes them, with pixels at both ends of the range."""
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, *size), generator=rng)
    pixels[:, 0] = pixels[:, 0].clamp(100, 110)
    pixels[:, 1, :2] = 0
    pixels[:, 2, -2:] = 255
    return pixels.float() / 255


def right_labels(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return network(images).argmax(1)


def curvy(seed: int = 0, classes: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    layers = (nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(32, classes))
    network = nn.Sequential(*layers).eval()
    with torch.no_grad():
        network[-1].weight.mul_(40)
    return network


def starts_of(n: int, size: tuple[int, ...] = SIZE):
    ids = [f"photo {i}" for i in range(n)]
    return lambda restart: random_starts(keys(ids, 0, "attack", "start", restart), size)


def within(adversarial: torch.Tensor, images: torch.Tensor, epsilon: float) -> bool:
    """Exactly: in float64 there is no rounding in the difference of two float32 numbers of this size."""
    difference = (adversarial.double() - images.double()).abs()
    return bool((difference <= epsilon / 255).all() and (adversarial >= 0).all() and (adversarial <= 1).all())


def wrong(found, labels: torch.Tensor) -> torch.Tensor:
    return ~is_right(found.logits, labels)


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("epsilon", [0.25, 1.0, 4.0, 20.0])
def test_on_a_linear_classifier_pgd_finds_the_analytic_optimum(epsilon, random_start):
    """Images that hold out reach the optimum itself; the others are exactly those that the optimum breaks."""
    network, images = Linear(), photos(64, seed=5)
    labels = right_labels(network, images)
    optimum = network.worst(images, labels, epsilon)
    can_be_broken = right_labels(network, optimum) != labels
    starts = starts_of(64) if random_start else None
    found = pgd(network, images, labels, epsilon, steps=6, step_size=0.5, starts=starts)
    assert torch.equal(wrong(found, labels), can_be_broken)
    assert torch.allclose(found.images[~can_be_broken], optimum[~can_be_broken], atol=1e-7)
    single = fgsm(network, images, labels, epsilon)
    assert torch.allclose(single.images, optimum, atol=1e-7), "one step is enough where the loss is linear"


def test_the_linear_classifier_is_broken_on_some_images_only():
    network, images = Linear(), photos(64, seed=5)
    labels = right_labels(network, images)
    counts = [int((right_labels(network, network.worst(images, labels, e)) != labels).sum()) for e in (0.25, 4.0, 20.0)]
    assert 0 < counts[0] < counts[1] < counts[2] == 64


@settings(max_examples=60, deadline=None)
@given(
    epsilon=st.floats(0.001, 255, allow_nan=False),
    seed=st.integers(0, 10_000),
    steps=st.integers(1, 4),
    step_size=st.floats(0.01, 2),
    random=st.booleans(),
)
def test_every_adversarial_image_is_within_epsilon_and_the_pixel_range_exactly(epsilon, seed, steps, step_size, random):
    network, images = curvy(), torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(seed))
    images.view(3, -1)[:, ::7] = torch.tensor([0.0, 1.0, 1e-6]).unsqueeze(1)
    labels = right_labels(network, images)
    starts = starts_of(3) if random else None
    assert within(fgsm(network, images, labels, epsilon).images, images, epsilon)
    assert within(
        pgd(network, images, labels, epsilon, steps=steps, step_size=step_size, starts=starts).images, images, epsilon
    )


def test_the_bounds_are_the_largest_that_keep_within_epsilon():
    images = (torch.arange(256).float() / 255).view(1, 1, 16, 16)
    for epsilon in (0.25, 1.0, 2.0, 8.0, 100.0):
        low, high = linf_bounds(images, epsilon)
        exact = images.double()
        assert (high.double() - exact).max() <= epsilon / 255 and (exact - low.double()).max() <= epsilon / 255
        wider = torch.nextafter(high, torch.full_like(high, 2.0)).double()
        assert bool(((wider - exact > epsilon / 255) | (wider > 1)).all()), "not one float32 number is given away"
        naive = (images + epsilon / 255).clamp(0, 1).double() - exact
        assert epsilon != 2.0 or bool((naive > epsilon / 255).any()), "the plain float32 sum leaves the ball"


def test_more_steps_and_more_restarts_never_leave_more_images_right():
    network, images = curvy(2), photos(40, seed=3)
    labels = right_labels(network, images)
    starts = starts_of(40)
    lost: dict[tuple[int, int], torch.Tensor] = {}
    for steps, restarts in itertools.product((1, 2, 4, 8), (1, 2, 4)):
        found = pgd(network, images, labels, 10.0, steps=steps, step_size=0.2, restarts=restarts, starts=starts)
        lost[steps, restarts] = wrong(found, labels)
    for (steps, restarts), now in lost.items():
        for (fewer_steps, fewer_restarts), before in lost.items():
            if fewer_steps <= steps and fewer_restarts <= restarts:
                assert not bool((before & ~now).any()), (steps, restarts, fewer_steps, fewer_restarts)
    assert lost[1, 1].sum() < lost[8, 4].sum(), "the network is such that it makes a difference"


def plain_pgd(network, image, label, epsilon, steps, step_size, start):
    """One image; cross-entropy; wrong at any step counts."""
    x = (image + epsilon / 255 * start).clamp(0, 1)
    was_wrong = False
    for _ in range(steps):
        x = x.detach().requires_grad_()
        logits = network(x[None])
        was_wrong |= int(logits.argmax()) != label
        nn.functional.cross_entropy(logits, torch.tensor([label])).backward()
        x = (x + step_size * epsilon / 255 * x.grad.sign()).detach()
        x = torch.minimum(torch.maximum(x, image - epsilon / 255), image + epsilon / 255).clamp(0, 1)
    return was_wrong or int(network(x[None]).argmax()) != label


def test_pgd_breaks_the_images_that_a_plain_loop_with_cross_entropy_breaks():
    network, images = curvy(2), photos(24, seed=8)
    labels = right_labels(network, images)
    starts = starts_of(24)
    found = pgd(network, images, labels, 4.0, steps=5, step_size=0.3, starts=starts)
    expected = [
        plain_pgd(network, image, int(label), 4.0, 5, 0.3, start)
        for image, label, start in zip(images, labels, starts(0), strict=True)
    ]
    assert wrong(found, labels).tolist() == expected and 0 < sum(expected) < 24


def test_fgsm_is_one_step_along_the_sign_of_the_gradient_of_cross_entropy():
    network, images = curvy(2), photos(16)
    labels = right_labels(network, images)
    leaf = images.clone().requires_grad_()
    nn.functional.cross_entropy(network(leaf), labels, reduction="sum").backward()
    expected = (images + 5 / 255 * leaf.grad.sign()).clamp(0, 1)
    assert torch.allclose(fgsm(network, images, labels, 5.0).images, expected, atol=1e-7)


def test_a_network_so_sure_that_cross_entropy_has_no_gradient_is_still_attacked():
    network, images = Linear(scale=1000), photos()
    labels = right_labels(network, images)
    leaf = images.clone().requires_grad_()
    nn.functional.cross_entropy(network(leaf), labels, reduction="sum").backward()
    vanished = (leaf.grad == 0).flatten(1).all(1)
    assert vanished.any()
    found = fgsm(network, images, labels, 60.0)
    assert wrong(found, labels)[vanished].any() and not found.zero_gradient.any()


def test_the_loss_is_cross_entropy_on_another_scale():
    logits, labels = torch.randn(50, 7) * 3, torch.randint(0, 7, (50,))
    expected = nn.functional.cross_entropy(logits, labels, reduction="none")
    assert torch.allclose(nn.functional.softplus(margin_loss(logits, labels)), expected, atol=1e-5)


def test_gradients_flow_through_the_normalisation():
    """The same network behind a normalisation is attacked in pixels: colours of small spread count for more."""
    torch.manual_seed(0)
    inner = PatchNet()
    model = ipvit.wrap(inner, mean=(0.2, 0.5, 0.9), std=(0.1, 0.3, 0.05), size=16)
    images = photos(6, (3, 16, 16))
    labels = right_labels(model, images)
    mean, std = torch.tensor([0.2, 0.5, 0.9]).view(3, 1, 1), torch.tensor([0.1, 0.3, 0.05]).view(3, 1, 1)
    leaf = ((images - mean) / std).requires_grad_()
    margin_loss(inner(leaf), labels).sum().backward()
    assert torch.allclose(clean_pass(model, images, labels).gradient, leaf.grad / std, rtol=1e-4, atol=1e-7)
    found = pgd(model, images, labels, 8.0, starts=starts_of(6, (3, 16, 16)))
    assert within(found.images, images, 8.0) and (found.images != images).any()


def test_what_the_network_gets_wrong_already_is_left_alone_and_not_shown_to_it_again():
    network, images = curvy(2), photos(10)
    labels = right_labels(network, images)
    labels[:4] = (labels[:4] + 1) % 4
    labels[4] = -1
    shown = []
    attacked = pgd(lambda x: (shown.append(len(x)), network(x))[1], images, labels, 2.0, starts=starts_of(10))
    assert torch.equal(attacked.images[:5], images[:5])
    assert shown[0] == 10 and max(shown[1:]) <= 5 and shown[1:] == sorted(shown[1:], reverse=True)


def test_an_epsilon_sweep_shares_one_clean_pass():
    network, images = curvy(2), photos(8)
    labels = right_labels(network, images)
    shown = []

    def counting(x):
        shown.append(x.requires_grad)
        return network(x)

    clean = clean_pass(counting, images, labels)
    alone = [fgsm(network, images, labels, epsilon) for epsilon in (1.0, 2.0, 4.0)]
    together = [fgsm(counting, images, labels, epsilon, clean=clean) for epsilon in (1.0, 2.0, 4.0)]
    assert shown == [True, False, False, False], "one backward pass for all, one forward pass each"
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.logits, other.logits)


def test_the_kept_logits_are_those_of_the_kept_images():
    network, images = curvy(2), photos(20)
    labels = right_labels(network, images)
    found = pgd(network, images, labels, 4.0, steps=3, restarts=3, starts=starts_of(20))
    assert torch.allclose(network(found.images), found.logits, atol=1e-4)


def test_a_random_start_belongs_to_the_image_not_to_the_batch():
    whole = starts_of(5)(2)
    alone = random_starts(keys(["photo 3"], 0, "attack", "start", 2), SIZE)[0]
    assert torch.equal(whole[3], alone) and whole.min() >= -1 and whole.max() <= 1
    assert abs(float(whole.mean())) < 0.1 and not torch.equal(whole[3], starts_of(5)(1)[3])


@pytest.mark.parametrize("part", ["whole", "inside"])
def test_a_network_in_training_mode_is_refused(part):
    network = nn.Sequential(curvy(), nn.Dropout(0.5)).eval()
    (network if part == "whole" else network[1]).train()
    images, labels = photos(2), torch.zeros(2, dtype=torch.long)
    for attack in (lambda: fgsm(network, images, labels, 1.0), lambda: pgd(network, images, labels, 1.0)):
        with pytest.raises(ValueError, match="training mode"):
            attack()


def test_what_cannot_be_done_is_refused_in_words():
    network, images, labels = curvy(), photos(2), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="255ths"):
        fgsm(network, images, right_labels(network, images), 256.0)
    with pytest.raises(ValueError, match="all be the same"):
        pgd(network, images, labels, 1.0, restarts=2)
    with pytest.raises(ValueError, match="at least one step"):
        pgd(network, images, labels, 1.0, steps=0)
    with pytest.raises(ValueError, match="no gradient"):
        clean_pass(lambda x: network(x).detach(), images, labels)


def test_a_network_without_slope_is_reported_as_flat():
    network = curvy()
    images = photos(4)

    def stepped(x):
        return network((x * 4).round() / 4)

    found = pgd(stepped, images, right_labels(stepped, images), 1.0, starts=starts_of(4))
    assert found.zero_gradient.all() and not wrong(found, right_labels(stepped, images)).all()


def test_no_gradients_are_left_in_the_network():
    network, images = curvy(), photos(4)
    pgd(network, images, right_labels(network, images), 2.0, starts=starts_of(4))
    assert all(weight.grad is None for weight in network.parameters())
