"""``ipvit missingness``: whether a ranking survives what dropped patches become."""

import json
import types
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
from scipy import stats

import ipvit
from ipvit.analysis.reduction import Reduction, Values
from ipvit.cli import main
from ipvit.errors import InputError
from ipvit.verdicts.missingness import missingness

DEMO = ["-m", "demo:deit_micro", "-m", "demo:resnet_micro", "-d", "demo:trifeature"]
NAMES = ("mode", "fill", "removal", "information_loss")


def run_of(right: np.ndarray, fills=("black", "mean", "blur"), clean=0.9, n=300, seed=0) -> Any:
    """A run of models that are right with given probabilities ``(models, fills)``; NaN: not measured."""
    rng = np.random.default_rng(seed)
    images = pl.Series([f"{i:04d}" for i in range(n)])
    hard = rng.random(n)  # what is hard for one model is hard for the next
    reductions = []
    for m, of_model in enumerate(right):
        keys, means = [("random", "black", "pixels", 0.0)], [hard < clean]
        for fill, share in zip(fills, of_model, strict=True):
            if np.isfinite(share):
                removal = "tokens" if fill == "tokens" else "pixels"
                for level in (0.25, 0.5):
                    keys.append(("random", "" if fill == "tokens" else fill, removal, level))
                    means.append((hard < clean) & (rng.random(n) < share / clean))
        table = np.array(means, dtype=float)
        nothing = (None,) * len(keys)
        values = Values(images, NAMES, tuple(keys), table, (frozenset({0}),) * len(keys), nothing, proportions=True)
        reductions.append(Reduction(f"net {m}", str(m), {}, values))
    chances = types.SimpleNamespace(chances=lambda found: {one.model: 0.1 for one in found})
    fake = types.SimpleNamespace(reductions=lambda _: reductions, analyses={"occlusion": chances}, out="somewhere")
    return cast("Any", fake)


def test_retained_accuracy_rank_and_tau_are_those_of_a_plain_loop():
    run = run_of(np.array([[0.7, 0.3, 0.6], [0.5, 0.5, 0.4], [0.3, 0.7, 0.5], [0.6, 0.2, 0.3]]))
    found = missingness(run)
    by_fill: dict[str, list[float]] = {}
    for fill in ("black", "mean", "blur"):
        for reduction in run.reductions(""):
            values = reduction.values
            rows = [values.means[i].mean() for i, key in enumerate(values.keys) if key[1] == fill and key[3] > 0]
            by_fill.setdefault(fill, []).append((np.mean(rows) - 0.1) / (values.means[0].mean() - 0.1))
        mine = found.ranks.filter(pl.col("fill") == fill)
        assert mine["retained"].to_list() == pytest.approx([100 * value for value in by_fill[fill]])
        assert mine["rank"].to_list() == stats.rankdata(-np.array(by_fill[fill]), method="min").tolist()
    for row in found.taus.iter_rows(named=True):
        expected = stats.kendalltau(by_fill[row["fill_a"]], by_fill[row["fill_b"]])[0]
        assert row["tau"] == pytest.approx(expected)
        assert row["tau_low"] <= row["tau"] <= row["tau_high"]


def test_planted_reversal_is_found():
    found = missingness(run_of(np.array([[0.8, 0.2], [0.6, 0.4], [0.4, 0.6], [0.2, 0.8]]), fills=("black", "blur")))
    assert "does not survive the fill" in found.sentences[0]
    assert "between black and blur, -1.00" in found.sentences[0]
    assert found.sentences[1] == "First is net 0 under black; net 3 under blur."


def test_same_order_under_all_fills_survives():
    found = missingness(run_of(np.array([[0.8] * 3, [0.55] * 3, [0.3] * 3])))
    assert "survives the fill: it is the same under black, mean and blur" in found.sentences[0]


@pytest.mark.slow
def test_models_that_are_alike_are_seldom_said_to_be_ranked_otherwise():
    said = [missingness(run_of(np.full((5, 3), 0.5), seed=seed)).sentences[0] for seed in range(40)]
    assert sum("does not survive" in text for text in said) <= 2


@pytest.mark.slow
def test_interval_of_tau_holds_that_of_all_images():
    right = np.array([[0.7, 0.45], [0.55, 0.6], [0.45, 0.3], [0.3, 0.35]])
    truth = stats.kendalltau(right[:, 0], right[:, 1])[0]
    rows = [
        missingness(run_of(right, fills=("black", "blur"), seed=seed)).taus.row(0, named=True) for seed in range(60)
    ]
    assert np.mean([row["tau_low"] - 1e-9 <= truth <= row["tau_high"] + 1e-9 for row in rows]) >= 0.9


def test_network_without_tokens_is_named_and_the_others_are_compared():
    right = np.array([[0.7, 0.6], [0.5, 0.4], [0.3, np.nan]])
    found = missingness(run_of(right, fills=("black", "tokens")))
    assert found.taus.row(0, named=True)["n_models"] == 2
    assert any("Not measured with tokens: net 2" in note for note in found.notes)
    assert found.ranks.filter(pl.col("fill") == "tokens")["model"].to_list() == ["net 0", "net 1"]


def test_network_that_guesses_is_left_out():
    run = run_of(np.array([[0.7, 0.6], [0.5, 0.4], [0.3, 0.2]]), fills=("black", "blur"))
    run.reductions("")[2].values.means[0] = 0.0
    found = missingness(run)
    assert found.notes[0] == "net 2 is left out: it does no better than guessing on clean images."
    run.reductions("")[1].values.means[0] = 0.0
    with pytest.raises(InputError, match="a ranking needs two models above chance"):
        missingness(run)


def test_command_measures_fills_and_tokens_at_equal_levels(tmp_path, capsys):
    (tmp_path / "grey.py").write_text("def grey(images, mask, key):\n    return images * 0 + 0.5\n")
    fills = ["black", "other", "tokens", f"{tmp_path}/grey.py:grey"]
    options = ["--fills", *fills, "--levels", "0.5", "--grid", "8x8", "--limit", "12", "--out", str(tmp_path / "run")]
    assert main(["missingness", *DEMO, *options, "--workers", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    own = next(row["fill"] for row in found["tables"]["missingness"] if row["fill"].startswith("grey-"))
    rows = {(row["fill"], row["model"]): row for row in found["tables"]["missingness"]}
    assert {fill for fill, _ in rows} == {"black", "other", "tokens", own}
    assert ("tokens", "demo:resnet_micro") not in rows and ("tokens", "demo:deit_micro") in rows
    records = ipvit.Run(tmp_path / "run").records("occlusion").filter(pl.col("information_loss") > 0)
    assert records["dropped"].cast(pl.Float64).unique().to_list() == [0.5]
    assert (tmp_path / "run/figures/missingness.svg").is_file() and (
        tmp_path / "run/tables/missingness-tau.csv"
    ).is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-m", "demo:deit_micro", "-d", "demo:trifeature"], "give two or more with --model"),
        ([*DEMO, "--fills", "tokens"], "give two or more to set side by side"),
        ([*DEMO, "--fills", "black", "blurr"], "there is no fill 'blurr'"),
        ([*DEMO, "--levels", "1.5"], "levels"),
    ],
)
def test_what_cannot_be_ranked_is_said_before_anything_is_measured(arguments, said, capsys, tmp_path):
    assert main(["missingness", *arguments, "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
