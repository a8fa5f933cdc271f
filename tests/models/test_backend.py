"""OpenVINO's answers against torch's own, and what is said where it cannot answer."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from torch import nn

import ipvit
from helpers.paths import TESTS
from helpers.plain_loops import measured, photos, quiet_vit, tiny_resnet, wrapped
from ipvit.api import bind_context
from ipvit.core.run_config import RunConfig
from ipvit.engine.device import models_on_device
from ipvit.engine.distributed import ProcessGroup
from ipvit.engine.preparation import checked
from ipvit.engine.types import Selected
from ipvit.models.answers import AnswerSpace
from ipvit.models.backend import check_backend
from ipvit.models.openvino_model import ConversionError, OpenVinoGraph, OpenVinoModel, with_backend

try:
    import openvino  # noqa: F401
except ImportError:
    installed = False
else:
    installed = True

needs_openvino = pytest.mark.skipif(not installed, reason="needs the extra ipvit[openvino]")


class BatchInACode(nn.Module):
    """Its Python looks at the pixels: what a trace of one picture records is wrong for another."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)[:, :4]
        return flat if float(x[0].mean()) > float(x[-1].mean()) else -flat


@needs_openvino
@pytest.mark.parametrize("network", [quiet_vit, tiny_resnet])
def test_its_logits_are_torchs_up_to_rounding_for_any_number_of_images(network):
    model = network()
    converted = OpenVinoModel(model, "fp32")
    for n in (1, 5, 2):
        images = torch.rand(n, 3, *model.image_size)
        with torch.inference_mode():
            assert torch.allclose(converted(images), model(images), atol=1e-5, rtol=1e-4)


@needs_openvino
def test_a_model_that_it_computes_is_the_same_network_and_can_do_less():
    model = quiet_vit()
    converted = with_backend(model, "openvino")
    assert with_backend(model, "torch") is model
    assert (converted.digest, converted.name, converted.backend) == (model.digest, model.name, "openvino")
    assert converted.capabilities == {"logits", "attention"} < model.capabilities
    with pytest.raises(ipvit.InputError, match="does not offer 'tokens'"):
        converted.tokens(torch.rand(1, 3, *model.image_size))
    loaded = ipvit.load_model("demo:deit_micro", backend="openvino")
    assert loaded.digest == ipvit.load_model("demo:deit_micro").digest and loaded.capabilities == {
        "logits",
        "attention",
    }


@needs_openvino
def test_among_fewer_answers_it_knows_the_names_of_all_outputs():
    names = tuple(f"class {number}" for number in range(quiet_vit().n_outputs))
    model = quiet_vit()
    model.classes = names
    chooser = with_backend(model, "openvino").answering(AnswerSpace(names[1:3], ((1,), (2,)), len(names)))
    assert (chooser.output_classes, chooser.classes) == (names, names[1:3])
    assert with_backend(model.answering(chooser.answer_space), "openvino").output_classes == names
    images = torch.rand(2, 3, *model.image_size)
    with torch.inference_mode():
        assert torch.allclose(chooser(images), model(images)[:, 1:3], atol=1e-5, rtol=1e-4)


@needs_openvino
def test_its_attention_is_torchs_up_to_rounding():
    model = quiet_vit()
    images = torch.rand(3, 3, *model.image_size)
    with torch.inference_mode():
        own = model.attention(images, [2, 0])
        other = OpenVinoModel(model, "fp32").attention(images, [2, 0])
    assert list(other) == list(own) == [0, 2]
    assert all(torch.allclose(other[block], own[block], atol=1e-5) for block in own)


@needs_openvino
def test_the_rows_of_the_class_token_are_torchs_up_to_rounding():
    model = quiet_vit()
    images = torch.rand(3, 3, *model.image_size)
    with torch.inference_mode():
        own = model.attention(images, [2])[2][:, :, :1]
        other = OpenVinoModel(model, "fp32").prefix_attention(images, 2)
    assert other.shape == own.shape and torch.allclose(other, own, atol=1e-5)


