"""The sweep against a plain loop, and what must not change its records."""

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

import ipvit
from helpers.plain_loops import bound, measured, rearranged
from helpers.small_runs import CLASSES, photos, small_occlusion
from helpers.tiny import tiny_model, write_images
from ipvit.data.dataset import MemoryDataset
from ipvit.engine.store import Store
from ipvit.perturb.seeding import keys, random_order

DISCRETE = [
    "model",
    "image",
    "mode",
    "information_loss",
    "run",
    "label",
    "prediction",
    "correct",
    "correct5",
    "dropped",
]


def plain_loop(model, data, levels, runs, grid, seed=0) -> dict:
    """One image, one condition at a time; masks and pixels in numpy; nothing shared, nothing batched."""
    answers = {}
    for index in range(len(data)):
        image = data.read(index).numpy().astype(np.float32) / 255
        for level in levels:
            for run in range(runs if level > 0 else 1):
                dropped = int(np.floor(level * grid * grid + 1e-9))
                key = keys([data.ids[index]], seed, "occlusion", "random", f"{grid}x{grid}", run, level)
                order = random_order(key, grid * grid)[0]
                occluded, cell = image.copy(), image.shape[1] // grid
                for place in order[:dropped]:
                    row, column = divmod(int(place), grid)
                    occluded[:, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = 0
                with torch.no_grad():
                    logits = model(torch.from_numpy(occluded)[None])[0].numpy()
                answers[data.ids[index], level, run] = int(np.argmax(logits))
    return answers


def test_predictions_equal_a_plain_loop_over_single_images(tmp_path):
    model, data = tiny_model(), photos()
    levels = (0.0, 0.3, 0.5, 0.9)
    records = measured(small_occlusion(), model, data, tmp_path)
    expected = plain_loop(model, data, levels, 2, 4)
    got = {(r["image"], r["information_loss"], r["run"]): r["prediction"] for r in records.iter_rows(named=True)}
    assert got == expected


def test_accuracies_are_those_of_the_records_counted_by_hand(tmp_path):
    run = ipvit.run(small_occlusion(), models=tiny_model(), data=photos(), out=tmp_path, workers=0, progress=False)
    rows = run.records("occlusion").rows(named=True)
    for row in run.tables["occlusion"].iter_rows(named=True):
        mine = [r for r in rows if r["information_loss"] == row["information_loss"]]
        assert row["top1"] == pytest.approx(100 * np.mean([r["prediction"] == r["label"] for r in mine]))
        assert row["top1_low"] <= row["top1"] <= row["top1_high"]
        assert row["n_images"] == 30 and row["n_runs"] == (1 if row["information_loss"] == 0 else 2)


@pytest.mark.parametrize(
    "options", [{"batch_size": 1}, {"batch_size": 7}, {"batch_size": 64}, {"workers": 2, "batch_size": 7}]
)
def test_batch_size_and_workers_do_not_change_the_records(tmp_path, options):
    reference = measured(small_occlusion(), tiny_model(), photos(), tmp_path / "a")
    other = measured(small_occlusion(), tiny_model(), photos(), tmp_path / "b", **options)
    assert reference.select(DISCRETE).equals(other.select(DISCRETE))
    assert np.allclose(reference["confidence"], other["confidence"], atol=1e-6)


def test_the_order_of_the_files_does_not_change_the_records(tmp_path):
    data = photos()
    shuffled = rearranged(data, np.random.default_rng(0).permutation(len(data)).tolist())
    first = measured(small_occlusion(), tiny_model(), data, tmp_path / "a")
    second = measured(small_occlusion(), tiny_model(), shuffled, tmp_path / "b")
    assert first.select(DISCRETE).sort(DISCRETE).equals(second.select(DISCRETE).sort(DISCRETE))


def test_several_models_share_one_pass_over_the_files(tmp_path):
    data = rearranged(photos(), range(30))
    models = [tiny_model(0, name="one"), tiny_model(1, name="two"), tiny_model(2, size=8, name="three")]
    records = measured(small_occlusion(), models, data, tmp_path)
    assert data.reads == 30
    assert records["model"].unique().sort().to_list() == ["one", "three", "two"]


def test_raising_the_runs_computes_only_the_new_ones(tmp_path):
    measured(small_occlusion(runs=3), tiny_model(), photos(), tmp_path)
    run = ipvit.run(
        small_occlusion(runs=5), models=tiny_model(), data=photos(), out=tmp_path, workers=0, progress=False
    )
    assert run.manifest.measured_in_this_call == 30 * 3 * 2
    assert len(list(tmp_path.glob("records/*/*/*"))) == 1, "the parts of both calls are one"
    fresh = measured(small_occlusion(runs=5), tiny_model(), photos(), tmp_path / "fresh")
    assert run.records("occlusion").equals(fresh)


def test_a_second_call_measures_nothing(tmp_path):
    measured(small_occlusion(), tiny_model(), photos(), tmp_path)
    again = ipvit.run(small_occlusion(), models=tiny_model(), data=photos(), out=tmp_path, workers=0, progress=False)
    assert again.manifest.measured_in_this_call == 0


def test_raising_the_limit_adds_images_and_marks_the_run(tmp_path):
    def limited(n):
        return ipvit.run(
            small_occlusion(), models=tiny_model(), data=photos(), out=tmp_path, limit=n, workers=0, progress=False
        )

    few, more = limited(10), limited(20)
    assert few.manifest.limited and few.manifest.images_used == 10
    assert more.manifest.measured_in_this_call == 10 * 7
    assert limited(30).manifest.limited is False


def test_other_weights_another_seed_or_precision_are_measured_anew(tmp_path):
    measured(small_occlusion(), tiny_model(0), photos(), tmp_path)
    for options in ({"seed": 1}, {"precision": "bf16"}):
        run = ipvit.run(
            small_occlusion(), models=tiny_model(0), data=photos(), out=tmp_path, workers=0, progress=False, **options
        )
        assert run.manifest.measured_in_this_call == 30 * 7
    run = ipvit.run(small_occlusion(), models=tiny_model(1), data=photos(), out=tmp_path, workers=0, progress=False)
    assert run.manifest.measured_in_this_call == 30 * 7
    both = ipvit.Run(tmp_path, everything=True).records("occlusion")["model"].unique().sort().to_list()
    assert both != ["tiny"] and len(both) == 2, "one name, two networks"
    assert run.records("occlusion")["model"].unique().to_list() == ["tiny"], "and the study asked for one of them"


def test_models_measured_earlier_are_told_and_shown_when_everything_is_asked_for(tmp_path):
    measured(small_occlusion(), tiny_model(0, name="first"), photos(), tmp_path)
    run = ipvit.run(
        small_occlusion(), models=tiny_model(1, name="second"), data=photos(), out=tmp_path, workers=0, progress=False
    )
    assert run.tables["occlusion"]["model"].unique().to_list() == ["second"] and "the model first" in run.told[0]
    every = ipvit.Run(tmp_path, everything=True)
    assert every.tables["occlusion"]["model"].unique().sort().to_list() == ["first", "second"]


def test_the_authors_scope_shares_one_mask_and_ours_does_not(tmp_path):
    data = photos(8)
    same = MemoryDataset(data.read(0).expand(8, -1, -1, -1).clone(), [0] * 8, CLASSES)
    shared = measured(small_occlusion(levels=(0.5,), mask_scope="batch"), tiny_model(), same, tmp_path / "a")
    own = measured(small_occlusion(levels=(0.5,)), tiny_model(), same, tmp_path / "b")
    assert shared.group_by("run").agg(pl.col("confidence").round(5).n_unique())["confidence"].to_list() == [1, 1]
    assert own["confidence"].round(5).n_unique() > 4


def test_nested_levels_drop_the_same_patches_and_more(tmp_path):
    experiment = small_occlusion(nested=True, levels=(0.25, 0.5))
    model, white = tiny_model(), MemoryDataset(torch.full((1, 3, 16, 16), 255, dtype=torch.uint8), [0], CLASSES)
    pictures = [example.image for example in bound(experiment, model).examples(model, batch_of(white))]
    assert bool(((pictures[1] == 1) & (pictures[0] == 0)).any()) is False
    assert (pictures[1] == 0).sum() == 2 * (pictures[0] == 0).sum()


def batch_of(data):
    from ipvit.experiments.base import Batch

    images = torch.stack([data.read(i) for i in range(len(data))]).float() / 255
    return Batch(images, torch.from_numpy(data.labels), tuple(data.ids), np.arange(len(data)), (), 0)


class Hungry(nn.Module):
    """Runs out of memory on more than three images."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(x)


def test_a_batch_that_does_not_fit_into_memory_is_halved_until_it_does(tmp_path):
    plain = tiny_model()
    hungry = ipvit.wrap(Hungry(plain.backbone), size=16, crop_pct=1.0, classes=CLASSES, name="tiny")
    reference = measured(small_occlusion(), plain, photos(), tmp_path / "a")
    halved = measured(small_occlusion(), hungry, photos(), tmp_path / "b", batch_size=16)
    assert reference.select(DISCRETE).equals(halved.select(DISCRETE))


class Broken(nn.Module):
    def __init__(self, outputs=4):
        super().__init__()
        self.outputs = outputs

    def forward(self, x):
        if len(x) == 2:  # well while it is tried
            return torch.zeros(2, self.outputs)
        raise RuntimeError("this network\nis broken")


def test_a_failing_model_is_recorded_and_the_rest_goes_on(tmp_path):
    broken = ipvit.wrap(Broken(), size=16, crop_pct=1.0, classes=CLASSES, name="broken")
    run = ipvit.run(
        small_occlusion(), models=[broken, tiny_model()], data=photos(), out=tmp_path, workers=0, progress=False
    )
    (failure,) = run.manifest.failures
    assert failure.model == "broken" and "this network is broken" in failure.error
    assert run.manifest.status == "failed"
    assert run.records("occlusion")["model"].unique().to_list() == ["tiny"]


class NotANumber(nn.Module):
    def forward(self, x):
        return torch.full((len(x), 4), 0.0 if len(x) == 2 else float("nan"))  # well while it is tried


def test_logits_that_are_not_finite_count_as_wrong_and_are_reported(tmp_path):
    model = ipvit.wrap(NotANumber(), size=16, crop_pct=1.0, classes=CLASSES)
    run = ipvit.run(small_occlusion(levels=(0,)), models=model, data=photos(), out=tmp_path, workers=0, progress=False)
    assert run.tables["occlusion"]["top1"].to_list() == [0]
    assert run.records("occlusion")["prediction"].unique().to_list() == [-1]
    assert "30 predictions were not finite" in run.report().read_text()


def test_a_damaged_part_is_put_aside_and_measured_again(tmp_path):
    reference = measured(small_occlusion(), tiny_model(), photos(), tmp_path)
    (part,) = tmp_path.glob("records/occlusion/*/part-*.parquet")
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 0xFF
    part.write_bytes(data)
    again = measured(small_occlusion(), tiny_model(), photos(), tmp_path)
    assert again.equals(reference)
    assert len(list(tmp_path.glob("records/occlusion/*/*.damaged"))) == 1


def test_unreadable_images_are_listed_and_left_out(tmp_path):
    root = write_images(tmp_path / "images")
    (root / "c0" / "broken.jpg").write_bytes(b"not a picture")
    whole = (root / "c1" / "000.jpg").read_bytes()
    (root / "c1" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    run = ipvit.run(small_occlusion(), models=tiny_model(), data=root, out=tmp_path / "out", workers=1, progress=False)
    assert [entry.image for entry in run.manifest.skipped] == ["c0/broken.jpg", "c1/cut.jpg"]
    assert run.manifest.images_used == 20 and run.tables["occlusion"]["n_images"].unique().to_list() == [20]
    with pytest.raises(ipvit.InputError, match="unreadable image 'c0/broken.jpg'"):
        ipvit.run(
            small_occlusion(),
            models=tiny_model(),
            data=root,
            out=tmp_path / "strict",
            workers=0,
            strict=True,
            progress=False,
        )


def test_what_does_not_fit_together_is_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(ipvit.InputError, match="17x17 has more cells than an image of 16x16"):
        measured(small_occlusion(grid="17x17"), tiny_model(), photos(), tmp_path)
    nameless = MemoryDataset(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(ipvit.InputError, match="needs labels"):
        measured(small_occlusion(), tiny_model(), nameless, tmp_path)
    strangers = MemoryDataset(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), [0, 1], ["cat", "dog"])
    with pytest.raises(ipvit.InputError, match="cannot map 2 of the 2 classes"):
        measured(small_occlusion(), tiny_model(), strangers, tmp_path)
    with pytest.raises(ipvit.InputError, match="two models are called 'tiny'"):
        measured(small_occlusion(), [tiny_model(0), tiny_model(1)], photos(), tmp_path)
    assert not list(tmp_path.glob("records/**/*.parquet"))


def test_fresh_puts_the_earlier_folder_aside(tmp_path):
    measured(small_occlusion(), tiny_model(), photos(), tmp_path / "run")
    measured(small_occlusion(runs=1), tiny_model(), photos(), tmp_path / "run", fresh=True)
    assert len(Store(tmp_path / "run.1").records("occlusion")) == 30 * 7
    assert len(Store(tmp_path / "run").records("occlusion")) == 30 * 4


def test_a_model_that_cannot_do_an_experiment_is_left_out_or_refused_by_the_name_of_what_it_lacks(tmp_path):
    experiments = [small_occlusion(levels=(0,)), ipvit.Attention()]
    with pytest.raises(
        ipvit.InputError, match="needs the capability attention, which tiny does not offer \\(attention: ipvit has no"
    ):
        ipvit.run(experiments, models=tiny_model(), data=photos(), out=tmp_path / "a", workers=0, progress=False)
    data = ipvit.load_dataset("demo:trifeature")
    plain = ipvit.wrap(Broken(len(data.classes)), size=64, crop_pct=1.0, classes=data.classes, name="plain")
    run = ipvit.run(
        ipvit.Attention(),
        models=[plain, ipvit.load_model("demo:deit_micro")],
        data=data,
        out=tmp_path / "b",
        limit=3,
        workers=0,
        progress=False,
    )
    assert run.tables["attention"]["model"].unique().to_list() == ["demo:deit_micro"]
    assert "attention needs the capability attention, which plain does not offer" in run.manifest.left_out[0]
