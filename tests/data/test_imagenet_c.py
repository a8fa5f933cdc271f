"""Corrupted photos in folders: what is read, what is refused, and that ``ipvit corrupt`` writes the same layout."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import ipvit
from helpers.command_line import complaint, full_disk, kill_while_it_writes
from helpers.image_trees import CORRUPTED, write_imagenet_c
from helpers.tiny import tiny_model, write_images
from ipvit.cli import main
from ipvit.core.preprocessing import View
from ipvit.data.decode import apply_view
from ipvit.data.derived.corrupted import is_whole
from ipvit.data.formats.imagenet_c import ImageNetC
from ipvit.errors import InputError
from ipvit.perturb import keys
from ipvit.perturb.corruptions import CORRUPTIONS, corrupt


def run_on(data, out, experiment=None, **options):
    experiment = experiment or ipvit.Corruptions(corruptions=CORRUPTED)
    return ipvit.run(experiment, models=tiny_model(), data=data, out=out, progress=False, workers=0, **options)


# --- reading -------------------------------------------------------------------------------------------------------


def test_every_file_knows_its_corruption_severity_and_class(tmp_path):
    data = ipvit.load_dataset(f"imagenet-c:{write_imagenet_c(tmp_path / 'c')}")
    assert len(data) == 3 * 5 * 6 and data.classes == ("c0", "c1") and data.corruptions == CORRUPTED
    index = list(data.ids).index("fog/4/c1/val_0002.JPEG")
    assert data.corruptions[data.fields["corruption"][index]] == "fog" and data.fields["severity"][index] == 4
    assert data.labels[index] == 1 and data.ids[3:5] == [data.ids[3], data.ids[4]]
    with Image.open(tmp_path / "c" / data.ids[index]) as picture:
        assert np.array_equal(data.read(index).permute(1, 2, 0).numpy(), np.asarray(picture))


def test_the_folders_of_the_published_archives_may_be_kept(tmp_path):
    plain = ImageNetC(write_imagenet_c(tmp_path / "plain"))
    for archive, name in (("noise", "shot_noise"), ("weather", "fog"), ("digital", "pixelate")):
        (tmp_path / "grouped" / archive).mkdir(parents=True)
        shutil.copytree(tmp_path / "plain" / name, tmp_path / "grouped" / archive / name)
    grouped = ImageNetC(tmp_path / "grouped")
    assert list(grouped.ids) == list(plain.ids) and grouped.fingerprint == plain.fingerprint


def test_the_records_name_corruption_and_severity_and_the_files_are_not_cropped(tmp_path):
    run = run_on(f"imagenet-c:{write_imagenet_c(tmp_path / 'c')}", tmp_path / "out")
    records = run.records("corruptions")
    assert records.height == 90 and set(records["made"]) == {"ImageNet-C files"}
    model, data = tiny_model(), ImageNetC(tmp_path / "c")
    answers = dict(zip(records["image"], records["confidence"], strict=True))
    for index, image in enumerate(data.ids):
        with torch.inference_mode():
            expected = model(data.read(index)[None].float() / 255).softmax(1).max().item()
        assert answers[image] == pytest.approx(expected, abs=1e-5)
    row = records.filter(pl.col("image") == "pixelate/5/c0/val_0001.JPEG").row(0, named=True)
    assert (row["corruption"], row["severity"], row["label"]) == ("pixelate", 5, 0)
    by_hand = records.filter(corruption="fog", severity=2)["correct"].mean()
    table = run.tables["corruptions"].filter(corruption="fog", severity=2)
    assert table["top1"][0] == pytest.approx(100 * by_hand) and table["n_images"][0] == 6
    assert run.tables["corruptions-mce"]["n_images"][0] == 6
    assert run.report().stat().st_size > 0


def test_files_are_scaled_whole_whatever_the_network_crops(tmp_path):
    """They are cropped already; the network's own crop would cut them a second time."""
    model, data = tiny_model(size=8), ImageNetC(write_imagenet_c(tmp_path / "c"))
    own = model.preprocessing
    model.preprocessing = dataclasses.replace(own, view=dataclasses.replace(own.view, crop_pct=0.5))
    whole = View((8, 8), 1.0, own.view.interpolation)
    run = ipvit.run(
        ipvit.Corruptions(corruptions=CORRUPTED),
        models=model,
        data=data,
        out=tmp_path / "out",
        progress=False,
        workers=0,
    )
    answers = dict(run.records("corruptions").select("image", "confidence").iter_rows())
    for view, same in ((whole, True), (model.preprocessing.view, False)):
        pixels = torch.stack([apply_view(data.read(index), view) for index in range(len(data))])
        with torch.inference_mode():
            expected = model(pixels.float() / 255).softmax(1).amax(1).numpy()
        assert np.allclose([answers[image] for image in data.ids], expected, atol=1e-5) == same


