"""How often ``diff`` finds something: rarely where there is nothing, and as often as it says where there is."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats
from torch import nn

import ipvit
from ipvit.engine.manifest import read_manifest, write_manifest
from ipvit.engine.store import Store
from ipvit.metrics.paired import sign_flip_test
from ipvit.metrics.power import detectable_mean, detectable_proportion, mcnemar_power

SEEDS = 400
LEVELS = (0.4, 0.7)


def power_by_definition(n: int, disagreement: float, difference: float, alpha: float = 0.05) -> float:
    """Sum the exact test's decisions over all numbers of disagreements and all their splits."""
    found = 0.0
    for m in np.flatnonzero(stats.binom.pmf(np.arange(n + 1), n, disagreement) > 1e-8):
        k = np.arange(m + 1)
        p = np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(k, m - k), m, 0.5))
        split = stats.binom.pmf(k, m, (1 + difference / disagreement) / 2)
        found += stats.binom.pmf(m, n, disagreement) * split[p < alpha].sum()
    return float(found)


@pytest.mark.parametrize(
    ("n", "disagreement", "difference"), [(60, 0.2, 0.1), (300, 0.1, 0.05), (300, 0.1, 0.0), (900, 0.1, 0.02)]
)
def test_the_power_of_mcnemars_test_is_the_sum_over_its_outcomes(n, disagreement, difference):
    assert mcnemar_power(n, disagreement, difference) == pytest.approx(
        power_by_definition(n, disagreement, difference), abs=1e-6
    )


def test_with_many_disagreements_the_power_is_the_normal_limit():
    for n, disagreement, difference in ((2000, 0.08, 0.015), (4000, 0.06, 0.01)):
        expected = power_by_definition(n, disagreement, difference)
        assert mcnemar_power(n, disagreement, difference) == pytest.approx(expected, abs=0.01)


def test_what_is_detectable_is_found_in_four_of_five():
    for n, disagreement in ((80, 0.3), (500, 0.1), (5000, 0.1)):
        smallest = detectable_proportion(n, disagreement)
        assert mcnemar_power(n, disagreement, smallest) == pytest.approx(0.8, abs=1e-3)
    assert np.isnan(detectable_proportion(4, 0.5)), "of four images no split is significant"
    sizes = np.random.default_rng(0).normal(
        detectable_mean(200, 1.0), np.sqrt(1 - detectable_mean(200, 1.0) ** 2), (2000, 200)
    )
    found = np.mean([sign_flip_test(row, np.zeros(200)) < 0.05 for row in sizes])
    assert found == pytest.approx(0.8, abs=0.03)


def test_a_planted_drop_of_three_points_on_2000_images_is_found_as_often_as_computed():
    """Two models disagree on 16 % of the images, and the second is right less often by 3 points."""
    random, n, times = np.random.default_rng(1), 2000, 600
    power = mcnemar_power(n, 0.16, 0.03)
    assert 0.85 < power < 0.95
    found = 0
    for _ in range(times):
        kind = random.choice(4, size=n, p=(0.6, 0.24, 0.095, 0.065))  # both, neither, only the first, only the second
        first, second = np.isin(kind, (0, 2)), np.isin(kind, (0, 3))
        found += sign_flip_test(second.astype(float), first.astype(float)) < 0.05
    assert abs(found / times - power) < 3 * np.sqrt(power * (1 - power) / times)


def brightest_quarter() -> ipvit.Model:
    """A network that says which quarter of an image is the brightest, in far less time than a trained one takes."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Conv2d(3, 1, 1, bias=False), nn.Flatten())
    nn.init.constant_(network[1].weight, 30.0)
    return ipvit.wrap(network, name="brightest", size=64, crop_pct=1.0, classes=["c0", "c1", "c2", "c3"])


def noisy_quarters(n: int) -> ipvit.MemoryDataset:
    """Noise in which one quarter is a little brighter."""
    random = np.random.default_rng(0)
    labels = random.integers(4, size=n)
    images = random.normal(100, 60, (n, 3, 8, 8)).repeat(8, axis=2).repeat(8, axis=3)
    for image, label in zip(images, labels, strict=True):
        image[:, label // 2 * 32 :, label % 2 * 32 :][:, :32, :32] += 25
    return ipvit.MemoryDataset(torch.from_numpy(images.clip(0, 255).astype(np.uint8)), labels, ["c0", "c1", "c2", "c3"])


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """One network measured under 400 seeds of the masks, each in a run folder of its own.

    A run of 400 repetitions is taken apart: what another repetition is, another seed is too.
    """
    root = tmp_path_factory.mktemp("seeds")
    whole = ipvit.run(
        ipvit.Occlusion(levels=(0.0, *LEVELS), runs=SEEDS, grid="8x8"),
        models=brightest_quarter(),
        data=noisy_quarters(40),
        out=root / "whole",
        progress=False,
        workers=0,
    )
    manifest, records = read_manifest(whole.out), Store(whole.out).records("occlusion")
    assert manifest is not None
    clean = records.filter((pl.col("information_loss") == 0) & (pl.col("run") == 0))
    folders = []
    for seed in range(SEEDS):
        out = root / f"seed{seed}"
        rows = pl.concat([clean, records.filter((pl.col("information_loss") > 0) & (pl.col("run") == seed))])
        first = {
            loss: records.filter((pl.col("information_loss") == loss) & (pl.col("run") == 0))["condition"][0]
            for loss in LEVELS
        }
        rows = rows.with_columns(
            pl.lit(0).cast(records.schema["run"]).alias("run"),
            pl.lit(seed).cast(records.schema["seed"]).alias("seed"),
            pl.col("information_loss")
            .replace_strict(first, default=pl.col("condition").cast(pl.String), return_dtype=pl.String)
            .alias("condition"),
        )
        Store(out).write(rows.with_columns(pl.col(pl.Categorical).cast(pl.String)))
        write_manifest(out, manifest.model_copy(update={"seed": seed, "asked": {}}))
        folders.append(out)
    return folders


@pytest.mark.slow
def test_a_model_beside_itself_under_other_seeds_is_rarely_called_different(seeds):
    """200 comparisons: at most 18 below .05, which a test at that level exceeds in less than 1 of 100 such trials."""
    assert stats.binom.sf(18, 200, 0.05) < 0.01
    alone, corrected, drops = dict.fromkeys(LEVELS, 0), 0, 0
    for a, b in zip(seeds[::2], seeds[1::2], strict=True):
        table = ipvit.diff(a, b).tables["occlusion"].filter(pl.col("information_loss") > 0)
        assert table["information_loss"].to_list() == list(LEVELS)
        for row in table.to_dicts():
            alone[row["information_loss"]] += row["p"] < 0.05
        corrected += bool((table["p_holm"] < 0.05).any())
        drops += bool((table["drop_p_holm"] < 0.05).any())
    assert max(alone.values()) <= 18 and corrected <= 18 and drops <= 18
    assert sum(alone.values()) > 0, "a test that finds nothing in 400 has no power either"
