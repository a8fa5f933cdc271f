"""Linear heads against plain references, and heads fitted together against heads fitted alone."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from ipvit.experiments.probe.experiment import PENALTIES
from ipvit.features.linear_heads import HeadRecipe, Heads, Inputs, fit_by_steps, fit_logistic
from ipvit.features.store import Features
from ipvit.models.readout import FeatureSpec

CLASS, PATCH = FeatureSpec(0, "class"), FeatureSpec(0, "mean_patch")


def made_up(n: int = 300, width: int = 12, classes: int = 4, apart: float = 1.0, seed: int = 0):
    """Clouds around one centre per class, in columns of very different scale and offset; and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    centres = apart * np.random.default_rng(99).normal(size=(classes, 2 * width))
    raw = centres[labels] + rng.normal(size=(n, 2 * width))
    raw = (raw * np.linspace(0.1, 20, 2 * width) + 7).astype(np.float32)
    arrays = {CLASS: raw[:, :width], PATCH: raw[:, width:]}
    features = Features(arrays, np.arange(n), labels, [str(i) for i in range(n)], {})
    return features, torch.from_numpy(labels)


def standardised(features: Features, *reads: FeatureSpec) -> np.ndarray:
    raw = features.matrix(reads).astype(np.float64)
    return (raw - raw.mean(axis=0)) / raw.std(axis=0)


def by_scipy(rows: np.ndarray, labels: np.ndarray, classes: int, penalty: float) -> np.ndarray:
    """Weights and biases, minimised in float64 by another implementation."""
    n, width = rows.shape

    def objective(point: np.ndarray):
        weight, bias = point[:-classes].reshape(classes, width), point[-classes:]
        logits = rows @ weight.T + bias
        logits -= logits.max(axis=1, keepdims=True)
        probability = np.exp(logits)
        probability /= probability.sum(axis=1, keepdims=True)
        loss = -np.log(probability[np.arange(n), labels]).mean() + penalty / 2 * (weight**2).sum()
        probability[np.arange(n), labels] -= 1
        return loss, np.concatenate([(probability.T @ rows / n + penalty * weight).ravel(), probability.mean(axis=0)])

    return minimize(
        objective,
        np.zeros(classes * (width + 1)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9},
    ).x


@pytest.mark.parametrize("penalty", [1.0, 0.01, 1e-3])
def test_logistic_regression_finds_the_minimum_that_scipy_finds(penalty):
    features, labels = made_up()
    heads = fit_logistic(Inputs([features], [CLASS]), labels, 4, [penalty])
    wanted = by_scipy(standardised(features, CLASS), labels.numpy(), 4, penalty)
    assert bool(heads.converged.all())
    assert np.allclose(heads.weight[0].flatten(), wanted[:-4], atol=1e-2)
    bias = wanted[-4:] - wanted[-4:].mean()  # a constant added to all classes changes nothing
    assert np.allclose(heads.bias[0] - heads.bias[0].mean(), bias, atol=1e-2)


def test_penalties_fitted_together_give_what_each_gives_alone():
    features, labels = made_up()
    inputs, penalties = Inputs([features], [CLASS, PATCH]), [1e-4, 1e-2, 1.0]
    together = fit_logistic(inputs, labels, 4, penalties)
    for number, penalty in enumerate(penalties):
        alone = fit_logistic(inputs, labels, 4, [penalty])
        assert torch.allclose(together.weight[number], alone.weight[0], atol=1e-2)


def test_a_fit_that_is_cut_short_says_so_and_one_that_is_not_says_how_long_it_took():
    features, labels = made_up()
    inputs = Inputs([features], [CLASS])
    short = fit_logistic(inputs, labels, 4, [1e-4, 1.0], most_steps=3)
    assert short.converged.tolist() == [False, False] and short.steps.tolist() == [3, 3]
    whole = fit_logistic(inputs, labels, 4, [1e-4, 1.0])
    assert whole.converged.all() and (whole.steepest <= 1e-5).all() and (short.steepest > 1e-5).all()
    assert whole.steps[0] > whole.steps[1] > 3, "a weak penalty takes longer, and does not hold up the other head"