def test_only_the_corruptions_and_severities_asked_for_are_measured(tmp_path):
    data = f"imagenet-c:{write_imagenet_c(tmp_path / 'c')}"
    run = run_on(data, tmp_path / "out", ipvit.Corruptions(corruptions=("fog",), severities=(2, 5)))
    assert run.manifest.measured_in_this_call == 12
    run = run_on(data, tmp_path / "out", ipvit.Corruptions(corruptions=("fog", "pixelate"), severities=(2, 5)))
    assert run.manifest.measured_in_this_call == 12
    assert set(run.tables["corruptions"]["corruption"]) == {"fog", "pixelate"}


def test_a_limit_counts_photos_and_takes_all_their_versions(tmp_path):
    data = write_imagenet_c(tmp_path / "c")
    run = run_on(f"imagenet-c:{data}", tmp_path / "out", limit=2)
    table = run.tables["corruptions"]
    assert table.height == 15 and set(table["n_images"]) == {2} and run.manifest.limited
    clean = write_images(tmp_path / "clean", 3, 2)
    for i, c in np.ndindex(3, 2):
        next((clean / f"c{c}").glob(f"{i:03d}.*")).rename(clean / f"c{c}" / f"val_{i:04d}.JPEG")
    same = run_on(str(clean), tmp_path / "other", ipvit.Corruptions(corruptions=("fog",), severities=(1,)), limit=2)
    photos = {image.split("/", 2)[2] for image in run.records("corruptions")["image"]}
    assert photos == set(same.records("corruptions")["image"]), "the same photos as of the clean images"


def test_clean_photos_beside_it_give_the_relative_error(tmp_path):
    everything = write_imagenet_c(tmp_path / "c", CORRUPTIONS, classes=2, n=2, side=8)
    clean = write_images(tmp_path / "clean", 2, 2)
    for path in clean.rglob("*.*"):
        path.rename(path.with_name(f"val_{int(path.stem):04d}{path.suffix}"))
    models = [tiny_model(0, size=8, name="one"), tiny_model(1, size=8, name="two")]
    run = ipvit.run(
        ipvit.Corruptions(normaliser="two"),
        models=models,
        data=f"imagenet-c:{everything},{clean}",
        out=tmp_path / "out",
        progress=False,
        workers=0,
    )
    table = run.tables["corruptions-mce"]
    assert table["clean_error"].is_not_null().all() and table["mce"].is_not_null().all()
    assert table.filter(model="two")["mce"][0] == pytest.approx(100)
    clean_rows = run.records("corruptions").filter(corruption="clean", model="one")
    assert clean_rows.height == 4 and set(clean_rows["severity"]) == {0}


def test_clean_photos_are_cropped_as_the_corrupted_ones_were(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "clean" / "c0").mkdir(parents=True)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    coarse.resize((400, 300), Image.Resampling.BICUBIC).save(tmp_path / "clean" / "c0" / "a.png")
    assert main(["corrupt", str(tmp_path / "clean"), "--out", str(tmp_path / "c"), "--corruptions", "brightness"]) == 0
    data = ImageNetC(f"{tmp_path / 'c'},{tmp_path / 'clean'}")
    (clean,) = np.flatnonzero(data.fields["severity"] == 0)
    (bright,) = np.flatnonzero(data.fields["severity"] == 1)
    photo = data.read(int(clean)).permute(1, 2, 0).numpy()
    assert photo.shape == (224, 224, 3)
    expected = corrupt(photo.copy(), "brightness", 1, 0)
    assert np.abs(expected.astype(int) - data.read(int(bright)).permute(1, 2, 0).numpy()).mean() < 3  # JPEG


