"""A table is of what this call's study asked for: its images, models and conditions, whatever else the folder holds."""

import json
import shutil

import numpy as np
import polars as pl
import pytest

import ipvit
from helpers.paths import KEPT
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model, write_images
from ipvit.cli import main
from ipvit.data.formats.imagenet_c import ImageNetC
from ipvit.data.subset import subset_indices
from ipvit.engine.folders.scope import _rule
from ipvit.engine.loop.writer import Writer
from ipvit.engine.manifest import MANIFEST, read_manifest


def measured(out, *experiments, models=None, **options):
    return ipvit.run(
        list(experiments) or small_occlusion(),
        models=models or tiny_model(),
        data=photos(),
        out=out,
        workers=0,
        progress=False,
        **options,
    )


def rows(run, name="occlusion"):
    return run.tables[name].drop("model").rows()


def test_a_limited_run_shows_the_same_numbers_whatever_the_folder_holds(tmp_path):
    alone = measured(tmp_path / "alone", limit=8)
    measured(tmp_path / "both")
    after = measured(tmp_path / "both", limit=8)
    assert after.manifest.measured_in_this_call == 0 and after.manifest.images_used == 8
    assert rows(after) == rows(alone) and set(after.tables["occlusion"]["n_images"]) == {8}
    assert rows(ipvit.Run(tmp_path / "both")) == rows(alone), "also when the folder is read"
    assert after.records()["image"].n_unique() == 8
    assert after.told[0] == "The folder also holds 22 further images (shown with --everything)."
    assert ipvit.Run(tmp_path / "both").told == after.told, "also before any table is made"


def test_only_the_models_levels_and_experiments_of_the_study_are_shown(tmp_path):
    second = tiny_model(1, name="second")
    measured(tmp_path, small_occlusion(), ipvit.Shuffle(grids=("2x2",)), models=[tiny_model(), second])
    run = measured(tmp_path, small_occlusion(levels=(0, 0.5)), models=[second])
    assert list(run.analyses) == ["occlusion"] and [model.name for model in run.manifest.models] == ["second"]
    assert run.manifest.experiments == ("occlusion",)
    assert run.tables["occlusion"]["information_loss"].to_list() == [0, 0.5]
    assert run.differences == {}
    assert run.told[0] == (
        "The folder also holds the experiment shuffle; the model tiny; 4 further conditions of occlusion (shown with "
        "--everything)."
    )
    assert ipvit.Run(tmp_path).told == run.told, "also before any table is made"
    every = ipvit.Run(tmp_path, everything=True)
    assert list(every.analyses) == ["occlusion", "shuffle"] and every.tables["occlusion"].height == 8
    assert not any("also holds" in sentence for sentence in every.told)


