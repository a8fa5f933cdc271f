"""What goes wrong in part of a run, on small machines and on devices with less than everything: the rest goes on."""

import collections
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import ipvit
from helpers.small_runs import CLASSES, Picky, photos, small_occlusion
from helpers.tiny import PatchNet, tiny_model, write_images
from ipvit.analysis.base import Analysis
from ipvit.data import loader, workers
from ipvit.data.dataset import MemoryDataset
from ipvit.metrics.correlation import correlation, cosine
from ipvit.metrics.jaccard import jaccard
from ipvit.perturb.salience import salient_keep


def run(experiment, out, models=None, **options):
    settings = {"workers": 0, "progress": False, "batch_size": 8, "data": photos()} | options
    return ipvit.run(experiment, models=models or [tiny_model()], out=out, **settings)


def test_a_condition_that_fails_is_recorded_and_the_others_go_on(tmp_path):
    results = run(Picky(bad=(2,)), tmp_path)
    assert sorted(results.records("picky")["number"].unique()) == [0, 1, 3, 4]
    assert results.records("picky").height == 4 * 30
    (failure,) = results.manifest.failures
    assert failure.condition == "number=2" and failure.error == "RuntimeError: number 0 is bad"
    assert "raise RuntimeError" in failure.details and results.manifest.status == "failed"
    repaired = run(Picky(), tmp_path)
    assert repaired.manifest.measured_in_this_call == 30 and not repaired.manifest.failures


def test_equal_errors_are_told_once_with_all_their_conditions(tmp_path):
    results = run(Picky(bad=(0, 1, 2, 4), count=8), tmp_path)
    found = {failure.error: failure.condition for failure in results.manifest.failures}
    assert found == {
        "RuntimeError: number 0 is bad": "number=0; number=2; number=4",
        "RuntimeError: number 1 is bad": "number=1",
    }


def test_a_model_that_fails_everywhere_is_one_failure_and_is_left_alone(tmp_path):
    calls = []

    class Broken(nn.Module):
        def forward(self, x):
            if len(x) == 2:  # well while it is tried
                return torch.zeros(2, 4)
            calls.append(len(x))
            raise RuntimeError("broken")

    broken = ipvit.wrap(Broken(), size=16, crop_pct=1.0, classes=CLASSES, name="broken")
    results = run(small_occlusion(), tmp_path, [broken, tiny_model()])
    (failure,) = results.manifest.failures
    assert failure.condition == "" and failure.model == "broken"
    assert len(calls) <= 1 + 7 + 1, "the whole batch, every condition alone, the pictures: no second batch"


class Refusing(Picky):
    """Raises, while it measures, what is raised where the user's input is wrong, and worse."""

    name: ClassVar[str] = "refusing"
    error: str = "InputError"
    where: str = "measure"

    def prepare(self, model, context):
        self.fail("prepare")

    def measure(self, model, batch):
        self.fail("measure")
        yield from super().measure(model, batch)

    def examples(self, model, batch):
        self.fail("examples")
        yield from ()

    def fail(self, where):
        kinds = {"InputError": ipvit.InputError, "OSError": PermissionError, "SystemExit": SystemExit}
        if where == self.where:
            raise kinds[self.error](13, "not for you") if self.error == "OSError" else kinds[self.error]("not for you")


@pytest.mark.parametrize("error", ["InputError", "OSError", "SystemExit"])
@pytest.mark.parametrize("where", ["prepare", "measure", "examples"])
def test_whatever_is_raised_after_the_start_is_that_pairs_failure_and_the_rest_goes_on(tmp_path, where, error):
    results = run([Refusing(error=error, where=where), small_occlusion()], tmp_path)
    (failure,) = results.manifest.failures
    assert (failure.experiment, failure.model, failure.condition) == ("refusing", "tiny", "")
    assert "not for you" in failure.error and results.manifest.status == "failed"
    assert results.records("occlusion").height == 30 * 7
    assert (tmp_path / "tables" / "occlusion.csv").is_file()
    if error == "SystemExit":  # the worst; a report takes longer than all the rest
        assert results.report().is_file()


def test_a_network_that_returns_something_else_on_some_image_fails_alone(tmp_path):
    class Odd(PatchNet):
        def forward(self, x):
            return {"scores": super().forward(x)} if len(x) > 2 else super().forward(x)

    odd = ipvit.wrap(Odd(), size=16, crop_pct=1.0, classes=CLASSES, name="odd")
    results = run(small_occlusion(), tmp_path, [odd, tiny_model()])
    (failure,) = results.manifest.failures
    assert (failure.model, failure.condition) == ("odd", "") and "the network returned dict" in failure.error
    assert results.records("occlusion").height == 30 * 7


def test_what_somebodys_data_set_raises_for_an_image_leaves_out_that_image(tmp_path):
    class Moody(MemoryDataset):
        def read(self, index):
            if index == 3:
                raise KeyError("label")
            return super().read(index) if index != 5 else torch.zeros(16, 16)

    data = Moody(photos()._images, photos().labels, CLASSES)
    manifest = run(small_occlusion(), tmp_path, data=data).manifest
    assert [(entry.image, entry.reason) for entry in manifest.skipped] == [
        ("00000003", "KeyError: 'label'"),
        ("00000005", "its data set gives (16, 16) of torch.float32, not (3, H, W) of torch.uint8"),
    ]
    assert manifest.status == "done" and manifest.images_used == 28


class Unexplained(Picky):
    name: ClassVar[str] = "unexplained"

    def analysis(self):
        return Baffled.of(self)


class Baffled(Analysis):
    def tables(self, reductions):
        raise ZeroDivisionError("no such table")


