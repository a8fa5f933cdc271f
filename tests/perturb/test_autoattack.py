"""APGD, FAB-T, Square and AutoAttack against closed forms, brute force, and what must hold exactly."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, linprog
from torch import nn

from ipvit.perturb.attack import (
    apgd,
    autoattack,
    clean_pass,
    closest_adversarial,
    dlr_loss,
    ensemble_steps,
    fab_t,
    is_right,
    likeliest_wrong,
    pgd,
    random_starts,
    square,
    targeted_dlr_loss,
)
from ipvit.perturb.attacks.balls import ball_around
from ipvit.perturb.attacks.projections import onto_l1, onto_plane
from ipvit.perturb.budget import Budget
from ipvit.perturb.seeding import keys

SIZE = (3, 6, 6)
NORMS = ("linf", "l2", "l1")


def images_of(n: int, *, low: float = 0.0, high: float = 1.0, seed: int = 0, size: tuple[int, ...] = SIZE):
    return torch.rand(n, *size, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


def keys_of(n: int, *words: object) -> np.ndarray:
    return keys([f"photo {i}" for i in range(n)], *words)


class TwoClasses(nn.Module):
    """The second logit is a function of the image, the first one zero."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = self.function(x)
        return torch.stack([torch.zeros_like(value), value], dim=1)


def linear(seed: int = 0, *, smooth: bool = False) -> tuple[torch.Tensor, TwoClasses]:
    weight = torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))
    if smooth:  # one slope for a whole channel: what squares are made for
        weight = weight[:, :1, :1].expand(SIZE)
    return weight, TwoClasses(lambda x: ((x - 0.5) * weight).flatten(1).sum(1))


def curvy(seed: int = 0, classes: int = 5) -> nn.Module:
    torch.manual_seed(seed)
    layers = (nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(32, classes))
    network = nn.Sequential(*layers).eval()
    with torch.no_grad():
        network[-1].weight.mul_(40)
    return network


def right_labels(network, images: torch.Tensor) -> torch.Tensor:
    return network(images).argmax(1)


def norm_of(change: torch.Tensor, norm: str) -> torch.Tensor:
    flat = change.double().flatten(1).abs()
    return {"linf": flat.amax(1), "l2": flat.square().sum(1).sqrt(), "l1": flat.sum(1)}[norm]


def is_exactly_within(images: torch.Tensor, moved: torch.Tensor, norm: str, size: float) -> bool:
    """In float64 and without tolerance; summed up by NumPy, in another order than torch's."""
    change = np.abs(moved.double().numpy() - images.double().numpy()).reshape(len(images), -1)
    far = {"linf": change.max(1), "l2": np.sqrt((change**2).sum(1)), "l1": change.sum(1)}[norm]
    return bool((far <= size).all() and (moved >= 0).all() and (moved <= 1).all())


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_fab_finds_the_closest_image_of_a_linear_network(norm, dual):
    """The distance to a plane is its value over the dual norm of the slope."""
    weight, network = linear()
    images = images_of(24, low=0.45, high=0.55)
    labels = right_labels(network, images)
    expected = network(images)[:, 1].abs() / weight.flatten().norm(dual)
    found, distance = closest_adversarial(network, images, labels, norm, keys_of(24), steps=20)
    assert torch.allclose(distance, expected.double(), rtol=0.01)
    assert torch.allclose(norm_of(found - images, norm), distance, rtol=1e-5) and (distance >= 0.9999 * expected).all()
    assert not is_right(network(found), labels).any()


def radius_of(images: torch.Tensor) -> torch.Tensor:
    return (images - 0.5).flatten(1).norm(dim=1)


