"""Names, weights and preprocessing of networks; checkpoints that must not be trusted."""

import argparse
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import ipvit
from helpers.hostile import Payload
from helpers.tiny import PatchNet
from ipvit.models.io.state_dict import load_strictly, read_state_dict
from ipvit.models.loading import ModelName
from ipvit.models.sources.building import cannot_fetch

SMALL = "resnet10t"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    torch.manual_seed(5)
    save_file(timm.create_model(SMALL, num_classes=7).state_dict(), path)
    return path


def test_a_name_is_taken_apart():
    assert ModelName.parse("a?img_size=96&num_classes=5&x=y@w/e@1.pth") == ModelName(
        "", "a", {"img_size": 96, "num_classes": 5, "x": "y"}, "w/e@1.pth"
    )
    assert ModelName.parse("hf-hub:owner/name").scheme == "hf-hub"
    assert ModelName.parse("dir/net.py:make") == ModelName("file", "dir/net.py:make", {}, None)


def test_local_weights_give_the_networks_own_answers_and_their_sha256(weights):
    import hashlib

    model = ipvit.load_model(f"{SMALL}?num_classes=7@{weights}")
    torch.manual_seed(5)
    reference = timm.create_model(SMALL, num_classes=7).eval()
    config = timm.data.resolve_model_data_config(reference)
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    assert torch.allclose(model(images), reference((images - mean) / std), atol=1e-5)
    assert model.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert model.preprocessing.view.interpolation == config["interpolation"]


def test_random_networks_are_the_same_every_time_and_leave_the_global_seed_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, second = (ipvit.load_model(SMALL, pretrained=False) for _ in range(2))
    assert first.digest == second.digest
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_digest_follows_weights_and_preprocessing():
    torch.manual_seed(0)
    network = PatchNet()
    digest = ipvit.wrap(network, size=16).digest
    assert ipvit.wrap(network, size=16).digest == digest
    assert ipvit.wrap(network, size=16, mean=(0.5, 0.5, 0.5)).digest != digest
    with torch.no_grad():
        network.head.bias[0] += 1
    assert ipvit.wrap(network, size=16).digest != digest


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "state_dict_ema"])
def test_the_usual_wrappers_and_prefixes_are_taken_off(tmp_path, wrapper):
    state = PatchNet().state_dict()
    content = {
        wrapper: {f"module.{key}": value for key, value in state.items()},
        "epoch": 3,
        "args": argparse.Namespace(lr=1),
    }
    torch.save(content, tmp_path / "w.pth")
    assert all(torch.equal(value, state[key]) for key, value in read_state_dict(tmp_path / "w.pth").items())


def test_averaged_weights_go_before_plain_ones(tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}, "model_ema": {"a": torch.ones(1)}}, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth")["a"] == 1


ADVICE = ("weights_only", "safe_globals", "trusted source", "pytorch.org", "Re-running", "WeightsUnpickler")


class Extra:
    """A type of somebody's own."""


@pytest.mark.parametrize("kind", ["pth", "pkl", "old", "protocol 0", "protocol 4"])
def test_nothing_in_a_checkpoint_is_executed_and_its_type_is_named(tmp_path, kind):
    target, path = tmp_path / "executed", tmp_path / "evil.pth"
    content = {"model": PatchNet().state_dict(), "extra": Payload(target)}
    if kind in ("pth", "old"):
        torch.save(content, path, _use_new_zipfile_serialization=kind == "pth")
    else:
        path.write_bytes(pickle.dumps(Payload(target), {"pkl": 2, "protocol 0": 0, "protocol 4": 4}[kind]))
    with pytest.raises(ipvit.InputError) as refused:
        read_state_dict(path)
    said = str(refused.value)
    assert re.search(r"holds (getattr|builtins.getattr|pathlib\.\S+|posix\S+) beside tensors", said), said
    assert said.endswith(
        "would run code; save the weights alone, torch.save(model.state_dict(), FILE), and give that file"
    )
    assert not any(word in said for word in ADVICE) and not target.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PatchNet(), "helpers.tiny.PatchNet"),
        ({"net": nn.Linear(2, 2)}, "torch.nn.modules.linear.Linear"),
        ({"state_dict": {}, "extra": Extra()}, "test_loading.Extra"),
        ({"a": np.array(["x"], dtype=object)}, "numpy"),
    ],
)
def test_a_refused_type_is_named_whole(tmp_path, content, words):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ipvit.InputError, match=words) as refused:
        read_state_dict(tmp_path / "w.pth")
    assert not any(word in str(refused.value) for word in ADVICE) and "state_dict()" in str(refused.value)