def by_torch(rows: np.ndarray, labels: torch.Tensor, classes: int, rate: float, decay: float, recipe: HeadRecipe):
    """A plain training loop with torch's own optimiser and scheduler."""
    head = nn.Linear(rows.shape[1], classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    groups = [{"params": [head.weight], "weight_decay": decay}, {"params": [head.bias], "weight_decay": 0.0}]
    optimiser: torch.optim.Optimizer = (
        torch.optim.SGD(groups, rate, momentum=0.9) if recipe.optimiser == "sgd" else torch.optim.AdamW(groups, rate)
    )
    per_epoch = len(rows) // recipe.batch
    steps = recipe.epochs * per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: (1 + np.cos(np.pi * step / steps)) / 2 if recipe.schedule == "cosine" else 1.0
    )
    for epoch in range(recipe.epochs):
        order = np.random.default_rng((recipe.seed, epoch)).permutation(len(rows))
        for number in range(per_epoch):
            chosen = order[number * recipe.batch : (number + 1) * recipe.batch]
            loss = nn.functional.cross_entropy(head(torch.from_numpy(rows[chosen]).float()), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return head


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_every_head_of_a_grid_is_that_of_a_plain_training_loop(optimiser, schedule):
    features, labels = made_up()
    recipe = HeadRecipe(optimiser, epochs=3, batch=64, schedule=schedule, seed=5)
    pairs = [(0.1, 0.0), (0.01, 0.05), (0.003, 0.5)]
    one, both = Inputs([features], [CLASS]), Inputs([features], [CLASS, PATCH])
    first, second = fit_by_steps([one, both], labels, 4, [pairs, pairs[:2]], recipe)
    for heads, reads, own in ((first, [CLASS], pairs), (second, [CLASS, PATCH], pairs[:2])):
        for number, (rate, decay) in enumerate(own):
            head = by_torch(standardised(features, *reads), labels, 4, rate, decay, recipe)
            assert torch.allclose(heads.weight[number], head.weight, atol=1e-4)
            assert torch.allclose(heads.bias[number], head.bias, atol=1e-4)


def test_heads_trained_together_are_those_trained_alone():
    features, labels = made_up()
    recipe = HeadRecipe("adamw", epochs=4, batch=50, initial_deviation=0.02)
    several = [Inputs([features], [CLASS]), Inputs([features], [PATCH]), Inputs([features], [CLASS, PATCH])]
    pairs = [(1e-2, 0.0), (1e-3, 0.05)]
    together = fit_by_steps(several, labels, 4, [pairs] * 3, recipe)
    for inputs, heads in zip(several, together, strict=True):
        for number, pair in enumerate(pairs):
            (alone,) = fit_by_steps([inputs], labels, 4, [[pair]], recipe)
            assert torch.allclose(heads.weight[number], alone.weight[0], atol=1e-5)


def test_features_that_do_not_fit_into_memory_give_the_same_head():
    features, labels = made_up()
    inside, outside = Inputs([features], [CLASS]), Inputs([features], [CLASS], memory=0)
    for index in (slice(3, 9), np.array([8, 2, 2])):
        assert torch.allclose(inside.rows(index), outside.rows(index), atol=1e-5)
    one, other = (fit_logistic(inputs, labels, 4, [1e-2]) for inputs in (inside, outside))
    assert torch.allclose(one.weight, other.weight, atol=1e-4)


def test_rows_are_counted_through_several_data_sets():
    (first, _), (second, _) = made_up(20), made_up(30, seed=1)
    rows = np.array([5, 19, 20, 49])
    found = Inputs([first, second], [PATCH, CLASS], rows, standardise=False).rows(slice(0, 4))
    wanted = np.concatenate([first.matrix([PATCH, CLASS])[[5, 19]], second.matrix([PATCH, CLASS])[[0, 29]]])
    assert np.allclose(found, wanted)


def test_a_plain_head_answers_on_raw_features_as_the_fitted_one_on_standardised_ones():
    features, labels = made_up()
    inputs = Inputs([features], [CLASS])
    heads = fit_logistic(inputs, labels, 4, [1e-3])
    weight, bias = heads.plain(0, inputs)
    raw = torch.from_numpy(features.matrix([CLASS])) @ weight.T + bias
    assert torch.allclose(raw, inputs.rows(slice(0, 300)) @ heads.weight[0].T + heads.bias[0], atol=1e-3)


def test_a_column_that_never_changes_is_harmless():
    features, labels = made_up(50)
    features._arrays[CLASS][:, 3] = 5.0
    inputs = Inputs([features], [CLASS])
    assert torch.isfinite(inputs.rows(slice(0, 50))).all() and inputs.scale[3] == 1
    assert torch.isfinite(fit_logistic(inputs, labels, 4, [1e-4]).weight).all()


def accuracy_on_new(heads: Heads, inputs: Inputs, apart: float, shuffled: bool = False) -> float:
    others, labels = made_up(2000, apart=apart, seed=7)
    labels = labels[torch.randperm(2000, generator=torch.Generator().manual_seed(0))] if shuffled else labels
    correct, _ = heads.evaluate(Inputs([others], inputs.specs, like=inputs), labels)
    return float(correct[0])


def test_separable_clouds_are_told_apart_without_a_mistake():
    features, labels = made_up(apart=8.0)
    inputs = Inputs([features], [CLASS])
    assert accuracy_on_new(fit_logistic(inputs, labels, 4, [1e-3]), inputs, 8.0) == 1.0
    for recipe, pair in ((HeadRecipe("sgd", batch=64), (0.1, 0.0)), (HeadRecipe("adamw", batch=64), (1e-2, 0.05))):
        (heads,) = fit_by_steps([inputs], labels, 4, [[pair]], recipe)
        assert accuracy_on_new(heads, inputs, 8.0) == 1.0


def test_shuffled_labels_teach_nothing():
    features, labels = made_up(apart=8.0)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    inputs = Inputs([features], [CLASS])
    heads = fit_logistic(inputs, labels, 4, [1e-3])
    assert 0.1 < accuracy_on_new(heads, inputs, 8.0) < 0.4


SEPARABLE, WIDE = {"n": 120, "width": 40, "classes": 5, "apart": 3.0}, {"n": 200, "width": 200, "classes": 8}
LARGE = {"n": 3000, "width": 30, "classes": 10, "apart": 0.5}


@pytest.mark.parametrize("kind", [SEPARABLE, WIDE, LARGE], ids=["separable", "wide", "large"])
def test_every_default_penalty_reaches_its_minimum_where_it_says_so(kind):
    features, labels = made_up(**kind)
    rows, classes = standardised(features, CLASS), kind["classes"]
    heads = fit_logistic(Inputs([features], [CLASS]), labels, classes, PENALTIES)
    assert bool(heads.converged.all())
    others = standardised(made_up(**kind | {"n": 40}, seed=5)[0], CLASS)
    for number, penalty in enumerate(PENALTIES):
        wanted = by_scipy(rows, labels.numpy(), classes, penalty)
        weight, bias = wanted[:-classes].reshape(classes, -1), wanted[-classes:]
        own = heads.weight[number].double().numpy(), heads.bias[number].double().numpy()
        least = penalised(rows, labels.numpy(), weight, bias, penalty)
        assert least * 0.999 < penalised(rows, labels.numpy(), *own, penalty) < least * 1.001, penalty
        assert ((others @ own[0].T + own[1]).argmax(1) == (others @ weight.T + bias).argmax(1)).mean() >= 0.975


def penalised(rows: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray, penalty: float) -> float:
    logits = rows @ weight.T + bias
    logits -= logits[np.arange(len(rows)), labels][:, None]
    return float(np.logaddexp.reduce(logits, axis=1).mean() + penalty / 2 * (weight**2).sum())