def test_what_ipvit_corrupt_wrote_is_not_called_imagenet_c(tmp_path):
    images = write_images(tmp_path / "images", 1, 4)
    assert main(["corrupt", str(images), "--out", str(tmp_path / "c"), "--size", "16", "--corruptions", "fog"]) == 0
    run = run_on(f"imagenet-c:{tmp_path / 'c'}", tmp_path / "out", ipvit.Corruptions(corruptions=("fog",)))
    assert set(run.tables["corruptions"]["made"]) == {"ipvit corrupt files"}
    section = ipvit.Corruptions().analysis().summary(run.tables)
    assert "do not compare" in section[-1]


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda root: (root / "c").mkdir(), "it has no folder such as gaussian_noise/1/SYNSET"),
        (lambda root: write_imagenet_c(root / "c" / "fog"), "it has no folder such as"),
        (lambda root: (root / "c" / "gausian_noise").mkdir(parents=True), "Did you mean 'gaussian_noise'?"),
        (lambda root: (root / "c" / "fog" / "1").mkdir(parents=True), "but no image files in them"),
        (lambda root: write_imagenet_c(root / "c", CORRUPTED[:2]), "has no images of pixelate; ask for what is there"),
        (lambda root: write_imagenet_c(root / "c", CORRUPTED, (1, 2, 3)), "shot_noise/4, shot_noise/5, fog/4, fog/5"),
    ],
)
def test_what_is_missing_is_said_in_one_line(tmp_path, monkeypatch, capsys, prepare, words):
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    if words == "it has no folder such as":
        shutil.move(tmp_path / "c" / "fog", tmp_path / "fog")
        shutil.rmtree(tmp_path / "c")
        (tmp_path / "fog" / "fog").rename(tmp_path / "c")
        (tmp_path / "c").rename(tmp_path / "c0")
        shutil.copytree(tmp_path / "c0", tmp_path / "c" / "1")
    (tmp_path / "net.py").write_text(
        "import torch, ipvit\ndef make():\n    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 2))\n"
        "    return ipvit.wrap(net, size=16, crop_pct=1.0, classes=['c0', 'c1'])\n"
    )
    arguments = ["corruptions", "-m", "net.py:make", "-d", "imagenet-c:c", "--corruptions", *CORRUPTED]
    assert main([*arguments, "--workers", "0"]) == 2
    assert words in complaint(capsys)


def test_a_folder_of_one_corruption_names_the_folder_to_give(tmp_path):
    write_imagenet_c(tmp_path / "c")
    with pytest.raises(InputError, match=f"Give the folder above it: imagenet-c:{tmp_path / 'c'}$"):
        ImageNetC(tmp_path / "c" / "fog")
    with pytest.raises(InputError, match="there is no folder"):
        ImageNetC(f"{tmp_path / 'c'},{tmp_path / 'nowhere'}")
    (tmp_path / "clean" / "c0").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "clean" / "c0" / "val_0000.png")
    with pytest.raises(InputError, match=r"lacks 5 of the 6 photos, for example 'c0/val_0001.JPEG'"):
        ImageNetC(f"{tmp_path / 'c'},{tmp_path / 'clean'}")


def test_other_content_is_another_fingerprint(tmp_path):
    before = ImageNetC(write_imagenet_c(tmp_path / "c")).fingerprint
    path = tmp_path / "c" / "fog" / "1" / "c0" / "val_0000.JPEG"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert ImageNetC(tmp_path / "c").fingerprint != before


# --- ipvit corrupt -------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", 2, 3, size=(40, 48))
    return tmp_path


def corrupted(out: str, *more: str) -> int:
    basic = [["--out", out], ["--size", "32"], ["--corruptions", "fog", "frost"], ["--severities", "1", "4"]]
    basic.append(["--workers", "0"])
    return main(["corrupt", "images", *(word for option in basic if option[0] not in more for word in option), *more])


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.JPEG"))}