@pytest.mark.filterwarnings("ignore")
def test_a_program_of_torchscript_is_refused_in_our_words(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "w.pt")
    with pytest.raises(ipvit.InputError, match="save the weights alone") as refused:
        read_state_dict(tmp_path / "w.pt")
    assert not any(word in str(refused.value) for word in ADVICE)


def test_a_type_that_another_library_refused_is_named_too(tmp_path):
    torch.save({"net": nn.Linear(2, 2)}, tmp_path / "w.pth")
    with pytest.raises(RuntimeError) as wrapped:
        try:
            torch.load(tmp_path / "w.pth", weights_only=True)
        except pickle.UnpicklingError as error:
            raise RuntimeError("cannot load") from error
    said = str(cannot_fetch("hf-hub:a/b", wrapped.value))
    assert "holds torch.nn.modules.linear.Linear beside tensors" in said and "hf-hub:a/b@FILE" in said
    assert not any(word in said for word in ADVICE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"hello, this is some text", "not a PyTorch weights file"),
        (b"PK\x03\x04 cut short", "not a PyTorch weights file"),
    ],
)
def test_files_that_are_not_weights_are_named_in_one_line(tmp_path, content, words):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(ipvit.InputError, match=words) as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


def test_a_cut_safetensors_file_is_named(tmp_path, weights):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ipvit.InputError, match="not a whole safetensors file"):
        read_state_dict(path)


def test_every_missing_unexpected_and_misshapen_key_is_named():
    state = PatchNet(classes=5).state_dict()
    state["stranger"] = state.pop("head.bias")
    with pytest.raises(ipvit.InputError) as caught:
        load_strictly(PatchNet(classes=4), state, "w.pth")
    for words in ("missing: head.bias", "unexpected: stranger", "head.weight (5, 48) instead of (4, 48)"):
        assert words in str(caught.value)


def test_weights_of_another_number_of_classes_come_with_a_hint(weights):
    with pytest.raises(ipvit.InputError, match=r"fc.weight \(7, 512\) instead of \(1000, 512\).*num_classes"):
        ipvit.load_model(f"{SMALL}@{weights}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet5O", "timm knows no model 'resnet5O'. Did you mean 'resnet50'"),
        ("torchvision:resnet5", "Did you mean 'resnet50'"),
        ("demo:deit", "there is no bundled model 'demo:deit'"),
        ("keras:resnet50", "unknown kind of model 'keras:'"),
        ("resnet18@/nowhere.pth", "there is no weights file"),
        ("nofile.py:make", "there is no file 'nofile.py'"),
        ("resnet10t?depth=5", "resnet10t does not take"),
    ],
)
def test_names_that_do_not_exist_are_refused_with_close_matches(name, words):
    with pytest.raises(ipvit.InputError) as caught:
        ipvit.load_model(name, pretrained=False)
    assert words in str(caught.value)