def test_fab_finds_the_closest_image_of_a_quadratic_network_in_l2():
    """Classes inside and outside of a sphere: the closest point lies on the ray from its centre."""
    images = images_of(24, low=0.4, high=0.6)
    limit = float(radius_of(images).median())
    network = TwoClasses(lambda x: (x - 0.5).flatten(1).square().sum(1) - limit**2)
    expected = (radius_of(images) - limit).abs()
    _, distance = closest_adversarial(network, images, right_labels(network, images), "l2", keys_of(24), steps=40)
    assert torch.allclose(distance, expected.double(), rtol=0.01, atol=1e-5)


def least_linf_to_leave_the_sphere(image: torch.Tensor, limit: float) -> float:
    away = (image.double() - 0.5).abs().flatten()
    return float(brentq(lambda more: float(((away + more) ** 2).sum()) - limit**2, 0, 1))


@pytest.mark.parametrize("attack", ["apgd", "fab", "square"])
def test_a_quadratic_network_is_broken_in_linf_from_its_closed_form_on(attack):
    """Every value moves away from the centre by the same amount until the sphere is left."""
    away = images_of(12, low=0.1, high=0.15)
    images = 0.5 + away * (images_of(12, seed=1) - 0.5).sign()  # so far out that no step crosses the centre
    limit = 1.6
    network = TwoClasses(lambda x: (x - 0.5).flatten(1).square().sum(1) - limit**2)
    labels = right_labels(network, images)
    some = 3 if attack == "square" else 12
    for image, label, key in list(zip(images, labels, keys_of(12), strict=True))[:some]:
        least = least_linf_to_leave_the_sphere(image, limit)
        for factor, broken in ((0.98, False), (1.1 if attack == "square" else 1.02, True)):
            run = {
                "apgd": lambda budget, *one: apgd(network, *one[:2], budget, one[2]),
                "fab": lambda budget, *one: fab_t(network, *one[:2], budget, one[2], steps=30),
                "square": lambda budget, *one: square(network, *one[:2], budget, one[2], queries=1000),
            }[attack]
            found = run(Budget("linf", factor * least), image[None], label[None], np.array([key]))
            assert bool(is_right(found.logits, label[None])) is not broken


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", ["apgd", "fab", "square"])
def test_a_linear_network_in_the_box_is_broken_from_its_optimum_on(attack, norm):
    """The most that a linear function can change is a linear program (linf, l1) or a root (l2), solved elsewhere."""
    weight, network = linear(3, smooth=attack == "square")
    images = images_of(4, seed=4)
    labels = right_labels(network, images)
    wanted = network(images)[:, 1].abs()
    for image, label, value, key in zip(images, labels, wanted, keys_of(4), strict=True):
        towards = (weight if label == 0 else -weight).flatten().double().numpy()
        size = least_budget(image.flatten().double().numpy(), towards, float(value), norm)
        # Square's patterns in l2 and l1 have a hill and a valley of equal size, which cancel out on a constant slope;
        # that is the authors' algorithm. In 800 queries torchattacks' breaks these four in l2 at 6, 4, 6 and 6 times
        # the optimum, ours at 3, 3, 3 and 2.5 times (of 1.5, 2, 2.5, 3, 4 and 6 times, which were tried).
        slack = {"l2": 2.2, "l1": 3.0}.get(norm, 0.02) if attack == "square" else 0.02
        for factor, broken in ((0.98, False), (1 + slack, True)):
            budget = Budget(norm, factor * size)
            one = (network, image[None], label[None], budget, np.array([key]))
            options = {"queries": 800 if broken else 100} if attack == "square" else {"steps": 60}
            found = {"apgd": apgd, "fab": fab_t, "square": square}[attack](*one, **options)
            assert bool(is_right(found.logits, label[None])) is not broken, (norm, factor)


