"""The experiment on corruptions: what is measured, in the workers, and what a user sees of it."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import ipvit
from helpers import plain_loops
from helpers.plain_loops import rearranged
from helpers.tiny import PatchNet, tiny_model
from ipvit.cli import main
from ipvit.data import load_dataset
from ipvit.data.corruption import Corruption
from ipvit.data.dataset import MemoryDataset
from ipvit.engine.examples import read_examples
from ipvit.errors import InputError
from ipvit.experiments.base import BindContext, Condition, Experiment, Records
from ipvit.experiments.corruptions import measurement
from ipvit.experiments.scoring import classify
from ipvit.models.label_spaces import imagenet_classes
from ipvit.perturb import keys
from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA, KEYED, corrupt, jpeg85
from ipvit.perturb.corruptions.keyed import keyed_tensors
from ipvit.perturb.corruptions.tensor_versions import corrupt_tensors

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
    run = ipvit.run(
        experiment, models=model, data=data, out=tmp_path / "out", progress=False, workers=0, everything=True
    )
    assert run.manifest.measured_in_this_call == 6 * 2
    table = run.tables["corruptions-mce"]
    assert table["made"].to_list()[0] == "on the fly, JPEG 85" and "frost pictures" in table["made"][1]
    assert table["n_images"].to_list() == [6, 6] and table["n_corruptions"].to_list() == [3, 3]
    assert run.report().stat().st_size > 0


def test_the_manifest_names_the_version_of_opencv(tmp_path):
    run = ipvit.run(small(), models=tiny_model(), data=photos(), out=tmp_path, progress=False, workers=0)
    assert run.manifest.versions["opencv-python-headless"]


def test_what_the_device_makes_gives_the_records_that_workers_give(tmp_path, monkeypatch):
    names = ("defocus_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur", "saturate")
    experiment, data = small(corruptions=("shot_noise", *names), severities=(1, 4)), photos(size=32)
    by_workers = measured(experiment, tiny_model(), data, tmp_path / "workers")
    made: list[str] = []
    monkeypatch.setattr(measurement, "made_there", lambda *_: frozenset(names))
    monkeypatch.setattr(measurement, "corrupt_tensors", lambda *a, **k: made.append(a[1]) or corrupt_tensors(*a, **k))
    by_device = measured(experiment, tiny_model(), data, tmp_path / "device")
    assert by_workers.equals(by_device) and set(made) == set(names)


def test_a_processor_leaves_corruptions_to_the_workers_and_a_gpu_takes_those_that_it_makes_alike(monkeypatch):
    def equal(name: str, _device: torch.device, size: tuple[int, int], *, jpeg: bool) -> bool:
        return jpeg and (name == "contrast" or (name == "pixelate" and size[1] % 4 == 0))

    experiment = small(corruptions=("fog", "contrast", "pixelate"))
    assert not measurement.made_there(experiment, torch.device("cpu"), [(64, 64)])
    assert not measurement.made_there(experiment, None, [(64, 64)])
    monkeypatch.setattr(measurement, "equal", equal)
    cuda = torch.device("cuda")
    assert measurement.made_there(experiment, cuda, [(64, 64), (96, 96)]) == {"contrast", "pixelate"}
    assert measurement.made_there(experiment, cuda, [(64, 64), (99, 99)]) == {"contrast"}
    there = measurement.CorruptionMeasurement(experiment, "drawn", frozenset({"contrast"}))
    transforms = {one.corruption: there.image_transform(one) for one in there.conditions(tiny_model())}
    assert transforms["contrast"] is None and transforms["fog"] is not None


# --- keyed random numbers ------------------------------------------------------------------------------------------


KEYED_1 = "keyed 1, on the fly, JPEG 85"


@pytest.mark.parametrize("jpeg", [True, False])
def test_keyed_predictions_equal_a_plain_loop_over_single_images(tmp_path, jpeg):
    model, data, names = tiny_model(), photos(), (*KEYED, "contrast")
    experiment = ipvit.Corruptions(corruptions=names, severities=(1, 4), jpeg=jpeg, made="keyed")
    records = measured(experiment, model, data, tmp_path, seed=3, batch_size=4)
    assert set(records["made"]) == {"", "keyed 1, on the fly, JPEG 85" if jpeg else "keyed 1, on the fly"}
    got = {(r["image"], r["corruption"], r["severity"]): r["confidence"] for r in records.iter_rows(named=True)}
    assert len(got) == 6 * (1 + 11 * 2)
    for (name, corruption, severity), confidence in got.items():
        pixels = data.read(list(data.ids).index(name))
        if corruption in KEYED:
            key = keys([name], "corruptions", 3)
            pixels = keyed_tensors(pixels[None], corruption, severity, key, jpeg=jpeg)[0]
        elif corruption != "clean":
            pixels = Corruption(corruption, severity, jpeg)(pixels, name, 3)
        with torch.inference_mode():
            expected = model(pixels[None].float() / 255).softmax(1).max().item()
        assert confidence == pytest.approx(expected, abs=1e-5), (name, corruption, severity)


def test_keyed_results_stand_beside_the_others_and_never_under_their_name(tmp_path):
    model, data, options = tiny_model(), photos(), {"out": tmp_path, "progress": False, "workers": 0}
    ipvit.run(small(), models=model, data=data, **options)
    run = ipvit.run(small(made="keyed"), models=model, data=data, everything=True, **options)
    assert run.manifest.measured_in_this_call == 6 * 6
    overall = run.tables["corruptions-mce"]
    assert sorted(overall["made"]) == [KEYED_1, "on the fly, JPEG 85"]
    assert overall["n_images"].to_list() == [6, 6]
    again = ipvit.run(small(made="keyed"), models=model, data=data, **options)
    assert again.manifest.measured_in_this_call == 0
    assert set(again.tables["corruptions-mce"]["made"]) == {KEYED_1}
    assert run.report().stat().st_size > 0


def test_networks_on_two_versions_of_keyed_corruptions_are_not_compared(tmp_path, monkeypatch):
    model, data, options = tiny_model(), photos(), {"out": tmp_path, "progress": False, "workers": 0}
    ipvit.run(small(made="keyed"), models=model, data=data, **options)
    monkeypatch.setitem(measurement._MADE, ("keyed", True), "keyed 2, on the fly, JPEG 85")
    other = tiny_model(seed=1, name="other")
    run = ipvit.run(small(made="keyed"), models=other, data=data, everything=True, **options)
    assert run.manifest.measured_in_this_call == 6 * 7
    overall = run.tables["corruptions-mce"].drop_nulls("mean_error").select("model", "made").rows()
    assert sorted(overall) == [("other", "keyed 2, on the fly, JPEG 85"), ("tiny", KEYED_1)]
    assert run.differences["corruptions"].height == 1, "the clean pictures"


def test_keyed_errors_are_divided_by_another_network_and_never_by_alexnets_published_ones(tmp_path):
    classes = imagenet_classes()
    pixels = torch.stack([photos().read(index) for index in range(6)])
    data = MemoryDataset(pixels, np.arange(6), classes, ids=photos().ids)
    models = [
        ipvit.wrap(PatchNet(len(classes)), size=16, crop_pct=1.0, classes=classes, name=f"net{number}")
        for number in range(2)
    ]
    options = {"models": models, "data": data, "progress": False, "workers": 0}
    for made, reference in (("original", "AlexNet"), ("keyed", None)):
        every = ipvit.Corruptions(made=made)
        overall = ipvit.run(every, out=tmp_path / made, **options).tables["corruptions-mce"]
        assert overall["reference"].to_list() == [reference] * 2
        assert overall["mce"].null_count() == (0 if reference else 2)
    every = ipvit.Corruptions(made="keyed", normaliser="net0")
    run = ipvit.run(every, out=tmp_path / "keyed", **options)
    overall = run.tables["corruptions-mce"]
    assert overall["reference"].to_list() == ["net0"] * 2 and overall["mce"][0] == pytest.approx(100)


def test_keyed_is_refused_where_there_is_nothing_keyed(tmp_path, capsys):
    command = ["corruptions", "-m", "demo:deit_micro", "-d", "demo:trifeature", "--made", "keyed"]
    for name in ("spatter", "mine.py:fade"):
        assert main([*command, "--corruptions", "fog", name, "--out", str(tmp_path / "run")]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"there is no keyed version of {name}: leave it out, or leave out --made keyed" in said
    assert not (tmp_path / "run").exists()


def test_keyed_is_refused_where_the_files_are_corrupted_already(tmp_path):
    for number in range(2):
        folder = tmp_path / "c" / "fog" / "1" / CLASSES[number]
        folder.mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(folder / "a.JPEG")
    data = load_dataset(f"imagenet-c:{tmp_path / 'c'}")
    experiment = ipvit.Corruptions(corruptions=("fog",), severities=(1,), made="keyed")
    with pytest.raises(InputError, match="corrupted already: leave out --made keyed"):
        ipvit.run(experiment, models=tiny_model(), data=data, out=tmp_path / "run", progress=False, workers=0)


def test_figures_lead_and_examples_of_keyed_pictures_say_and_show_what_they_are(tmp_path):
    data = photos()
    run = ipvit.run(
        small(made="keyed"), models=tiny_model(), data=data, out=tmp_path, seed=3, progress=False, workers=0
    )
    for name, figure in run.figures.items():
        if name.startswith("corruptions"):
            assert f"tiny, {KEYED_1}" in json.dumps(figure.to_dict()), name
    analysis = small(made="keyed").analysis()
    assert f"({KEYED_1})" in analysis.lead(run.tables)
    run.report()
    shown = {picture.caption: picture for picture in read_examples(tmp_path, "corruptions")["tiny"]}
    assert {"clean", "shot noise, severity 5", "frost, severity 5", "contrast, severity 5"} <= set(shown)
    for name in ("shot_noise", "frost"):
        first = keyed_tensors(data.read(0)[None], name, 5, keys(data.ids[:1], "corruptions", 3), jpeg=True)[0]
        with Image.open(shown[f"{name.replace('_', ' ')}, severity 5"].path) as picture:
            assert np.array_equal(np.array(picture.convert("RGB")), first.permute(1, 2, 0).numpy()), name


@pytest.mark.parametrize("made", ["original", "keyed"])
def test_runs_on_two_revisions_of_a_corruption_are_not_compared(tmp_path, monkeypatch, capsys, made):
    options = {"data": photos(), "models": tiny_model(), "progress": False, "workers": 0}
    experiment = small(corruptions=("snow", "contrast"), made=made)
    ipvit.run(experiment, out=tmp_path / "a", **options)
    if made == "keyed":
        monkeypatch.setitem(measurement._MADE, ("keyed", True), "keyed 2, on the fly, JPEG 85")
    else:
        monkeypatch.setattr(measurement, "REVISIONS", {"snow": 3})
    ipvit.run(experiment, out=tmp_path / "b", **options)
    capsys.readouterr()
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    captured = capsys.readouterr()
    said = " ".join(captured.err.split()) + json.dumps(json.loads(captured.out))
    why = {"original": "2 rows of 5 left out, other revision", "keyed": "made keyed 2, on the fly, JPEG 85"}
    assert why[made] in said and '"snow"' not in said


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


# --- what a user sees ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--corruptions", "fogg"], "unknown corruption 'fogg'"),
        (["--corruptions", "fogg"], "Did you mean 'fog'"),
        (["--severities", "6"], "must be a number from 1 to 5"),
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