def test_an_analysis_that_fails_leaves_the_tables_and_the_report_of_the_others(tmp_path, capsys):
    from ipvit.commands.measure import tell

    results = run([Unexplained(), small_occlusion()], tmp_path)
    assert tell(results, json=False) is False
    said = capsys.readouterr()
    assert "The tables of unexplained could not be made: ZeroDivisionError: no such table" in said.err
    assert "Occlusion: PatchDrop" in said.out and (tmp_path / "report.html").is_file()
    assert list(results.tables) == ["occlusion", "occlusion-area"] and results.notes["unexplained"]


def test_the_command_line_names_the_condition(tmp_path, monkeypatch, capsys):
    from ipvit.commands.measure import complain

    assert complain(run(Picky(bad=(3,)), tmp_path)) is True
    assert "picky (number=3) failed on tiny: RuntimeError: number 1 is bad" in capsys.readouterr().err


def test_little_shared_memory_is_noticed_and_pictures_go_by_pipe(tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    data = ipvit.load_dataset(write_images(tmp_path / "images"))
    plain = run(small_occlusion(), tmp_path / "a", workers=2, data=data)
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda path: usage(1000, 0, 1000))
    sent = []
    with_ = loader.DecodedBatch.map_tensors
    monkeypatch.setattr(
        loader.DecodedBatch, "map_tensors", lambda batch, change: sent.append(change) or with_(batch, change)
    )
    by_pipe = run(small_occlusion(), tmp_path / "b", workers=2, data=data)
    (note,) = by_pipe.manifest.notes
    assert note.startswith("/dev/shm has 0 MB free, 2 workers want 0: pictures go by pipe") and not plain.manifest.notes
    assert sent and by_pipe.records("occlusion").equals(plain.records("occlusion"))


def test_masks_and_several_views_go_by_pipe_too():
    data = MemoryDataset(torch.randint(0, 256, (5, 3, 20, 20), dtype=torch.uint8), masks=torch.ones(5, 20, 20))
    views = [tiny_model(size=size).preprocessing.view for size in (8, 16)]
    options = {"workers": 1, "masks": True}
    plain, piped = (
        list(loader.read_batches(data, [np.arange(3), np.arange(3, 5)], views, through_pipes=pipes, **options))
        for pipes in (False, True)
    )
    for a, b in zip(plain, piped, strict=True):
        assert all(torch.equal(a.pixels[view], b.pixels[view]) for view in views)
        assert all(torch.equal(a.masks[view], b.masks[view]) for view in views)


def test_networks_are_afterwards_where_and_what_they_were(tmp_path, monkeypatch):
    model = tiny_model()
    inner = model.backbone
    seen = []

    class Compiled(nn.Module):
        def __init__(self, module):
            super().__init__()
            self._orig_mod = module

        def forward(self, x):
            seen.append(len(x))
            return self._orig_mod(x)

    monkeypatch.setattr(torch, "compile", Compiled)
    moves = []
    to = type(model).to
    monkeypatch.setattr(type(model), "to", lambda self, device: moves.append(str(device)) or to(self, device))
    run(small_occlusion(levels=(0,)), tmp_path, [model], compile=True)
    assert seen and model.backbone is inner and moves == ["cpu", "cpu"]
    with pytest.raises(ipvit.InputError, match="unreadable image"):
        images = write_images(tmp_path / "images")
        (images / "c0" / "x.jpg").write_bytes(b"")
        run(small_occlusion(), tmp_path / "b", [model], compile=True, data=ipvit.load_dataset(images), strict=True)
    assert model.backbone is inner


class OnAppleGpu(torch.Tensor):
    """A tensor that says it is on Apple's GPU and, as one there, refuses float64."""

    device = property(lambda self: torch.device("mps"))  # pyright: ignore[reportAssignmentType]

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def double(self):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")

    def to(self, where):
        return self if where == torch.device("mps") else super().to(where)


def apple(values: torch.Tensor) -> torch.Tensor:
    return values.as_subclass(OnAppleGpu)


def plain(values: torch.Tensor) -> torch.Tensor:
    return values.as_subclass(torch.Tensor)


def test_the_stand_in_for_apples_gpu_refuses_float64():
    with pytest.raises(TypeError, match="MPS"):
        apple(torch.ones(2)).double()
    assert apple(torch.ones(2)).device.type == "mps" and apple(torch.ones(2)).cpu().device.type == "cpu"


def test_measures_in_double_precision_work_where_the_device_has_none():
    u, v = torch.rand(3, 8), torch.rand(3, 8)
    mask, region = torch.rand(2, 4, 4) > 0.5, torch.rand(2, 4, 4) > 0.5
    assert torch.equal(plain(correlation(apple(u), apple(v))), correlation(u, v))
    assert torch.equal(plain(cosine(apple(u), apple(v))), cosine(u, v))
    assert torch.equal(plain(jaccard(apple(mask), apple(region))), jaccard(mask, region))
    assert torch.equal(plain(salient_keep(apple(u), 0.5)), salient_keep(u, 0.5))


def test_the_sharded_prediction_of_a_batch_does_not_depend_on_the_other_batches(tmp_path):
    whole = run(small_occlusion(), tmp_path / "a").records("occlusion")
    first = run(small_occlusion(), tmp_path / "b", shard="2/3").records("occlusion")
    assert first.equals(whole.filter(whole["image"].is_in(first["image"].implode())))


def test_pictures_of_one_colour_are_counted_in_a_note(tmp_path):
    pixels = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    pixels[1:3] = torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None]
    (note,) = run(small_occlusion(), tmp_path, data=MemoryDataset(pixels, np.arange(5) % 4, CLASSES)).manifest.notes
    assert note.startswith("2 images are one colour all over in memory, for example '00000001'")