@needs_openvino
def test_a_run_through_it_gives_the_same_results_and_keeps_them_apart(tmp_path):
    model, data = quiet_vit(), photos(6)
    experiment = ipvit.Occlusion(levels=(0.0, 0.5), runs=2, grid="4x4")
    key = ["condition", "image"]
    by_torch = measured(experiment, model, data, tmp_path).sort(key)
    by_openvino = measured(experiment, model, data, tmp_path, backend="openvino").sort(key)
    assert by_torch["prediction"].equals(by_openvino["prediction"])
    assert np.allclose(by_torch["confidence"], by_openvino["confidence"], atol=1e-5)
    assert set(by_torch["precision"]) == {"fp32"} and set(by_openvino["precision"]) == {"fp32 openvino"}
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["backend"] == "openvino" and manifest["versions"]["openvino"]
    again = ipvit.run(experiment, models=model, data=data, out=tmp_path, workers=0, backend="openvino", progress=False)
    assert again.manifest.measured_in_this_call == 0


@needs_openvino
def test_the_network_itself_is_not_asked_while_it_answers(tmp_path):
    model, data = tiny_resnet(), photos(4, 64)
    asked = []
    model.backbone.register_forward_hook(lambda _module, args, _output: asked.append(len(args[0])))
    measured(ipvit.Shuffle(grids=("1x1", "2x2")), model, data, tmp_path, backend="openvino")
    # two passes over two made-up pictures for the manifest; then traced with two images, compared on one
    assert asked == [2, 2, 2, 1]


@needs_openvino
def test_square_attacks_what_it_answers_and_the_rest_is_left_out_with_the_reason(tmp_path):
    model, data = quiet_vit(), photos(6)
    asked = {"attacks": ("pgd", "square", "cells"), "epsilons": (16,), "queries": 30}
    by_torch = measured(ipvit.Attack(**asked), model, data, tmp_path / "torch")
    run = ipvit.run(
        ipvit.Attack(**asked),
        models=model,
        data=data,
        out=tmp_path / "openvino",
        workers=0,
        backend="openvino",
        progress=False,
    )
    records = run.records("attack")
    assert set(records["attack"]) == {"clean", "check", "square"} and set(records["precision"]) == {"fp32 openvino"}
    notes = " ".join(run.manifest.notes)
    assert "PGD, replaced cells left out: they follow gradients" in notes
    own, other = (frame.filter(attack="square").sort("image")["correct"].to_list() for frame in (by_torch, records))
    assert sum(a != b for a, b in zip(own, other, strict=True)) <= 1  # a margin at zero may fall either way


@needs_openvino
def test_attention_of_whole_passes_goes_through_it_too(tmp_path):
    masks = torch.zeros(4, 32, 32, dtype=torch.bool)
    masks[:, 8:24, 8:24] = True
    model, data = quiet_vit(), photos(4, masks=masks)
    key = ["condition", "image"]
    own = measured(ipvit.Segment(), model, data, tmp_path).sort(key)
    other = measured(ipvit.Segment(), model, data, tmp_path, backend="openvino").sort(key)
    assert set(other["precision"]) == {"fp32 openvino"}
    assert np.allclose(own["jaccard"], other["jaccard"], atol=0.05)  # a patch at the threshold may fall either way


@needs_openvino
def test_what_reads_more_than_it_computes_stays_with_torch_and_says_so(tmp_path):
    model, data = quiet_vit(), photos(4)
    run = ipvit.run(
        [ipvit.Shuffle(grids=("2x2",)), ipvit.FeatureDrop(blocks=(1,))],
        models=model,
        data=data,
        out=tmp_path,
        workers=0,
        backend="openvino",
        progress=False,
    )
    assert set(run.records("shuffle")["precision"]) == {"fp32 openvino"}
    assert set(run.records("feature-drop")["precision"]) == {"fp32"}
    assert any(note.startswith("feature-drop: by torch") for note in run.manifest.notes)
    assert {"shuffle", "feature-drop"} <= run.tables.keys()


