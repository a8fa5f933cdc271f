"""A study in shards, each in a folder of its own, and joined: the records are those of one run."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ipvit
from helpers.files import contents
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.cli import main
from ipvit.core.shard import Shard
from ipvit.data.dataset import MemoryDataset
from ipvit.engine.manifest import read_manifest, write_manifest
from ipvit.engine.merge import merge
from ipvit.engine.store import Store


def run(out, shard=None, model=None, data=None, **options):
    settings = {"workers": 0, "progress": False, "batch_size": 4} | options
    experiments = [small_occlusion(), ipvit.Shuffle(grids=("2x2",))]
    return ipvit.run(
        experiments,
        models=[model or tiny_model()],
        data=photos() if data is None else data,
        out=out,
        shard=shard,
        **settings,
    )


def records(folder, experiment="occlusion"):
    return Store(folder).records(experiment)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("contiguous", [False, True])
def test_shards_are_disjoint_whole_and_of_equal_size(count, contiguous):
    shards = [Shard(index, count).of(range(13), contiguous=contiguous) for index in range(count)]
    assert sorted(item for shard in shards for item in shard) == list(range(13))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/5", ""])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(ipvit.InputError, match="a shard is NUMBER/COUNT from 1/8 to 8/8"):
        Shard.parse(text)


@pytest.mark.parametrize("count", [2, 3])
def test_shards_joined_are_the_single_run_bit_for_bit(tmp_path, count):
    run(tmp_path / "whole")
    for number in range(count, 0, -1):
        run(tmp_path / "parts", f"{number}/{count}")
    manifest = merge([tmp_path / "parts"], tmp_path / "parts")
    assert manifest.status == "done" and not manifest.limited and manifest.images_used == 30
    for experiment in ("occlusion", "shuffle"):
        assert records(tmp_path / "parts", experiment).equals(records(tmp_path / "whole", experiment))
    assert ipvit.Run(tmp_path / "parts").tables["occlusion"].equals(ipvit.Run(tmp_path / "whole").tables["occlusion"])
    assert len(list((tmp_path / "parts").glob("records/*/*/*.parquet"))) == 2


def test_a_limit_holds_for_all_shards_together(tmp_path):
    run(tmp_path / "whole", limit=10)
    for number in (1, 2):
        run(tmp_path / "parts", f"{number}/2", limit=10)
    manifest = merge([tmp_path / "parts"], tmp_path / "parts")
    assert manifest.limited and manifest.images_used == 10
    assert records(tmp_path / "parts").equals(records(tmp_path / "whole"))


def test_a_missing_shard_is_named_and_nothing_is_written(tmp_path):
    for number in (1, 3):
        run(tmp_path / "parts", f"{number}/3")
    with pytest.raises(ipvit.InputError, match="shard 2/3 is missing"):
        merge([tmp_path / "parts"], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_what_is_there_can_be_joined_and_the_rest_measured_in_another_division(tmp_path):
    run(tmp_path / "whole")
    for number in (1, 3):
        run(tmp_path / "parts", f"{number}/3")
    manifest = merge([tmp_path / "parts"], tmp_path / "parts", partial=True)
    assert manifest.status == "interrupted" and manifest.limited
    measured = [run(tmp_path / "parts", f"{number}/2").manifest.measured_in_this_call for number in (1, 2)]
    per_image = len(records(tmp_path / "whole")) // 30 + len(records(tmp_path / "whole", "shuffle")) // 30
    assert sum(measured) == (30 - manifest.images_used) * per_image, "only what the first three have not"
    manifest = merge([tmp_path / "parts"], tmp_path / "parts")
    assert manifest.status == "done" and manifest.images_used == 30
    assert records(tmp_path / "parts").equals(records(tmp_path / "whole"))


def test_a_shard_that_rests_on_another_folder_is_not_joined_without_it(tmp_path):
    run(tmp_path / "parts", "1/2")
    merge([tmp_path / "parts"], tmp_path / "parts", partial=True)
    for number in (1, 2, 3):
        run(tmp_path / "parts", f"{number}/3")
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "parts" / "shards", moved / "shards")
    shutil.rmtree(moved / "shards" / "1-of-2")
    with pytest.raises(ipvit.InputError, match="rests on"):
        merge([moved], tmp_path / "all")


def test_the_joined_folder_goes_on_as_a_single_run(tmp_path):
    run(tmp_path / "parts", "1/2")
    merge([tmp_path / "parts"], tmp_path / "parts", partial=True)
    manifest = run(tmp_path / "parts").manifest
    assert 0 < manifest.measured_in_this_call < 30 * 9 and manifest.images_used == 30
    run(tmp_path / "whole")
    assert records(tmp_path / "parts").equals(records(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"seed": 1}, "seed: 0 and 1"),
        ({"precision": "bf16"}, "precision: 'fp32' and 'bf16'"),
        ({"data": photos(seed=5)}, "data: "),
        ({"model": tiny_model(1)}, "models"),
        ({"limit": 8}, "limit: None and 8"),
    ],
)
def test_shards_of_different_studies_are_not_joined(tmp_path, change, what):
    run(tmp_path / "a", "1/2")
    run(tmp_path / "b", "2/2", **change)
    with pytest.raises(ipvit.InputError, match=f"differ in their {what}"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")


def relabelled(folder, **changes) -> None:
    """Write into the manifest of a folder's shard that its models answered otherwise."""
    (folder,) = (folder / "shards").iterdir()
    about = read_manifest(folder)
    subjects = {name: used.model_copy(update=changes) for name, used in about.subjects.items()}
    write_manifest(folder, about.model_copy(update={"subjects": subjects}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"answers": "data"}, "differ in their answers"),
        ({"labels": {"a": "b"}}, "differ in which output a class is"),
        ({"sets": {"a": {"imagenet-a": "b"}}}, "differ in one of the sets"),
    ],
)
def test_shards_whose_models_answered_otherwise_are_not_joined(tmp_path, changes, words):
    for number in (1, 2):
        run(tmp_path / str(number), f"{number}/2")
    relabelled(tmp_path / "2", **changes)
    with pytest.raises(ipvit.InputError, match=words):
        merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all")


