"""The tables of the experiment on corruptions, held against errors that are counted one by one."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch

import ipvit
from helpers.analysis import tables_of
from helpers.comparison import printed
from helpers.plain_loops import photos
from ipvit.data.dataset import MemoryDataset
from ipvit.experiments.corruptions.analysis import _latest
from ipvit.metrics import mce, mean_error, relative_mce
from ipvit.metrics.bootstrap import resampled_means
from ipvit.metrics.mce import ALEXNET_ERROR
from ipvit.models.label_spaces import imagenet_classes


def made_up_records(n: int = 40, models: int = 2, imagenet: bool = True, seed: int = 0) -> pl.DataFrame:
    """Right or wrong at random, more often wrong the higher the severity and the harder it is for AlexNet."""
    rng = np.random.default_rng(seed)
    rows = []
    for model in range(models):
        cells = [("clean", 0, 0.3)] + [(c, s, e) for c, by in ALEXNET_ERROR.items() for s, e in by.items()]
        for corruption, severity, error in cells:
            wrong = rng.uniform(size=n) < error * (0.9 - 0.2 * model)
            made = "" if corruption == "clean" else "on the fly"
            rows += [
                {
                    "model": f"net{model}",
                    "weights": f"{model}",
                    "image": f"i{i:03d}",
                    "corruption": corruption,
                    "severity": severity,
                    "made": made,
                    "frost": "drawn" if corruption == "frost" else "",
                    "imagenet": imagenet,
                    "label": 0,
                    "correct": not w,
                    "correct5": True,
                }
                for i, w in enumerate(wrong)
            ]
    return pl.DataFrame(rows)


def errors_by_hand(records: pl.DataFrame, model: str) -> tuple[dict, float]:
    errors: dict = {}
    for row in records.filter(pl.col("model") == model).iter_rows(named=True):
        errors.setdefault(row["corruption"], {}).setdefault(row["severity"], []).append(not row["correct"])
    means = {c: {s: float(np.mean(w)) for s, w in by.items()} for c, by in errors.items()}
    return {c: by for c, by in means.items() if c != "clean"}, means["clean"][0]


def test_each_of_the_three_measures_stands_under_its_own_name():
    records = made_up_records()
    table = tables_of(ipvit.Corruptions(), records)["corruptions-mce"]
    for row in table.iter_rows(named=True):
        errors, clean = errors_by_hand(records, row["model"])
        assert row["mce"] == pytest.approx(mce(errors))
        assert row["relative_mce"] == pytest.approx(relative_mce(errors, clean))
        assert row["mean_error"] == pytest.approx(mean_error(errors))
        assert row["clean_error"] == pytest.approx(100 * clean)
        assert row["reference"] == "AlexNet" and row["made"] == "on the fly" and row["n_images"] == 40
        for name in ("mce", "relative_mce", "mean_error", "clean_error"):
            assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]


def test_a_network_of_the_run_can_take_alexnets_place():
    records = made_up_records()
    tables = tables_of(ipvit.Corruptions(normaliser="net0"), records)
    reference, other = tables["corruptions-mce"].iter_rows(named=True)
    assert (reference["mce"], reference["mce_low"], reference["mce_high"]) == pytest.approx((100, 100, 100))
    assert reference["relative_mce"] == pytest.approx(100)
    (own, own_clean), (theirs, clean) = errors_by_hand(records, "net0"), errors_by_hand(records, "net1")
    assert other["mce"] == pytest.approx(mce(theirs, own))
    assert other["relative_mce"] == pytest.approx(relative_mce(theirs, clean, own, own_clean))
    by_name = tables["corruptions-ce"].filter(model="net1", corruption="fog")["ce"][0]
    assert by_name == pytest.approx(100 * sum(theirs["fog"].values()) / sum(own["fog"].values()))


def test_intervals_are_those_of_a_bootstrap_over_images_with_one_always_right_and_one_always_wrong():
    records = made_up_records(n=30, models=1)
    row = tables_of(ipvit.Corruptions(), records)["corruptions-mce"].row(0, named=True)
    weight = {c: 100 / 15 / sum(by.values()) for c, by in ALEXNET_ERROR.items()}  # mCE is linear in the errors
    per_image = [
        sum(weight[r["corruption"]] * (not r["correct"]) for r in group.iter_rows(named=True) if r["severity"])
        for _, group in records.group_by("image", maintain_order=True)
    ]
    rng = np.random.default_rng(5)
    with_pseudo_counts = [*per_image, 0, sum(5 * w for w in weight.values())]
    means = [np.mean(rng.choice(with_pseudo_counts, 30)) for _ in range(4000)]
    low, high = np.quantile(means, (0.025, 0.975))
    assert np.mean(per_image) == pytest.approx(row["mce"])
    assert (row["mce_low"], row["mce_high"]) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_the_order_of_the_records_does_not_move_the_intervals():
    records = made_up_records(n=15, models=1)
    first = tables_of(ipvit.Corruptions(), records)["corruptions-mce"]
    assert tables_of(ipvit.Corruptions(), records.sample(fraction=1, shuffle=True, seed=1))["corruptions-mce"].equals(
        first
    )


def test_there_is_no_mce_of_fewer_corruptions_and_the_summary_says_what_is_missing():
    records = made_up_records(models=1).filter(
        ~((pl.col("corruption") == "fog") | ((pl.col("corruption") == "snow") & (pl.col("severity") == 2)))
    )
    tables = tables_of(ipvit.Corruptions(), records)
    row = tables["corruptions-mce"].row(0, named=True)
    assert row["mce"] is None and row["relative_mce"] is None and row["mean_error"] > 0 and row["n_corruptions"] == 14
    assert tables["corruptions-ce"].filter(corruption="snow")["severities"][0] == "1 3 4 5"
    assert "without fog, snow at 2." in ipvit.Corruptions().analysis().summary(tables)[0]


def test_alexnets_errors_are_not_applied_to_other_classes_than_imagenets():
    tables = tables_of(ipvit.Corruptions(), made_up_records(imagenet=False))
    assert tables["corruptions-mce"]["mce"].is_null().all() and tables["corruptions-ce"]["ce"].is_null().all()
    assert "give one of the networks as normaliser" in ipvit.Corruptions().analysis().summary(tables)[0]
    assert (
        tables_of(ipvit.Corruptions(normaliser="net1"), made_up_records(imagenet=False))["corruptions-mce"]["mce"]
        .is_not_null()
        .all()
    )


def test_a_reference_without_an_error_gives_no_corruption_error():
    records = made_up_records(n=10).with_columns(
        correct=pl.col("correct") | ((pl.col("model") == "net0") & (pl.col("corruption") == "brightness"))
    )
    tables = tables_of(ipvit.Corruptions(normaliser="net0"), records)
    assert tables["corruptions-ce"].filter(model="net1", corruption="brightness")["ce"][0] is None
    assert tables["corruptions-mce"].filter(model="net1")["mce"][0] is None
    assert "makes no error" in ipvit.Corruptions().analysis().summary(tables)[1]


def test_the_four_extra_corruptions_are_shown_and_do_not_count():
    records = made_up_records(models=1)
    extra = records.filter(pl.col("corruption") == "fog").with_columns(corruption=pl.lit("spatter"), correct=False)
    tables = tables_of(ipvit.Corruptions(), pl.concat([records, extra]))
    with_them, without = tables["corruptions-mce"], tables_of(ipvit.Corruptions(), records)["corruptions-mce"]
    assert with_them.equals(without)
    spatter = tables["corruptions-ce"].filter(corruption="spatter").row(0, named=True)
    assert spatter["family"] == "extra" and spatter["mean_error"] == 100 and spatter["ce"] is None


def test_the_extra_corruptions_alone_have_no_mean_error_and_a_summary_all_the_same():
    records = made_up_records(models=1).filter(pl.col("corruption").is_in(["clean", "fog"]))
    records = records.with_columns(corruption=pl.col("corruption").replace("fog", "spatter"))
    tables = tables_of(ipvit.Corruptions(), records)
    said = ipvit.Corruptions(corruptions=("spatter",)).analysis().summary(tables)[0]
    assert said.startswith("net0 (on the fly): clean ") and "no mCE" in said
    without_clean = tables_of(ipvit.Corruptions(), records.filter(pl.col("severity") > 0))
    assert "no mean error" in ipvit.Corruptions(corruptions=("spatter",)).analysis().summary(without_clean)[0]


def test_means_over_different_photos_are_told():
    records = made_up_records(models=1)
    partly = records.filter((pl.col("corruption") != "snow") | (pl.col("severity") != 5) | (pl.col("image") < "i010"))
    told = "net0 (on the fly): not every corruption was measured on the same photos, snow at 5 on 10 of 40"
    assert any(
        said.startswith(told) for said in ipvit.Corruptions().analysis().summary(tables_of(ipvit.Corruptions(), partly))
    )
    assert not any(
        "same photos" in said
        for said in ipvit.Corruptions().analysis().summary(tables_of(ipvit.Corruptions(), records))
    )


def test_families_average_their_corruptions_and_begin_at_the_clean_image():
    records = made_up_records(models=1)
    table = tables_of(ipvit.Corruptions(), records)["corruptions-family"]
    assert table.filter(severity=0)["top1"].n_unique() == 1
    for row in table.filter(pl.col("severity") > 0).iter_rows(named=True):
        members = {"noise": 3, "blur": 4, "weather": 4, "digital": 4}[row["family"]]
        assert row["n_corruptions"] == members and row["n_images"] == 40
    noise = records.filter(pl.col("corruption").str.ends_with("noise"), severity=2)
    assert table.filter(family="noise", severity=2)["top1"][0] == pytest.approx(100 * noise["correct"].mean())


def test_frost_with_other_pictures_is_another_variant_of_every_network_with_all_that_is_no_frost():
    """Families, which average over corruptions, must not mix two sets of frost pictures, nor miss what has none."""
    records = made_up_records(n=10, models=2)
    frost = pl.col("corruption") == "frost"
    other = records.filter(frost, model="net0").with_columns(frost=pl.lit("abcd1234"), correct=False)
    tables = tables_of(
        ipvit.Corruptions(), pl.concat([records.filter(model="net0"), other, records.filter(model="net1")])
    )
    label = "on the fly, frost pictures abcd1234"
    cells = tables["corruptions"].filter(made=label)
    assert cells.filter(model="net0").height == 1 + 15 * 5 and cells.filter(model="net1").height == 1 + 14 * 5
    assert set(cells.filter(corruption="frost")["top1"]) == {0.0}
    weather = tables["corruptions-family"].filter(family="weather", severity=3)
    corruptions = {(row["model"], row["made"]): row["n_corruptions"] for row in weather.iter_rows(named=True)}
    assert corruptions == {
        ("net0", "on the fly"): 4,
        ("net0", label): 4,
        ("net1", "on the fly"): 4,
        ("net1", label): 3,
    }
    mine = records.filter(model="net0", severity=3)
    snow, fog, brightness = (mine.filter(corruption=name)["correct"].mean() for name in ("snow", "fog", "brightness"))
    with_other = weather.filter(model="net0", made=label)["top1"].item()
    assert with_other == pytest.approx(100 * (snow + fog + brightness + 0) / 4)
    noise = tables["corruptions-family"].filter(family="noise", model="net1").drop("made")
    assert noise[:6].equals(noise[6:]), "the same with any frost"
    overall = tables["corruptions-mce"].filter(made=label)
    assert overall["n_corruptions"].to_list() == [15, 14] and overall["mce"].null_count() == 1


def test_what_was_made_on_the_fly_is_never_called_comparable():
    tables = tables_of(ipvit.Corruptions(), made_up_records(models=1))
    assert set(tables["corruptions"]["made"]) == {"on the fly"}
    assert "do not compare" in ipvit.Corruptions().analysis().summary(tables)[-1]
    figures = ipvit.Corruptions().analysis().figures(tables)
    assert set(figures) == {"corruptions", "corruptions-family", "corruptions-ce", "corruptions-mce"}


def test_resampled_means_are_those_of_whole_images():
    values = np.array([[0.0, 1.0, np.nan], [1.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    means = resampled_means(values, 3000, seed=2)
    assert means.shape == (3000, 3)
    assert np.allclose(means[:, 0] + means[:, 1], 1)  # the first two columns stay together
    assert means[:, 0].std() == pytest.approx(np.sqrt(0.75 * 0.25 / 4), rel=0.05)
    assert np.nanmean(means[:, 2]) == pytest.approx(2 / 3, abs=0.02)
    assert np.array_equal(means[:, :2], resampled_means(values[:, :2], 3000, seed=2))
    with pytest.raises(ValueError, match="one row per image"):
        resampled_means(np.empty((0, 3)))


def test_imagenet_networks_get_an_mce_and_the_paper_stands_beside_files_only(tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 1000))
    model = ipvit.wrap(net, size=16, crop_pct=1.0, classes=imagenet_classes(), name="deit_tiny_patch16_224")
    pixels = torch.stack([photos(2, 16).read(i) for i in range(2)])
    data = MemoryDataset(pixels, [0, 1], imagenet_classes()[:2])
    run = ipvit.run(ipvit.Corruptions(), models=model, data=data, out=tmp_path, progress=False, workers=0)
    row = run.tables["corruptions-mce"].row(0, named=True)
    errors, _ = errors_by_hand(run.records("corruptions"), model.name)
    assert row["mce"] == pytest.approx(mce(errors)) and row["reference"] == "AlexNet"
    assert "corruptions-paper" not in run.tables, "the paper measured the published files"
    assert printed("corruptions", "deit_tiny")["mce"].to_list() == [71.1]


@pytest.mark.parametrize(
    ("made", "revision", "words"),
    [
        ("on the fly", None, " with an earlier motion blur and snow"),
        ("on the fly", 1, " with an earlier motion blur and snow"),
        ("on the fly", 2, ""),
        ("keyed 1, on the fly", None, ""),
    ],
)
def test_networks_are_only_compared_on_the_same_revisions_of_corruptions(made, revision, words):
    records = made_up_records(n=4, models=1).with_columns(
        pl.when(pl.col("made") == "").then(pl.lit("")).otherwise(pl.lit(made)).alias("made")
    )
    if revision is not None:
        revised = pl.col("corruption").is_in(["motion_blur", "snow"])
        records = records.with_columns(revision=pl.when(revised).then(revision))
    analysis = ipvit.Corruptions().analysis()
    found = dataclasses.replace(analysis.reduce(records), size=(16, 16))
    assert analysis.kind(found) == f"corrupted at 16x16 pixels{words}"


def test_results_of_an_earlier_revision_of_a_corruption_do_not_count():
    rows = {"model": "m", "made": "x", "frost": "", "severity": 1, "imagenet": False}
    old = pl.DataFrame([rows | {"image": str(i), "corruption": "snow", "correct": True} for i in range(4)])
    new = pl.DataFrame([rows | {"image": str(i), "corruption": "snow", "correct": False} for i in range(4)])
    fog = pl.DataFrame([rows | {"image": str(i), "corruption": "fog", "correct": True} for i in range(4)])
    both = pl.concat([old, new.with_columns(revision=2), fog], how="diagonal_relaxed")
    kept = _latest(both)
    assert kept.group_by("corruption").agg(pl.col("correct").mean()).sort("corruption").rows() == [
        ("fog", 1.0),
        ("snow", 0.0),
    ]
    assert _latest(old).equals(old)
