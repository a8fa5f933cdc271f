"""Networks whose numbers say nothing: found out, and told wherever a number of theirs stands."""

import pytest
import torch
from torch import nn

import ipvit
from helpers.small_runs import photos
from helpers.tiny import PatchNet, tiny_model


class Noisy(PatchNet):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5, training=True)


class Social(PatchNet):
    def forward(self, x):
        features = self.pool(x).flatten(1)
        return self.head((features - features.mean(0)) / (features.std(0) + 1e-3))


class Stubborn(PatchNet):
    def forward(self, x):
        return torch.tensor([1.0, 7.0, 1.0, 1.0]).expand(len(x), 4).clone()


def wrapped(kind: type[nn.Module]) -> ipvit.Model:
    torch.manual_seed(0)
    return ipvit.wrap(kind(), size=16, crop_pct=1.0, classes=[f"c{i}" for i in range(4)], name="net")


BAD = {Noisy: "random answers", Social: "batch-dependent answers", Stubborn: "constant answers"}


@pytest.mark.parametrize("kind", BAD)
def test_a_network_whose_numbers_say_nothing_is_found_out(kind):
    assert wrapped(kind).doubt == BAD[kind]


class Overflowing(PatchNet):
    def forward(self, x):
        dark = x.amax(dim=(1, 2, 3)) <= 0
        return super().forward(x).masked_fill(dark[:, None], float("nan"))


def test_a_network_that_overflows_on_some_pictures_is_not_called_random():
    assert wrapped(Overflowing).doubt == ""


@pytest.mark.parametrize("name", ["demo:deit_micro", "demo:resnet_micro", "demo:dino_micro", "demo:deit_micro_shape"])
def test_a_sound_network_has_no_doubts(name):
    assert ipvit.load_model(name).doubt == "" and tiny_model().doubt == ""


def test_the_random_state_is_left_alone_and_so_is_the_mode():
    model = wrapped(Noisy).train()
    before = torch.random.get_rng_state()
    assert model.doubt and model.training and torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", BAD)
def test_the_doubt_stands_wherever_a_number_of_the_networks_stands(kind, tmp_path):
    networks = [wrapped(kind), tiny_model(name="sound")]
    run = ipvit.run(ipvit.Accuracy(), models=networks, data=photos(), out=tmp_path, workers=0, progress=False)
    marked = f"net ({BAD[kind]})"
    assert run.tables["accuracy"]["model"].to_list() == [marked, "sound"]
    assert any(note.startswith(f"{marked} ") for note in run.notes["accuracy"])
    assert any(note.startswith(f"{marked} ") for note in run.profile.notes)
    run.report()
    for file in ("report.html", "tables/accuracy.csv", "tables/accuracy.tex", "tables/accuracy.md"):
        assert BAD[kind] in (tmp_path / file).read_text()
    again = ipvit.Run(tmp_path)
    assert again.manifest.models[0].doubt == BAD[kind]


def test_one_answer_for_all_images_of_several_classes_is_told(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.backbone.head.bias[2] += 100  # answers differ a little, decisions never
    assert model.doubt == ""
    run = ipvit.run(ipvit.Accuracy(), models=model, data=photos(), out=tmp_path, workers=0, progress=False)
    assert "tiny gives all 30 images the same answer, under all conditions." in run.notes["accuracy"]