def test_the_copy_has_imagenet_cs_layout_and_says_how_it_was_made(here, capsys):
    (here / "images" / "classes.txt").write_text("c0\tzero\nc1\tone\nc2\ttwo\n")
    assert corrupted("out", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["made"] == 24 and summary["kept"] == 0 and summary["images"] == 6
    made = content(here / "out")
    assert len(made) == 24 and {"fog/1/c0/000.JPEG", "frost/4/c2/001.JPEG"} <= set(made)
    manifest = json.loads((here / "out" / "corrupt.json").read_text())
    assert manifest["status"] == "whole"
    assert list(manifest["corruptions"].items()) == [("frost", [1, 4]), ("fog", [1, 4])]
    assert manifest["settings"] | {"source": ""} == {
        "size": 32,
        "resize": 37,
        "quality": 85,
        "frost": "drawn",
        "revision": 2,
        "seed": 0,
        "source": "",
    }
    assert manifest["versions"]["opencv-python-headless"]
    assert (here / "out" / "contact-sheet.html").read_text().count("data:image/png") == 2
    one = ipvit.load_dataset(here / "out" / "fog" / "4")
    assert len(one) == 6 and one.aliases == ("zero", "one", "two")
    with Image.open(here / "out" / "fog" / "1" / "c0" / "000.JPEG") as picture:
        assert picture.size == (32, 32) and picture.format == "JPEG"


def test_a_file_holds_the_corruption_of_its_image_and_nothing_else(here):
    assert corrupted("out", "--quality", "95", "--seed", "7") == 0
    (here / "one").mkdir()
    image = ipvit.load_dataset(here / "images")
    index = list(image.ids).index("c1/001.png")
    picture = apply_view(image.read(index), View((32, 32), 32 / 37.5, "bilinear")).permute(1, 2, 0).contiguous().numpy()
    expected = corrupt(picture, "frost", 4, keys(["c1/001.png"], "corruptions", 7)[0])
    Image.fromarray(expected).save(here / "expected.jpg", quality=95, optimize=True)
    assert (here / "expected.jpg").read_bytes() == (here / "out/frost/4/c1/001.JPEG").read_bytes()


def test_measured_on_the_files_a_network_answers_as_on_the_fly(here):
    names = ("gaussian_noise", "snow", "elastic_transform", "spatter")
    assert main(["corrupt", "images", "--out", "c", "--size", "16", "--resize", "16", "--corruptions", *names]) == 0
    experiment = ipvit.Corruptions(corruptions=names)
    model = tiny_model(classes=3)
    model.preprocessing = type(model.preprocessing)(
        type(model.preprocessing.view)((16, 16), 1.0, "bilinear"), model.preprocessing.mean, model.preprocessing.std
    )
    options = {"models": model, "progress": False, "workers": 0}
    fly = ipvit.run(experiment, data=ipvit.load_dataset("images"), out="a", **options).records("corruptions")
    files = ipvit.run(experiment, data=ipvit.load_dataset("imagenet-c:c", decoder="pil"), out="b", **options)
    stem = pl.col("image").str.replace(r"\.[^.]*$", "")
    photo = pl.col("image").str.replace(r"^[^/]*/[^/]*/", "").str.replace(r"\.[^.]*$", "")
    fly, files = (frame.cast({"image": pl.String}) for frame in (fly, files.records("corruptions")))
    fly, files = fly.with_columns(stem), files.with_columns(photo)
    both = fly.join(
        files.with_columns(pl.col("severity").cast(fly.schema["severity"])), on=["image", "corruption", "severity"]
    )
    assert both.height == 6 * 4 * 5
    assert np.abs(both["confidence"] - both["confidence_right"]).max() < 1e-6


def test_the_copy_is_the_same_with_any_workers_and_in_any_number_of_runs(here):
    assert corrupted("whole") == 0
    assert corrupted("parallel", "--workers", "2") == 0
    assert corrupted("steps", "--limit", "2") == 0
    assert len(content(here / "steps")) == 8
    assert corrupted("steps", "--severities", "4") == 0
    assert corrupted("steps", "--workers", "1") == 0
    whole = content(here / "whole")
    assert whole == content(here / "parallel") == content(here / "steps")
    manifests = [json.loads((here / name / "corrupt.json").read_text()) for name in ("whole", "steps")]
    assert manifests[0] == manifests[1]
    assert corrupted("other", "--seed", "1") == 0
    assert content(here / "other") != whole


def test_a_copy_grows_by_corruptions_that_were_put_right_and_by_others(here):
    for names in (["gaussian_noise"], ["snow"], ["snow", "gaussian_noise"]):
        assert corrupted("out", "--corruptions", *names) == 0
    assert corrupted("at-once", "--corruptions", "gaussian_noise", "snow") == 0
    assert content(here / "out") == content(here / "at-once")


@pytest.mark.parametrize("begun_with", ["fog", "snow"])
def test_a_copy_of_before_snow_was_put_right_takes_no_more_of_it(here, capsys, begun_with):
    assert corrupted("out", "--corruptions", begun_with) == 0
    path = here / "out" / "corrupt.json"
    manifest = json.loads(path.read_text())
    del manifest["settings"]["revision"]
    path.write_text(json.dumps(manifest))
    assert corrupted("out", "--corruptions", "contrast") == 0
    assert json.loads(path.read_text())["settings"]["revision"] == (1 if begun_with == "snow" else 2)
    capsys.readouterr()
    code = corrupted("out", "--corruptions", "motion_blur")
    if begun_with == "fog":
        assert code == 0
    else:
        assert code == 2 and "made with another revision (1, now 2)" in complaint(capsys)


def test_what_is_there_is_kept_and_what_is_broken_is_made_again(here, capsys):
    assert corrupted("out") == 0
    before = content(here / "out")
    paths = sorted((here / "out").rglob("*.JPEG"))
    times = {path: path.stat().st_mtime_ns for path in paths}
    first, second, third = paths[:3]
    first.unlink()
    second.write_bytes(second.read_bytes()[:200])
    third.write_bytes(b"")
    assert not is_whole(first) and not is_whole(second) and not is_whole(third) and is_whole(paths[3])
    (here / "out" / "fog" / "1" / "c0" / ".000.JPEG.99.tmp").write_bytes(b"half")
    capsys.readouterr()
    assert corrupted("out", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["made"] == 3 and summary["kept"] == 21
    assert before == content(here / "out") and not list((here / "out").rglob(".*.tmp"))
    assert all(path.stat().st_mtime_ns == times[path] for path in paths[3:])


def test_unreadable_images_are_listed_and_nothing_readable_is_a_failure(here, capsys):
    (here / "images" / "c1" / "broken.jpg").write_bytes(b"not an image")
    assert corrupted("out") == 0
    assert "1 unreadable images left out, for example 'c1/broken.jpg'" in capsys.readouterr().err.replace("\n", " ")
    for path in (here / "images").rglob("*.*"):
        path.write_bytes(b"x")
    assert corrupted("other") == 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--corruptions", "fogg"], "Did you mean 'fog'"),
        (["--severities", "0"], "--severities lie between 1 and 5, not 0"),
        (["--quality", "100"], "--quality lies between 1 and 95"),
        (["--size", "4"], "--size is at least 8"),
        (["--resize", "20"], "--resize 20 is smaller than the crop"),
        (["--workers", "-1"], "--workers is 0 or more"),
        (["--limit", "0"], "--limit is at least 1"),
        (["--frost", "nowhere"], "no frost1.png or frost1.jpg"),
        (["--out", "images/out"], "lies in the images' own folder"),
        (["--out", "full"], "holds 'note.txt' but no corrupt.json"),
        (["--out", "made"], "was made with another seed (3, now 0)"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(here, capsys, more, words):
    (here / "full").mkdir()
    (here / "full" / "note.txt").write_text("mine")
    if "made" in more:
        assert corrupted("made", "--limit", "1", "--seed", "3") == 0
        capsys.readouterr()
    assert corrupted("out", *more) == 2
    assert words in complaint(capsys)
    assert not (here / "out").exists() or not content(here / "out")


def test_a_full_disk_ends_the_run_with_its_reason(here, capsys, monkeypatch):
    from ipvit.data.derived import writer

    monkeypatch.setattr(writer, "write_atomic", full_disk)
    assert corrupted("out", "--workers", "1") == 1
    assert "No space left on device" in complaint(capsys)


@pytest.mark.slow
def test_a_killed_run_continues_and_ends_with_the_same_files(here):
    source = write_images(here / "many", per_class=8, classes=4, size=(140, 150))
    arguments = ["corrupt", str(source), "--size", "96", "--severities", "2", "--workers", "1", "--out"]
    for kill in range(2):
        kill_while_it_writes([*arguments, "killed"], lambda: len(content(here / "killed")), 20 + kill, seconds=90)
    assert 40 <= len(content(here / "killed")) < 32 * 15
    assert json.loads((here / "killed" / "corrupt.json").read_text())["status"] == "unfinished"
    assert main([*arguments, "killed"]) == 0 and main([*arguments, "whole"]) == 0
    assert content(here / "killed") == content(here / "whole")