def test_everything_is_an_argument_and_an_option(tmp_path, capsys):
    measured(tmp_path)
    assert measured(tmp_path, limit=8, everything=True).tables["occlusion"]["n_images"][0] == 30
    assert measured(tmp_path, limit=8).tables["occlusion"]["n_images"][0] == 8

    def printed(*arguments):
        assert main([*arguments, str(tmp_path), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    few, every = printed("report"), printed("report", "--everything")
    assert few["tables"]["occlusion"][0]["n_images"] == few["images_used"] == 8 and few["limited"]
    assert every["tables"]["occlusion"][0]["n_images"] == 30
    assert "shown with --everything" in few["told"][0]
    assert "22 further images" in "".join(printed("compare")["notes"])


def test_of_items_that_are_no_images_those_of_the_study_are_shown(tmp_path):
    many = ipvit.FewShot(episodes=("2-way-1-shot",), count=12, queries=1, blocks=(1,), classifiers=("centroid",))
    few = many.model_copy(update={"count": 5})
    model, data = ipvit.load_model("demo:deit_micro"), ipvit.load_dataset("demo:trifeature")
    options = {"models": model, "data": data, "out": tmp_path, "limit": 40, "workers": 0, "progress": False}
    ipvit.run(many, **options)
    again = ipvit.run(few, **options)
    assert again.manifest.measured_in_this_call == 0
    assert again.records("fewshot")["image"].n_unique() == 5
    assert ipvit.Run(tmp_path).records("fewshot")["image"].n_unique() == 5


def test_the_rule_by_which_photos_of_imagenet_c_are_chosen_is_found(tmp_path):
    for corruption in ("fog", "snow"):
        for severity in (1, 3):
            write_images(tmp_path / corruption / str(severity), per_class=6)
    data = ImageNetC(str(tmp_path))
    rule = _rule(data.ids, subset_indices(data, 5))
    assert rule.parts == 2 and len(rule.up_to) == 16
    other = np.array([0, 3])  # nobody's rule: they are listed
    assert _rule(photos().ids, other).which == "listed"


def test_an_old_folder_shows_what_its_study_file_asks_for(tmp_path):
    shutil.copytree(KEPT / "runs" / "several-studies", tmp_path / "run")
    for number, seed in (("2", 3), ("1", 3)):
        (tmp_path / "run" / "study.yaml").write_bytes((tmp_path / "run" / f"study.{number}.yaml").read_bytes())
        content = json.loads((tmp_path / "run" / MANIFEST).read_text())
        limit = 32 if number == "2" else 24
        content |= {"seed": seed, "precision": "bf16", "limit": limit, "selected": limit, "images_used": limit}
        (tmp_path / "run" / MANIFEST).write_text(json.dumps(content | {"subjects": {}}))
        run = ipvit.Run(tmp_path / "run")
        assert set(run.tables["accuracy"]["n_images"]) == {limit}
        assert run.tables["accuracy"]["model"].n_unique() == (3 if number == "2" else 2)


def test_an_old_folder_without_its_study_shows_all_that_it_holds(tmp_path):
    measured(tmp_path, limit=8)
    measured(tmp_path)
    manifest = read_manifest(tmp_path).model_dump(mode="json", by_alias=True)
    (tmp_path / MANIFEST).write_text(json.dumps({key: value for key, value in manifest.items() if key != "asked"}))
    (tmp_path / "study.yaml").unlink()
    assert set(ipvit.Run(tmp_path).tables["occlusion"]["n_images"]) == {30}


def test_after_an_interruption_the_report_says_on_how_many_of_how_many_images_it_rests(tmp_path, capsys, monkeypatch):
    add, added = Writer.add, []

    def add_and_interrupt(self, *measured):
        add(self, *measured)
        added.append(self)
        if len(added) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "add", add_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, batch_size=8)
    sentence = "Unfinished: the run was interrupted; its numbers rest on 16 of 30 images, 14 are left."
    assert main(["report", str(tmp_path)]) == 0
    assert sentence in " ".join(capsys.readouterr().out.split())
    page = " ".join((tmp_path / "report.html").read_text().split())
    assert sentence in page and "16 of 30 images used" in page and "<dt>finished" not in page
    run = ipvit.Run(tmp_path)
    assert run.manifest.images_used == 16 == run.tables["occlusion"]["n_images"][0] and "interrupted" in repr(run)
    monkeypatch.setattr(Writer, "add", add)
    run = measured(tmp_path)
    assert not run.told and run.manifest.images_used == 30
    assert run.manifest.measured_before == "0 of 7 conditions measured before, 7 in part; 98 of 210 results to do"


def test_records_that_were_not_asked_for_are_no_images_of_a_published_comparison(tmp_path):
    measured(tmp_path, ipvit.Accuracy())
    run = measured(tmp_path, ipvit.Accuracy(), limit=8)
    assert len(run._image_ids("accuracy", "tiny")) == 8


def test_a_merged_folder_shows_what_its_shards_asked_for(tmp_path):
    measured(tmp_path / "whole", limit=12)
    for shard in ("1/2", "2/2"):
        measured(tmp_path / "run", limit=12, shard=shard, batch_size=4)
    assert main(["merge", str(tmp_path / "run"), "--json"]) == 0
    assert rows(ipvit.Run(tmp_path / "run")) == rows(ipvit.Run(tmp_path / "whole"))
    assert pl.DataFrame(ipvit.Run(tmp_path / "run").records()).height == 12 * 7


def test_an_experiment_on_other_data_is_counted_and_not_promised(tmp_path):
    measured(tmp_path)
    options = {"models": tiny_model(), "data": photos(seed=1), "workers": 0, "progress": False}
    run = ipvit.run(ipvit.Shuffle(grids=("2x2",)), out=tmp_path, **options)
    assert run.told[0] == (
        "The folder also holds 210 records of another seed, precision, version, answer space or data set."
    )
    assert list(ipvit.Run(tmp_path, everything=True).tables) == ["shuffle", "shuffle-area"]