def test_a_network_from_the_users_own_file(tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch, ipvit\n"
        "def make(classes=3):\n"
        "    layers = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, classes)\n"
        "    net = torch.nn.Sequential(*layers)\n"
        "    return ipvit.wrap(net, mean=(0, 0, 0), std=(1, 1, 1), size=32)\n"
        "def bare():\n"
        "    return torch.nn.Linear(3, 3)\n"
    )
    model = ipvit.load_model(f"{tmp_path}/net.py:make?classes=5")
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 5) and model.name == "net.py:make?classes=5"
    with pytest.raises(ipvit.InputError, match="must return ipvit.wrap"):
        ipvit.load_model(f"{tmp_path}/net.py:bare")


def test_torchvision_networks_come_with_their_own_preprocessing():
    model = ipvit.load_model("torchvision:squeezenet1_1", pretrained=False)
    view = model.preprocessing.view
    assert view.resize == (256, 256) and view.size == (224, 224) and view.interpolation == "bilinear"
    assert model.classes is not None and model.classes[0] == "n01440764"


def test_without_a_network_one_line_names_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("ipvit.models.loading._resolves", lambda host: False, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ipvit.InputError, match=r"cannot download the weights of resnet10t .*--no-pretrained"):
        ipvit.load_model("resnet10t")


def test_without_a_network_the_hub_is_not_asked_again_and_again_for_random_weights_either(monkeypatch):
    from huggingface_hub import constants

    asked = []

    def create_model(*_, **__):
        asked.append(constants.HF_HUB_OFFLINE)
        raise OSError("nothing in the cache")

    monkeypatch.setattr("ipvit.models.sources.building._resolves", lambda host: False)
    monkeypatch.setattr("ipvit.models.sources.huggingface._is_of_transformers", lambda name: False)
    monkeypatch.setattr("timm.create_model", create_model)
    for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(ipvit.InputError, match=r"cannot fetch the configuration of hf-hub:owner/net.*timm's own name"):
        ipvit.load_model("hf-hub:owner/net", pretrained=False)
    assert asked == [True]


@pytest.mark.slow
def test_the_real_efficientnet_knows_the_real_photos(real, tmp_path):
    model = ipvit.load_model(f"tf_efficientnet_lite0@{real}/efficientnet_lite0.safetensors")
    data = ipvit.load_dataset(real / "imagenet-sample")
    run = ipvit.run(ipvit.Occlusion(levels=(0,)), models=model, data=data, out=tmp_path, workers=1, progress=False)
    records = run.records("occlusion")
    assert (len(records), int(records["correct"].sum()), int(records["correct5"].sum())) == (270, 246, 266)


def test_a_timm_network_takes_a_pytorch_file_as_well_as_safetensors(tmp_path):
    torch.manual_seed(5)
    network = timm.create_model(SMALL, num_classes=7)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "w.pth.tar")
    model = ipvit.load_model(f"{SMALL}?num_classes=7@{tmp_path}/w.pth.tar")
    assert torch.equal(model.backbone.state_dict()["fc.weight"], network.state_dict()["fc.weight"])


@pytest.mark.parametrize("folder", ["me@home", "two words", "a:b", "what?"])
def test_a_file_of_ones_own_may_lie_in_a_folder_of_any_name(tmp_path, folder):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "net.py").write_text(
        "import torch, ipvit\n\ndef small(classes=2):\n"
        "    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, classes))\n"
        "    return ipvit.wrap(net, size=8, classes=[str(i) for i in range(classes)])\n"
    )
    model = ipvit.load_model(f"{tmp_path / folder}/net.py:small?classes=3")
    assert model.name == "net.py:small?classes=3"
    assert len(model.classes) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": (123.7, 116.3, 103.5)}, "divide those of grey levels by 255"),
        ({"std": (0.2, -0.2, 0.2)}, "must be three numbers each"),
        ({"mean": (0.5,)}, "must be three numbers each"),
        ({"crop_pct": 87.5}, "crop_pct is a share"),
    ],
)
def test_a_scale_that_is_not_of_images_from_0_to_1_is_refused(options, words):
    with pytest.raises(ipvit.InputError, match=words):
        ipvit.wrap(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), size=8, **options)