def least_budget(image: np.ndarray, towards: np.ndarray, wanted: float, norm: str) -> float:
    room = np.where(towards > 0, 1 - image, image)
    steep = np.abs(towards)
    if norm == "l1":  # least sum of changes that raises the function by so much
        solved = linprog(
            np.ones_like(room), A_ub=-steep[None], b_ub=[-wanted], bounds=list(zip(0 * room, room, strict=True))
        )
        return float(solved.fun)
    pace = np.ones_like(steep) if norm == "linf" else steep
    reach = brentq(lambda reach: float((steep * np.minimum(reach * pace, room)).sum()) - wanted, 0, 1e3)
    change = np.minimum(reach * pace, room)
    return float(change.max() if norm == "linf" else np.sqrt((change**2).sum()))


def test_the_l1_projection_is_the_nearest_point_of_ball_and_box():
    """A plain loop shortens all changes by one number, looked for by SciPy; no random feasible point is nearer."""
    images = images_of(30, seed=1)
    moved = images + 0.8 * torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    found = onto_l1(images, moved, 4.0).double()
    for image, far, near in zip(images.double(), moved.double(), found, strict=True):
        expected = brute_force_l1(image.numpy().ravel(), far.numpy().ravel(), 4.0)
        assert np.allclose(near.numpy().ravel(), expected, atol=1e-6)
    others = torch.stack([(images + 0.05 * torch.randn(images.shape)).clamp(0, 1) for _ in range(50)]).double()
    feasible = norm_of((others - images).flatten(0, 1), "l1").view(50, 30) <= 4.0
    nearer = (others - moved).flatten(2).norm(dim=2) < (found - moved).flatten(1).norm(dim=1) - 1e-6
    assert feasible.any() and not (nearer & feasible).any()


def brute_force_l1(image: np.ndarray, far: np.ndarray, size: float) -> np.ndarray:
    change = far - image
    room = np.where(change > 0, 1 - image, image)

    def cut(less: float) -> np.ndarray:
        return np.minimum(np.maximum(np.abs(change) - less, 0), room)

    if cut(0).sum() <= size:
        return image + np.sign(change) * cut(0)
    less = brentq(lambda less: cut(less).sum() - size, 0, np.abs(change).max(), xtol=1e-14)
    return image + np.sign(change) * cut(less)


@pytest.mark.parametrize("norm", NORMS)
def test_the_shortest_way_to_a_plane_is_that_of_an_optimiser(norm):
    images, weight = images_of(8, seed=5), torch.randn(8, *SIZE, generator=torch.Generator().manual_seed(6))
    rise = torch.tensor([0.5, -0.5, 2.0, -2.0, 5.0, 1e-3, -8.0, 3.0])
    change = onto_plane(images, weight, rise, norm)
    assert torch.allclose((change * weight).flatten(1).sum(1), rise, atol=1e-4)
    assert (images + change >= -1e-6).all() and (images + change <= 1 + 1e-6).all()
    for image, slope, up, length in zip(images, weight, rise, norm_of(change, norm), strict=True):
        towards = (slope * up.sign()).flatten().double().numpy()
        expected = least_budget(image.flatten().double().numpy(), towards, float(up.abs()), norm)
        assert float(length) == pytest.approx(expected, rel=1e-4)