@needs_openvino
def test_an_experiment_goes_one_way_for_all_of_its_models():
    settings = RunConfig(backend="openvino", device="cpu")
    experiments = [ipvit.Accuracy(), ipvit.Occlusion(levels=(0,), grid="4x4")]
    plain = quiet_vit()
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 4}
    with_heads = wrapped(VisionTransformerDistilled(**sizes).eval(), name="with heads")
    for models, accuracy in (([plain], "fp32 openvino"), ([plain, with_heads], "fp32")):
        selected = [Selected(experiment) for experiment in experiments]
        _, tasks, _ = checked(selected, models, photos(4), settings, ProcessGroup(), bind_context())
        found = {(task.experiment.name, task.identity.precision) for task in tasks}
        assert found == {("accuracy", accuracy), ("occlusion", "fp32 openvino")}


@needs_openvino
def test_a_network_that_a_trace_gets_wrong_is_refused_and_stays_refused(monkeypatch):
    model = ipvit.wrap(BatchInACode(), size=8)
    converted = OpenVinoModel(model, "fp32")
    images = torch.rand(2, 3, 8, 8)
    examples = [torch.linspace(0, 1, n * 192).view(n, 3, 8, 8).flip(n % 2) for n in (1, 2)]
    graph = OpenVinoGraph
    monkeypatch.setattr(graph, "_example", lambda self, n: examples[n - 1])
    with pytest.raises(ConversionError, match=r"OpenVINO cannot compute .*off by"):
        converted(images)
    monkeypatch.setattr(graph, "_convert", lambda self: pytest.fail("tried again"))
    with pytest.raises(ConversionError, match="use the backend torch"):
        converted(images)


@needs_openvino
def test_a_network_it_cannot_compute_fails_alone(tmp_path):
    class Strange(nn.Module):
        def forward(self, x):
            return torch.from_numpy(x.numpy()[:, 0, 0, :4].copy())

    models = [wrapped(Strange(), name="strange"), quiet_vit()]
    run = ipvit.run(
        ipvit.Occlusion(levels=(0.0,), grid="4x4"),
        models=models,
        data=photos(4),
        out=tmp_path,
        workers=0,
        backend="openvino",
        progress=False,
    )
    assert {failure.model for failure in run.manifest.failures} == {"strange"}
    assert run.records("occlusion")["model"].n_unique() == 1


RUNS = """
import gc
import sys
import ipvit
from helpers.plain_loops import photos, quiet_vit

def collecting(self, index, read=ipvit.MemoryDataset.read):
    gc.collect()
    return read(self, index)

ipvit.MemoryDataset.read = collecting
gc.disable()  # so that networks no longer needed are still there when the next run's processes are forked off
for number in range(3):
    ipvit.run(ipvit.Shuffle(grids=("2x2",), runs=2), models=quiet_vit(seed=number), data=photos(12), backend="openvino",
              out=f"{sys.argv[1]}/{number}", workers=2, batch_size=2, progress=False)
"""


@needs_openvino
def test_decoding_processes_leave_its_networks_alone_and_end(tmp_path):
    # one that collected a network it inherited would wait for ever, for threads that it does not have
    runs = subprocess.Popen([sys.executable, "-c", RUNS, tmp_path], cwd=TESTS, start_new_session=True)
    try:
        assert runs.wait(timeout=120) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):  # whoever still waits
            os.killpg(runs.pid, signal.SIGKILL)


