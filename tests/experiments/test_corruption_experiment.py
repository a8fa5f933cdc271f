"""The experiment on corruptions: what is measured, in the workers, and the tables made of it."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import ipvit
from helpers import plain_loops
from helpers.analysis import tables_of
from helpers.comparison import printed
from helpers.plain_loops import rearranged
from helpers.tiny import tiny_model
from ipvit.cli import main
from ipvit.data import load_dataset
from ipvit.data.corruption import Corruption
from ipvit.data.dataset import MemoryDataset
from ipvit.engine.examples import read_examples
from ipvit.errors import InputError
from ipvit.experiments.base import BindContext, Condition, Experiment, Records
from ipvit.experiments.corruptions.analysis import _latest
from ipvit.experiments.scoring import classify
from ipvit.metrics import mce, mean_error, relative_mce
from ipvit.metrics.bootstrap import resampled_means
from ipvit.metrics.mce import ALEXNET_ERROR
from ipvit.models.label_spaces import imagenet_classes
from ipvit.perturb import keys
from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA, corrupt, jpeg85

CLASSES = [f"c{i}" for i in range(4)]
KEY = ["model", "image", "corruption", "severity"]
DISCRETE = [*KEY, "label", "prediction", "correct"]


def photos(n: int = 6, seed: int = 0, size: int = 16) -> MemoryDataset:
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 5, 5, 3), dtype=np.uint8)
    large = [np.asarray(Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC)) for c in coarse]
    pixels = torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2)
    return MemoryDataset(pixels, np.arange(n) % 4, CLASSES, ids=[f"photo {i}" for i in range(n)])


def measured(*arguments, **options) -> pl.DataFrame:
    return plain_loops.measured(*arguments, **options).sort("model", "image", "condition")


def small(**changes) -> ipvit.Corruptions:
    return ipvit.Corruptions(**{"corruptions": ("shot_noise", "frost", "contrast"), "severities": (2, 5)} | changes)


# --- what is measured ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jpeg", [True, False])
def test_predictions_equal_a_plain_loop_over_single_images(tmp_path, jpeg):
    model, data = tiny_model(), photos()
    experiment = ipvit.Corruptions(corruptions=CORRUPTIONS + EXTRA, severities=(1, 4), jpeg=jpeg)
    records = measured(experiment, model, data, tmp_path, seed=3)
    got = {(r["image"], r["corruption"], r["severity"]): r["confidence"] for r in records.iter_rows(named=True)}
    assert len(got) == 6 * (1 + 19 * 2)
    for index, name in enumerate(data.ids):
        image = data.read(index).permute(1, 2, 0).contiguous().numpy()
        versions = {("clean", 0): image}
        for corruption in CORRUPTIONS + EXTRA:
            for severity in (1, 4):
                made = corrupt(image, corruption, severity, keys([name], "corruptions", 3)[0])
                versions[corruption, severity] = jpeg85(made) if jpeg else made
        for place, version in versions.items():
            pixels = torch.from_numpy(version.copy()).permute(2, 0, 1)[None].float() / 255
            with torch.inference_mode():
                expected = model(pixels).softmax(1).max().item()
            assert got[name, *place] == pytest.approx(expected, abs=1e-5), place


@pytest.mark.parametrize(
    "options", [{"batch_size": 1}, {"batch_size": 4}, {"workers": 2, "batch_size": 2}, {"workers": 1}]
)
def test_batch_size_and_workers_do_not_change_the_records(tmp_path, options):
    reference = measured(small(), tiny_model(), photos(), tmp_path / "a")
    other = measured(small(), tiny_model(), photos(), tmp_path / "b", **options)
    assert reference.select(DISCRETE).equals(other.select(DISCRETE))
    assert np.allclose(reference["confidence"], other["confidence"], atol=1e-6)


def test_the_order_of_the_images_and_the_other_corruptions_do_not_change_the_records(tmp_path):
    data = photos()
    shuffled = rearranged(data, [4, 2, 0, 5, 1, 3])
    first = measured(small(), tiny_model(), data, tmp_path / "a")
    alone = measured(small(corruptions=("frost",), severities=(5,)), tiny_model(), shuffled, tmp_path / "b")
    both = first.join(alone, on=KEY, how="inner")
    assert both.height == 12 and both["confidence"].equals(both["confidence_right"].alias("confidence"))


def test_another_seed_is_another_noise_and_the_same_contrast(tmp_path):
    first = measured(small(), tiny_model(), photos(), tmp_path / "a")
    other = measured(small(), tiny_model(), photos(), tmp_path / "b", seed=1)
    both = first.join(other, on=KEY)
    same = {
        name: np.allclose(group["confidence"], group["confidence_right"], atol=1e-7)
        for (name,), group in both.group_by("corruption")
    }
    assert same == {"clean": True, "contrast": True, "shot_noise": False, "frost": False}


def test_more_severities_measure_only_the_new_ones_and_other_frost_only_the_frost(tmp_path):
    model, data = tiny_model(), photos()
    measured(small(severities=(2,)), model, data, tmp_path / "out")
    run = ipvit.run(small(), models=model, data=data, out=tmp_path / "out", progress=False, workers=0)
    assert run.manifest.measured_in_this_call == 6 * 3
    pictures = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), dtype=np.uint8)
    for number, picture in enumerate(pictures, start=1):
        Image.fromarray(picture).save(tmp_path / f"frost{number}.png")
    experiment = small(frost=str(tmp_path))
    run = ipvit.run(experiment, models=model, data=data, out=tmp_path / "out", progress=False, workers=0)
    assert run.manifest.measured_in_this_call == 6 * 2
    table = run.tables["corruptions-mce"]
    assert table["made"].to_list()[0] == "on the fly, JPEG 85" and "frost pictures" in table["made"][1]
    assert table["n_images"].to_list() == [6, 6] and table["n_corruptions"].to_list() == [3, 3]
    assert run.report().stat().st_size > 0


def test_the_manifest_names_the_version_of_opencv(tmp_path):
    run = ipvit.run(small(), models=tiny_model(), data=photos(), out=tmp_path, progress=False, workers=0)
    assert run.manifest.versions["opencv-python-headless"]


# --- the seam: pictures altered in the workers ---------------------------------------------------------------------

CALLS: list[tuple[str, int, int]] = []


@dataclasses.dataclass(frozen=True)
class Darker:
    """An alteration that counts its calls, and fails where it is told to."""

    factor: int
    broken: bool = False

    def __call__(self, pixels, image_id, seed):
        if self.broken:
            raise RuntimeError("broken on purpose")
        CALLS.append((image_id, self.factor, pixels.shape[-1]))
        return pixels // self.factor


@dataclasses.dataclass(frozen=True)
class DarkerCondition(Condition):
    factor: int


class Darkened(Experiment):
    name = "darkened"
    title = reproduces = question = "Darkened"
    factors: tuple[int, ...] = (2, 4)
    broken: bool = False

    def conditions(self, model):
        return [DarkerCondition(factor) for factor in (1, *self.factors)]

    def image_transform(self, condition):
        return None if condition.factor == 1 else Darker(condition.factor, self.broken)

    def measure(self, model, batch):
        for condition in batch.conditions:
            light = batch.images.mean((1, 2, 3))
            yield Records(condition, {**classify(model, batch.images, batch.labels), "light": light})


def test_a_picture_is_read_once_and_altered_once_for_all_networks_with_the_same_view(tmp_path):
    data = rearranged(photos(), range(6))
    CALLS.clear()
    models = [tiny_model(0, name="one"), tiny_model(1, name="two"), tiny_model(2, size=8, name="small")]
    records = measured(Darkened(), models, data, tmp_path, batch_size=4)
    assert data.reads == 6 and records.height == 3 * 3 * 6
    assert len(CALLS) == len(set(CALLS)) == 6 * 2 * 2  # images x factors x sizes
    light = {(r["model"], r["image"], r["factor"]): r["light"] for r in records.iter_rows(named=True)}
    for (model, image, factor), value in light.items():
        assert value == pytest.approx(light[model, image, 1] / factor, abs=0.005)


def test_one_alteration_after_the_other_is_made_so_that_memory_stays_flat(tmp_path, monkeypatch):
    events = []
    plain = Darkened.measure
    monkeypatch.setattr(Darker, "__call__", lambda self, pixels, *_: events.append(self.factor) or pixels // 2)
    monkeypatch.setattr(Darkened, "measure", lambda self, m, batch: events.append("measured") or plain(self, m, batch))
    measured(Darkened(factors=(2, 4)), tiny_model(), photos(4), tmp_path, batch_size=2)
    batch = ["measured", 2, 2, "measured", 4, 4, "measured"]
    assert events == [*batch, *batch]


def test_only_what_is_missing_is_altered(tmp_path):
    data, model = photos(), tiny_model()
    measured(Darkened(factors=(2,)), model, data, tmp_path, limit=3)
    CALLS.clear()
    measured(Darkened(factors=(2, 4)), model, data, tmp_path)
    assert sorted(factor for _, factor, _ in CALLS) == [2] * 3 + [4] * 6
    CALLS.clear()
    measured(Darkened(factors=(2, 4)), model, data, tmp_path)
    assert not CALLS


@pytest.mark.parametrize("workers", [0, 1])
def test_an_alteration_that_fails_is_recorded_and_the_rest_goes_on(tmp_path, workers):
    run = ipvit.run(
        [Darkened(broken=True), ipvit.Shuffle(grids=("2x2",))],
        models=tiny_model(),
        data=photos(),
        out=tmp_path,
        progress=False,
        workers=workers,
    )
    failures = run.manifest.failures
    assert len(failures) == 2 and {failure.error for failure in failures} == {"RuntimeError: broken on purpose"}
    assert run.records("shuffle").height == 12
    assert run.records("darkened")["factor"].to_list() == [1] * 6


# --- tables --------------------------------------------------------------------------------------------------------


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


# --- what a user sees ----------------------------------------------------------------------------------------------


def test_imagenet_networks_get_an_mce_and_the_paper_stands_beside_files_only(tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 1000))
    model = ipvit.wrap(net, size=16, crop_pct=1.0, classes=imagenet_classes(), name="deit_tiny_patch16_224")
    source = photos(2)
    data = MemoryDataset(torch.stack([source.read(i) for i in range(2)]), [0, 1], imagenet_classes()[:2])
    run = ipvit.run(ipvit.Corruptions(), models=model, data=data, out=tmp_path, progress=False, workers=0)
    row = run.tables["corruptions-mce"].row(0, named=True)
    errors, _ = errors_by_hand(run.records("corruptions"), model.name)
    assert row["mce"] == pytest.approx(mce(errors)) and row["reference"] == "AlexNet"
    assert "corruptions-paper" not in run.tables, "the paper measured the published files"
    assert printed("corruptions", "deit_tiny")["mce"].to_list() == [71.1]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--corruptions", "fogg"], "unknown corruption 'fogg'"),
        (["--corruptions", "fogg"], "Did you mean 'fog'"),
        (["--severities", "6"], "must be 5 or less"),
        (["--frost", "nowhere"], "no frost1.png or frost1.jpg in the frost folder nowhere"),
        (["--normaliser", "deit"], "the normaliser 'deit' is not one of the models"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, more, words):
    monkeypatch.chdir(tmp_path)
    assert main(["corruptions", "-m", "demo:deit_micro", "-d", "demo:trifeature", "--limit", "2", *more]) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_the_command_measures_the_bundled_networks(tmp_path, capsys):
    arguments = ["corruptions", "-m", "demo:deit_micro", "-m", "demo:resnet_micro", "-d", "demo:trifeature"]
    options = ["--limit", "6", "--corruptions", "fog", "pixelate", "--severities", "1", "5", "--workers", "1"]
    out = ["--normaliser", "demo:resnet_micro", "--out", str(tmp_path / "out")]
    assert main([*arguments, *options, *out, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)["tables"]
    assert len(content["corruptions"]) == 2 * (1 + 2 * 2) and len(content["corruptions-ce"]) == 4
    assert {row["model"] for row in content["corruptions-mce"]} == {"demo:deit_micro", "demo:resnet_micro"}
    pictures = read_examples(tmp_path / "out", "corruptions")["demo:deit_micro"]
    assert [picture.caption for picture in pictures] == ["clean", "fog, severity 5", "pixelate, severity 5"]
    clean, fog, _ = (np.asarray(Image.open(picture.path)) for picture in pictures)
    assert clean.shape == fog.shape and not np.array_equal(clean, fog)


def test_corruptions_are_given_in_any_order_and_once():
    experiment = ipvit.Corruptions(corruptions=("spatter", "fog", "shot_noise", "fog"), severities=(5, 1, 5))
    assert experiment.corruptions == ("shot_noise", "fog", "spatter") and experiment.severities == (1, 5)
    with pytest.raises(InputError, match="give alexnet or one of tiny"):
        ipvit.Corruptions(normaliser="other").bind([tiny_model()], photos(), BindContext(load_dataset))


def test_a_corruption_travels_to_a_worker_and_leaves_the_picture_alone():
    pixels = photos(1).read(0)
    before = pixels.clone()
    made = Corruption("fog", 3, jpeg=True)(pixels, "a", 0)
    assert made.shape == pixels.shape and made.dtype == torch.uint8 and torch.equal(pixels, before)
    assert Corruption("fog", 3) == Corruption("fog", 3) and hash(Corruption("fog", 3)) == hash(Corruption("fog", 3))


def test_the_pure_function_is_reached_by_its_own_name():
    assert ipvit.perturb.corrupt is corrupt


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