def test_a_plane_out_of_reach_is_approached_as_far_as_the_box_allows():
    images, weight = images_of(4), torch.randn(4, *SIZE)
    for norm in NORMS:
        moved = images + onto_plane(images, weight, torch.full((4,), 1e4), norm)
        assert torch.allclose(moved, (weight > 0).float(), atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_bounds_are_exact_over_ten_thousand_random_cases(norm):
    """Points far out, on the rim and within, images with pixels at both ends, budgets from tiny to all."""
    random = torch.Generator().manual_seed(7)
    images = images_of(250, seed=8)
    images.view(250, -1)[:, ::5] = torch.rand(250, 1, generator=random).round()
    largest = {"linf": 1.0, "l2": 8.0, "l1": 60.0}[norm]
    for number in range(40):
        size = float(largest * 10 ** (-4 * torch.rand((), generator=random)))
        ball = ball_around(images, Budget(norm, size))
        scale = 10 ** (3 * torch.rand(250, 1, 1, 1, generator=random) - 2.5)
        moved = images + size * scale * torch.randn(images.shape, generator=random)
        settled = ball.settle(moved if number % 2 else moved.clamp(0, 1))
        assert is_exactly_within(images, settled, norm, size), size
        if number % 10 == 0:
            assert is_exactly_within(images, ball.start(keys_of(250, number)), norm, size)


@pytest.mark.parametrize("norm", NORMS)
def test_every_attack_stays_within_its_budget_exactly(norm):
    network, images = curvy(), images_of(40, seed=9)
    labels = right_labels(network, images)
    largest = {"linf": 0.5, "l2": 3.0, "l1": 20.0}[norm]
    for number, size in enumerate((1e-3 * largest, 8 / 255, 0.0999 * largest, largest)):
        one = (network, images, labels, Budget(norm, size), keys_of(40, number))
        found = [
            apgd(*one, steps=6),
            apgd(*one, steps=6, loss="dlr", targets=2),
            fab_t(*one, steps=4, targets=2, restarts=2),
            square(*one, queries=25),
            autoattack(*one, steps=4, queries=10, targets=2),
        ]
        for attacked in found:
            assert is_exactly_within(images, attacked.images, norm, size)
            assert torch.allclose(network(attacked.images), attacked.logits, atol=1e-4)


@pytest.mark.parametrize(("norm", "size"), [("l2", 0.05), ("l2", 2.0), ("l1", 0.5), ("l1", 12.0)])
def test_square_uses_up_its_budget_in_every_query(norm, size):
    """Also where half of the pixels are black or white, and what the range cuts off is to be made up for elsewhere."""
    shown = []

    def steadfast(x: torch.Tensor) -> torch.Tensor:
        shown.append(x.clone())
        return torch.stack([torch.ones(len(x)), -x.flatten(1).sum(1)], dim=1)

    images = (2 * images_of(30, seed=4, size=(3, 16, 16)) - 0.5).clamp(0, 1)
    labels = torch.zeros(30, dtype=torch.long)
    square(steadfast, images, labels, Budget(norm, size), keys_of(30), queries=60)
    assert len(shown) == 61
    for moved in shown[1:]:
        assert is_exactly_within(images, moved, norm, size)
        assert (norm_of(moved.double() - images.double(), norm) > 0.9999 * size).all()


@pytest.mark.parametrize("epsilon", [2.0, 4.0])
@pytest.mark.parametrize("steps", [5, 10, 40])
def test_apgd_never_leaves_more_images_right_than_pgd_with_as_many_steps(steps, epsilon):
    """From the same starts; cross-entropy in both."""
    for seed in range(2):
        network, images = curvy(seed), images_of(60, seed=seed)
        labels, key = right_labels(network, images), keys_of(60)
        plain = pgd(network, images, labels, epsilon, steps=steps, starts=lambda _, key=key: random_starts(key, SIZE))
        auto = apgd(network, images, labels, Budget("linf", epsilon / 255), key, steps=steps)
        assert is_right(auto.logits, labels).sum() <= is_right(plain.logits, labels).sum()


def test_an_image_that_one_attack_breaks_is_not_shown_to_the_next_and_wrong_ones_to_none():
    network, images = curvy(1), images_of(30, seed=2)
    labels = right_labels(network, images)
    labels[:5] = (labels[:5] + 1) % 5
    labels[5] = -1
    shown: list[int] = []

    def counting(x: torch.Tensor) -> torch.Tensor:
        shown.append(len(x))
        return network(x)

    left: dict[str, int] = {}
    budget = Budget("linf", 3 / 255)
    found = autoattack(
        counting,
        images,
        labels,
        budget,
        keys_of(30),
        steps=10,
        queries=50,
        on_step=lambda name, found: left.update({name: int(is_right(found.logits, labels).sum())}),
    )
    assert list(left) == ["apgd", "apgd-t", "fab-t", "square"] and torch.equal(found.images[:6], images[:6])
    assert shown[0] == 30 and max(shown[1:]) <= 24, "one clean pass, then only what is right"
    counts = list(left.values())
    assert counts == sorted(counts, reverse=True) and 0 < counts[-1] < 24
    assert shown[-1] == counts[-1] or shown[-1] <= counts[-2]


def test_the_clean_pass_can_be_shared_and_changes_nothing():
    network, images = curvy(1), images_of(20, seed=2)
    labels = right_labels(network, images)
    clean = clean_pass(network, images, labels, gradient=False)
    for attack in (apgd, fab_t, square):
        options = {"queries": 20} if attack is square else {"steps": 5}
        alone, shared = (
            attack(network, images, labels, Budget("l2", 0.1), keys_of(20), clean=given, **options)
            for given in (None, clean)
        )
        assert torch.equal(alone.images, shared.images)


def test_what_an_image_gets_does_not_depend_on_the_batch():
    network, images = curvy(1).double(), images_of(12, seed=2).double()
    labels, key = right_labels(network, images), keys_of(12)
    for norm, size in (("linf", 2 / 255), ("l2", 0.1), ("l1", 1.0)):
        for attack, options in ((apgd, {"steps": 10}), (square, {"queries": 60}), (fab_t, {"steps": 5, "restarts": 2})):
            budget = Budget(norm, size)
            whole = attack(network, images, labels, budget, key, **options)
            alone = attack(network, images[7:8], labels[7:8], budget, key[7:8], **options)
            assert torch.allclose(whole.images[7:8], alone.images, atol=1e-6), (norm, attack)


def test_more_queries_never_leave_more_images_right():
    network, images = curvy(1), images_of(40, seed=2)
    labels = right_labels(network, images)
    lost = [
        ~is_right(square(network, images, labels, Budget("linf", 3 / 255), keys_of(40), queries=n).logits, labels)
        for n in (1, 10, 100, 300)
    ]
    assert all(not (few & ~more).any() for few, more in itertools.pairwise(lost))
    assert lost[0].sum() < lost[-1].sum()


def test_square_asks_for_answers_alone():
    network, images = curvy(1), images_of(20, seed=2)
    labels = right_labels(network, images)

    def black_box(x: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled() and not x.requires_grad
        return torch.from_numpy(network(x).numpy())

    found = square(black_box, images, labels, Budget("linf", 24 / 255), keys_of(20), queries=100)
    assert (~is_right(found.logits, labels)).sum() > 0
    with pytest.raises(ValueError, match="no gradient"):
        apgd(lambda x: network(x).detach(), images, labels, Budget("linf", 0.1), keys_of(20))


def test_a_network_whose_input_is_rounded_hides_its_gradients_and_square_breaks_it():
    """Steep sigmoids of rounded pixels: gradients are zero, answers are not hidden."""
    inner = curvy(1)

    def masked(x: torch.Tensor) -> torch.Tensor:
        return inner(torch.sigmoid(60 * ((x * 32).round() / 32 - 0.5)))

    images = images_of(30, seed=2)
    labels = right_labels(masked, images)
    one = (masked, images, labels, Budget("linf", 16 / 255), keys_of(30))
    blind, seeing = apgd(*one, steps=20), square(*one, queries=300)
    assert blind.zero_gradient.all() and is_right(blind.logits, labels).sum() > is_right(seeing.logits, labels).sum()
    assert not seeing.zero_gradient.any() and is_right(seeing.logits, labels).sum() < 6


def test_dlr_is_the_ratio_of_its_definition():
    logits, labels = torch.randn(50, 6, dtype=torch.float64), torch.arange(50) % 6
    targets = (labels + 1) % 6
    ordered = logits.sort(dim=1, descending=True).values
    for row in range(50):
        z, y, t = logits[row], int(labels[row]), int(targets[row])
        other = max(float(z[i]) for i in range(6) if i != y)
        first, _, third, fourth = (float(value) for value in ordered[row][:4])
        assert float(dlr_loss(logits, labels)[row]) == pytest.approx(-(float(z[y]) - other) / (first - third))
        expected = -(float(z[y] - z[t])) / (first - (third + fourth) / 2)
        assert float(targeted_dlr_loss(logits, labels, targets)[row]) == pytest.approx(expected)


def test_targets_are_the_likeliest_wrong_answers():
    logits = torch.tensor([[5.0, 4.0, 3.0, 2.0], [0.0, 4.0, 3.0, 9.0]])
    assert likeliest_wrong(logits, torch.tensor([0, 3]), 9).tolist() == [[1, 2, 3], [1, 2, 0]]
    several = torch.tensor([[True, True, False, False], [False, False, False, True]])
    assert likeliest_wrong(logits, several, 2).tolist() == [[2, 3], [1, 2]]


@pytest.mark.parametrize(
    ("norm", "answers", "expected"),
    [
        ("linf", 1000, [("apgd", 0, 1), ("apgd-t", 9, 1), ("fab-t", 9, 1), ("square", 0, 1)]),
        ("l1", 1000, [("apgd", 0, 5), ("apgd-t", 5, 1), ("fab-t", 9, 1), ("square", 0, 1)]),
        ("l2", 6, [("apgd", 0, 1), ("apgd-t", 5, 1), ("fab-t", 5, 1), ("square", 0, 1)]),
        ("linf", 3, [("apgd", 0, 1), ("fab-t", 2, 1), ("square", 0, 1)]),
    ],
)
def test_the_ensemble_is_that_of_its_authors(norm, answers, expected):
    steps, lacking = ensemble_steps(norm, answers)
    assert [(step.name, step.targets, step.restarts) for step in steps] == expected
    assert [step.name for step in lacking] == (["apgd-t"] if answers < 4 else [])


def test_a_ratio_of_too_few_answers_is_refused():
    network, images = linear()[1], images_of(3)
    one = (network, images, right_labels(network, images), Budget("linf", 0.1), keys_of(3))
    with pytest.raises(ValueError, match="DLR needs at least 3 answers, and the network has 2"):
        apgd(*one, loss="dlr")
    with pytest.raises(ValueError, match="targeted DLR needs at least 4 answers"):
        apgd(*one, loss="dlr", targets=1)
    assert [step.name for step in ensemble_steps("linf", 2, version="rand")[0]] == ["apgd"]


def test_a_network_that_draws_random_numbers_is_attacked_through_the_mean_of_its_draws():
    """A single draw points anywhere; the mean of 30 points where the network without noise does."""
    inner = curvy(1)
    noise = torch.Generator().manual_seed(0)

    def random(x: torch.Tensor) -> torch.Tensor:
        return inner(x + 0.15 * torch.randn(x.shape, generator=noise))

    images = images_of(30, seed=2)
    labels = right_labels(inner, images)
    found = apgd(random, images, labels, Budget("linf", 4 / 255), keys_of(30), steps=10, draws=30)
    once = apgd(random, images, labels, Budget("linf", 4 / 255), keys_of(30), steps=10, draws=1)
    plain = apgd(inner, images, labels, Budget("linf", 4 / 255), keys_of(30), steps=10)
    broken = [(right_labels(inner, result.images) != labels).sum() for result in (once, found, plain)]
    assert broken[0] < broken[1] <= broken[2] + 3


def test_the_share_of_a_square_halves_as_published():
    from ipvit.perturb.attacks.square import share_of_square

    published = {1: 0.8, 10: 0.8, 11: 0.4, 51: 0.2, 201: 0.1, 501: 0.05, 1001: 0.025, 2001: 0.0125, 4001: 0.00625}
    assert {query: share_of_square(query) for query in published} == published
    assert math.isclose(share_of_square(4999), 0.00625)