@needs_openvino
def test_nothing_is_sent_to_anybody(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was opened"))
    model = quiet_vit()
    assert OpenVinoModel(model, "fp32")(torch.rand(1, 3, *model.image_size)).isfinite().all()


@needs_openvino
def test_16_bits_are_another_result_near_the_first(tmp_path):
    model, data = quiet_vit(), photos(4)
    experiment = ipvit.Occlusion(levels=(0.5,), runs=1, grid="4x4")
    exact = measured(experiment, model, data, tmp_path, backend="openvino").sort("image")
    run = ipvit.run(
        experiment,
        models=model,
        data=data,
        out=tmp_path,
        workers=0,
        backend="openvino",
        precision="bf16",
        progress=False,
    )
    if run.manifest.failures:
        assert "no instructions for bf16" in run.manifest.failures[0].error
        pytest.skip("this processor has no instructions for bf16")
    rounded = run.records("occlusion").sort("image")
    assert set(rounded["precision"]) == {"bf16 openvino"}
    assert 0 < (exact["confidence"] - rounded["confidence"]).abs().max() < 0.05


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("openvino", "fp16", "cpu"), "computes in fp32 or bf16, not fp16"),
        (("openvino", "fp32", "cuda"), "for the cpu, not for the device 'cuda'"),
    ],
)
def test_what_it_cannot_do_is_refused_before_anything_starts(given, words):
    with pytest.raises(ipvit.InputError, match=words):
        check_backend(*given)


def test_it_is_not_combined_with_torchs_own_compiler():
    with pytest.raises(ipvit.InputError, match="leave out either"):
        check_backend("openvino", "fp32", "cpu", compiled=True)


def test_where_the_package_is_missing_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ipvit.InputError, match=r"pip install 'ipvit\[openvino\]'"):
        check_backend("openvino", "fp32", "cpu")


@needs_openvino
def test_alone_with_an_experiment_it_cannot_compute_it_is_refused(tmp_path):
    with pytest.raises(ipvit.InputError, match="computes logits and attention, but feature-drop read more"):
        measured(ipvit.FeatureDrop(blocks=(1,)), quiet_vit(), photos(2), tmp_path, backend="openvino")


@needs_openvino
def test_shards_measured_by_different_programs_are_not_joined(tmp_path):
    from ipvit.engine.merge import merge

    experiment, data = ipvit.Occlusion(levels=(0.5,), runs=1, grid="4x4"), photos(4)
    for number, name in enumerate(("torch", "openvino"), start=1):
        ipvit.run(
            experiment,
            models=quiet_vit(),
            data=data,
            out=tmp_path,
            batch_size=2,
            workers=0,
            backend=name,
            shard=f"{number}/2",
            progress=False,
        )
    with pytest.raises(ipvit.InputError, match="backend: 'torch' and 'openvino'"):
        merge([tmp_path], tmp_path)


def test_records_of_a_run_hold_the_torch_precision_plainly(tmp_path):
    records = measured(ipvit.Occlusion(levels=(0.5,), runs=1, grid="4x4"), quiet_vit(), photos(2), tmp_path)
    assert records.select(pl.col("precision").unique()).item() == "fp32"


class ViewsItsMap(nn.Module):
    """Its view wants channels before places in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).view(len(x), -1)[:, :4]


@pytest.mark.parametrize(("network", "last"), [(tiny_resnet, True), (lambda: wrapped(ViewsItsMap()), False)])
def test_in_16_bits_convolutions_lie_channels_last_where_the_network_stands_it(network, last):
    model, device = network(), torch.device("cpu")
    kernel = next(p for p in model.backbone.parameters() if p.dim() == 4 and p.shape[1] > 1)
    digest = model.digest
    with models_on_device([model], device, RunConfig(precision="bf16")):
        assert kernel.is_contiguous(memory_format=torch.channels_last) == last
        model.forget_digest()
        assert model.digest == digest
    assert kernel.is_contiguous()
    with models_on_device([model], device, RunConfig()):
        assert kernel.is_contiguous()


def test_where_a_backend_answers_for_a_network_everywhere_its_layout_is_left_alone():
    model, device = tiny_resnet(), torch.device("cpu")
    kernel = next(p for p in model.backbone.parameters() if p.dim() == 4 and p.shape[1] > 1)
    by_backend, by_torch = (
        SimpleNamespace(model=SimpleNamespace(name=model.name, backend=backend)) for backend in ("openvino", "torch")
    )
    for tasks, last in (([by_backend], False), ([by_backend, by_torch], True)):
        with models_on_device([model], device, RunConfig(precision="bf16"), tasks):
            assert kernel.is_contiguous(memory_format=torch.channels_last) == last