def test_shards_of_which_an_earlier_version_did_not_state_the_labels_are_joined(tmp_path):
    for number in (1, 2):
        run(tmp_path / str(number), f"{number}/2")
    relabelled(tmp_path / "1", labels={})
    assert merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all").merged


def test_shards_of_different_batch_sizes_had_other_images_and_are_not_joined(tmp_path):
    run(tmp_path / "parts", "1/2")
    run(tmp_path / "parts", "2/2", batch_size=8)
    with pytest.raises(ipvit.InputError, match="batch sizes differ"):
        merge([tmp_path / "parts"], tmp_path / "all")


def test_the_same_result_with_two_values_is_refused_by_the_name_of_the_image(tmp_path):
    run(tmp_path / "a", "1/2")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shard = tmp_path / "b" / "shards" / "1-of-2"
    (part,) = shard.glob("records/occlusion/*/*.parquet")
    frame = Store(shard).records("occlusion")
    part.unlink()
    label = frame["label"].to_numpy().copy()
    label[7] += 1
    Store(shard).write(frame.with_columns(label=label))
    with pytest.raises(ipvit.InputError, match="two shards have different results for the image 'photo"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    merge([tmp_path / "a", tmp_path / "c"], tmp_path / "twice", partial=True)
    assert records(tmp_path / "twice").height == frame.height, "equal ones count once"


def test_whole_runs_are_no_shards_and_are_not_joined(tmp_path):
    run(tmp_path / "a")
    with pytest.raises(ipvit.InputError, match="'.*a' is no shard of a study, but a whole run"):
        merge([tmp_path / "a"], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_a_damaged_part_of_a_shard_is_not_joined(tmp_path):
    for number in (1, 2):
        run(tmp_path / "parts", f"{number}/2")
    part = next((tmp_path / "parts" / "shards" / "2-of-2").glob("records/*/*/*.parquet"))
    part.write_bytes(part.read_bytes()[:-3])
    with pytest.raises(ipvit.InputError, match="is damaged; run this shard again"):
        merge([tmp_path / "parts"], tmp_path / "all")
    run(tmp_path / "parts", "2/2")
    merge([tmp_path / "parts"], tmp_path / "all")


def test_unreadable_images_of_all_shards_are_listed(tmp_path):
    from helpers.tiny import write_images

    images = write_images(tmp_path / "images")
    for name in ("c0/000.jpg", "c3/001.png"):
        (images / name).write_bytes(b"not a picture")
    data = ipvit.load_dataset(images)
    for number in (1, 2):
        run(tmp_path / "parts", f"{number}/2", data=data)
    manifest = merge([tmp_path / "parts"], tmp_path / "parts")
    assert [entry.image for entry in manifest.skipped] == ["c0/000.jpg", "c3/001.png"]
    assert manifest.images_used == 18


def test_data_read_from_the_front_is_divided_into_stretches(tmp_path):
    class Stream(MemoryDataset):
        sequential = True
        last = -1

        def read(self, index):
            assert index > self.last, "never back"
            self.last = index
            return super().read(index)

    def stream():
        source = photos()
        return Stream(np.stack([source.read(i).numpy() for i in range(30)]), source.labels, source.classes)

    run(tmp_path / "whole", data=stream())
    for number in (1, 2, 3):
        data = stream()
        run(tmp_path / "parts", f"{number}/3", data=data)
        assert data.last < 12 * number
    merge([tmp_path / "parts"], tmp_path / "parts")
    assert records(tmp_path / "parts").equals(records(tmp_path / "whole"))


def test_the_command_line_measures_shards_and_joins_them(here, capsys):
    (here / "study.yaml").write_text(
        "models: net.py:make\ndata: images\nexperiments: {occlusion: {grid: 4x4, levels: [0, 0.5], runs: 1}}\n"
        "workers: 0\nbatch_size: 3\n"
    )
    assert main(["run", "study.yaml", "--out", "whole"]) == 0
    for number in ("1/2", "2/2"):
        assert main(["run", "study.yaml", "--out", "parts", "--shard", number]) == 0
    capsys.readouterr()
    assert main(["merge", "parts", "--json"]) == 0
    joined = json.loads(capsys.readouterr().out)
    assert joined["limited"] is False
    assert (here / "parts/tables/occlusion.csv").read_text() == (here / "whole/tables/occlusion.csv").read_text()
    assert (here / "parts/report.html").is_file()
    assert main(["merge", "parts/shards/1-of-2", "--out", "all"]) == 2
    assert capsys.readouterr().err == (
        "ipvit: shard 2/2 is missing; run those again, or join what is there with --partial\n"
    )
    assert main(["merge", "nowhere", "--out", "all"]) == 2
    assert main(["run", "study.yaml", "--shard", "3/2"]) == 2
    assert "a shard is NUMBER/COUNT" in capsys.readouterr().err


def attacked(out, shard=None, **options):
    experiment = ipvit.Attack(
        attacks=("patch",), patch_areas=(0.2,), patch_images=12, patch_steps=2, patch_batch=4, runs=1, transfer=True
    )
    models = [ipvit.load_model(f"demo:{name}", label=name) for name in ("deit_micro", "resnet_micro")]
    settings = {"data": "demo:trifeature", "limit": 24, "batch_size": 6, "workers": 0, "progress": False} | options
    return ipvit.run(experiment, models=models, out=out, shard=shard, **settings)


@pytest.mark.slow
def test_the_patches_of_shards_are_kept_and_serve_whoever_goes_on(tmp_path, monkeypatch):
    attacked(tmp_path / "whole")
    for number in (1, 2):
        attacked(tmp_path / "parts", f"{number}/2")
    manifest = merge([tmp_path / "parts"], tmp_path / "parts")
    assert manifest.status == "done" and not manifest.notes
    assert records(tmp_path / "parts", "attack").equals(records(tmp_path / "whole", "attack"))
    assert contents(tmp_path / "parts" / "patches") == contents(tmp_path / "whole" / "patches") != {}

    from ipvit.experiments.attack import patches

    monkeypatch.setattr(patches, "train_patch", lambda *_, **__: pytest.fail("trained again"))
    more = attacked(tmp_path / "parts", limit=30)
    assert more.manifest.measured_in_this_call > 0 and not more.manifest.failures


def test_files_that_belong_together_come_from_one_shard_and_a_contradiction_is_told_of(tmp_path):
    for number in (1, 2):
        run(tmp_path / "parts", f"{number}/2")
        kept = tmp_path / "parts" / "shards" / f"{number}-of-2" / "patches" / "net-1234"
        kept.mkdir(parents=True)
        (kept / "5pct.png").write_bytes(b"picture %d" % number)
        (kept / "5pct.json").write_bytes(b"card %d" % number)
        (kept / f"only-{number}.png").write_bytes(b"x")
        (kept / ".half.png.1-ab.tmp").write_bytes(b"left by a killed run")
    manifest = merge([tmp_path / "parts"], tmp_path / "parts")
    found = contents(tmp_path / "parts" / "patches")
    assert found["net-1234/5pct.png"] == b"picture 1" and found["net-1234/5pct.json"] == b"card 1"
    assert set(found) == {f"net-1234/{name}" for name in ("5pct.png", "5pct.json", "only-1.png", "only-2.png")}
    (note,) = manifest.notes
    assert note.startswith("the shards made 1 different files of the same names in patches/, for example patches/net-")
    assert merge([tmp_path / "parts"], tmp_path / "parts").notes == (note,), "told once"


MERGES = """
import os, signal, sys
from pathlib import Path
from ipvit.engine.merge import merge

def killed_at(step, out):
    steps = 0

    def count(event, arguments):
        nonlocal steps
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.scandir") and str(out) in str(arguments):
            steps += 1
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)

for step in range(1, 500):
    out = Path(sys.argv[2], str(step))
    child = os.fork()
    if child == 0:
        killed_at(step, out)
        merge([Path(sys.argv[1])], out)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status)
    if status != -signal.SIGKILL:
        break
"""
"""Merges into a folder each: the first is killed at the first file or folder that it touches, the next at the second,
and so on; the last is not killed, as it has fewer of them."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_merge_that_is_killed_at_any_moment_ends_with_the_same_files(tmp_path):
    for number in range(1, 4):
        run(tmp_path / "parts", f"{number}/3")
    command = [sys.executable, "-c", MERGES, tmp_path / "parts", tmp_path / "merges"]
    made = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True, timeout=300
    )
    *killed, last = map(int, made.stdout.split())
    assert last == 0 and len(killed) > 30 and set(killed) == {-signal.SIGKILL}
    merge([tmp_path / "parts"], tmp_path / "whole")
    expected, whole = without_leftovers(tmp_path / "whole"), records(tmp_path / "whole")
    for step in range(1, len(killed) + 1):
        out = tmp_path / "merges" / str(step)
        merge([tmp_path / "parts"], out)
        assert without_leftovers(out) == expected, step
        assert records(out).equals(whole), step


def without_leftovers(folder: Path) -> dict[str, bytes]:
    """Return what a merge is to leave behind: neither the lock nor a hidden file that was not finished counts."""
    names = contents(folder, but=("manifest.json",))
    return {name: data for name, data in names.items() if not Path(name).name.startswith(".")}
