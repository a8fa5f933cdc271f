"""Attacks of AutoAttack's kind in a run: what is measured, what it is called, what is left out, what is warned of."""

from __future__ import annotations

import json

import polars as pl
import pytest
import torch
from torch import nn

import ipvit
from helpers.plain_loops import same_records
from ipvit.cli import main
from ipvit.data.dataset import MemoryDataset
from ipvit.perturb.attack import apgd, autoattack, is_right
from ipvit.perturb.budget import Budget
from ipvit.perturb.seeding import keys

FAST = {"epsilons": (4,), "apgd_steps": 4, "queries": 12, "targets": 2, "draws": 3}


class Curvy(nn.Module):
    def __init__(self, seed: int = 0, classes: int = 5) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.GELU(), nn.Flatten(), nn.Linear(128, classes))
        with torch.no_grad():
            self.net[-1].weight.mul_(15)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class BlackBox(Curvy):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(super().forward(x).detach().numpy())


class Rounded(Curvy):
    """Steep sigmoids of rounded pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.sigmoid(60 * ((x * 32).round() / 32 - 0.5)))


class Noisy(Curvy):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + 0.02 * torch.randn(x.shape, device=x.device))


class Probabilities(Curvy):
    """Logits until it has been wrapped, which refuses probabilities."""

    wrapped = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        return logits.softmax(dim=1) if self.wrapped else logits


def model(kind: type[Curvy] = Curvy, seed: int = 0, classes: int = 5, name: str = "net") -> ipvit.Model:
    names = [f"c{i}" for i in range(classes)]
    return ipvit.wrap(kind(seed, classes), size=16, crop_pct=1.0, classes=names, name=name)


def photos(right_for: ipvit.Model | None = None, n: int = 20) -> MemoryDataset:
    """Images with the labels that a network gives them, but for every fifth."""
    pixels = torch.randint(0, 256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = (right_for or model())(pixels.float() / 255).argmax(1).detach()
    labels[::5] = (labels[::5] + 1) % 5
    return MemoryDataset(pixels, labels, [f"c{i}" for i in range(5)], ids=[f"photo {i}" for i in range(n)])


def run(models, out, data=None, batch_size=8, **parameters) -> ipvit.Run:
    experiment = ipvit.Attack(**(FAST | parameters))
    models = models if isinstance(models, list) else [models]
    return ipvit.run(
        experiment,
        models=models,
        data=data or photos(),
        out=out,
        workers=0,
        progress=False,
        batch_size=batch_size,
    )


def test_the_records_are_those_of_the_pure_functions(tmp_path):
    result = run(model(), tmp_path, attacks=("apgd", "autoattack"))
    data = photos()
    images = torch.stack([data.read(i) for i in range(20)]).float() / 255
    labels = torch.from_numpy(data.labels)
    key = keys(data.ids, 0, "attack", "start", 0)
    one = (model(), images, labels, Budget("linf", 4 / 255), key)
    records = result.records("attack")
    for name, found in {
        "apgd": apgd(*one, steps=4),
        "ensemble": autoattack(*one, steps=4, queries=12, targets=2),
    }.items():
        rows = records.filter(attack=name)
        rows = {row["image"]: row["correct"] for row in rows.to_dicts()}
        assert [rows[image] for image in data.ids] == is_right(found.logits, labels).tolist(), name
    broken = records.filter(attack="ensemble").filter(pl.col("broken_by") != "")
    assert set(broken["broken_by"]) <= {"apgd", "apgd-t", "fab-t", "square"} and not broken["correct"].any()


def test_only_the_standard_ensemble_is_called_autoattack(tmp_path):
    standard = {"apgd_steps": 100, "queries": 5000, "targets": 9}
    for name, parameters, classes in (
        ("autoattack", standard, 5),
        ("ensemble", standard | {"queries": 4999}, 5),
        ("ensemble", standard | {"apgd_steps": 20}, 5),
        ("ensemble", standard, 3),
    ):
        bound = bind(model(classes=classes), attacks=("autoattack",), **parameters)
        (found,) = [c.attack for c in bound.conditions(model(classes=classes)) if c.attack not in ("clean", "check")]
        assert found == name
        notes = " ".join(bound.notes(model(classes=classes)))
        assert ("another ensemble" in notes) == (parameters != standard)
        assert ("too few for APGD-T (DLR)" in notes) == (classes == 3)


def bind(network: ipvit.Model, **parameters):
    from ipvit.api import bind_context

    return ipvit.Attack(epsilons=(4,), **parameters).bind([network], photos(), bind_context())


def test_the_worst_row_is_what_every_attack_leaves_image_by_image(tmp_path):
    result = run(model(), tmp_path, attacks=("fgsm", "apgd-dlr", "square", "worst"), epsilons=(2, 6))
    records = result.records("attack").filter(~pl.col("attack").is_in(["clean", "check"]))
    for epsilon in (2.0, 6.0):
        rows = records.filter(epsilon=epsilon).group_by("image").agg(pl.col("correct").all())
        table = result.tables["attack"].filter(attack="worst", epsilon=epsilon)
        assert table["top1"].item() == pytest.approx(100 * rows["correct"].mean()) and table["n_images"].item() == 20


@pytest.mark.parametrize(("norm", "size", "unit"), [("l2", 0.5, "0 to 1"), ("l1", 4.0, "0 to 1")])
def test_a_budget_in_another_norm_is_printed_with_its_unit(norm, size, unit, tmp_path):
    result = run(model(), tmp_path, attacks=("apgd", "square", "worst"), norm=norm, epsilons=(size,))
    table = result.tables["attack"].filter(pl.col("attack") != "clean")
    assert table["epsilon"].to_list() == [size] * 3 and set(table["norm"]) == {norm} and set(table["unit"]) == {unit}
    assert any(f"ε = {size:g} in {norm}" in sentence for sentence in result.summary["attack"])


def test_a_network_without_gradients_is_attacked_by_square_and_the_reason_is_told(tmp_path):
    result = run(model(BlackBox), tmp_path, attacks=("fgsm", "pgd", "square", "autoattack"), epsilons=(16,))
    assert not result.manifest.failures
    assert set(result.records("attack")["attack"]) == {"clean", "check", "square"}
    (note,) = [note for note in result.manifest.notes if "left out" in note]
    assert "net: FGSM, PGD, AutoAttack left out: they follow gradients" in note
    table = result.tables["attack"]
    assert table.filter(attack="square")["top1"].item() < table.filter(attack="clean")["top1"].item()


def test_a_network_without_gradients_is_refused_where_all_attacks_need_them(tmp_path):
    with pytest.raises(ipvit.errors.InputError, match="gradients"):
        run(model(BlackBox), tmp_path, attacks=("fgsm", "apgd"))


def test_a_whole_ensemble_that_is_killed_goes_on_and_ends_with_the_same_records(tmp_path, monkeypatch):
    whole = run(model(), tmp_path / "whole", attacks=("apgd", "autoattack", "worst"), epsilons=(2, 6))
    import ipvit.experiments.attack.ensembles as module

    plain, calls = module.autoattack, []

    def dying(*arguments, **options):
        calls.append(len(arguments[1]))
        if (
            calls[-1] == 8 and calls.count(8) == 4
        ):  # in the second of three batches, at the second budget; the report shows single images
            raise KeyboardInterrupt
        return plain(*arguments, **options)

    monkeypatch.setattr(module, "autoattack", dying)
    with pytest.raises(KeyboardInterrupt):
        run(model(), tmp_path / "parts", attacks=("apgd", "autoattack", "worst"), epsilons=(2, 6))
    before = ipvit.Run(tmp_path / "parts", [ipvit.Attack(**FAST)]).records("attack").height
    assert 0 < before < whole.records("attack").height
    again = run(model(), tmp_path / "parts", attacks=("apgd", "autoattack", "worst"), epsilons=(2, 6))
    same_records(whole.records("attack"), again.records("attack"))
    assert again.manifest.measured_in_this_call == whole.records("attack").height - before
    assert whole.tables["attack"].equals(again.tables["attack"])


def test_neither_the_batch_size_nor_what_else_is_asked_for_changes_a_record(tmp_path):
    attacks = ("apgd", "apgd-t", "fab-t", "square")
    whole = run(model(), tmp_path / "a", attacks=attacks, batch_size=20).records("attack")
    small = run(model(), tmp_path / "b", attacks=attacks, batch_size=3).records("attack")
    same_records(whole, small)
    alone = run(model(), tmp_path / "c", attacks=("fab-t",)).records("attack").filter(attack="fab-t")
    same_records(whole.filter(attack="fab-t"), alone)


def warned(result: ipvit.Run) -> str:
    return " ".join(result.tables["attack-warnings"]["warning"]) if "attack-warnings" in result.tables else ""


def test_a_sound_network_is_warned_of_nothing(tmp_path):
    assert warned(run(model(), tmp_path, attacks=("fgsm", "apgd", "square"), epsilons=(2, 8))) == ""


def test_a_gradient_masked_network_is_flagged_and_square_breaks_it(tmp_path):
    network = model(Rounded)
    result = run(network, tmp_path, photos(network), attacks=("pgd", "apgd", "square"), epsilons=(16,), queries=80)
    table = result.tables["attack"]
    left = {name: table.filter(attack=name)["top1"].item() for name in ("clean", "apgd", "square")}
    assert left["square"] < left["apgd"]
    text = warned(result)
    broken = {
        name: set(result.records("attack").filter(attack=name, correct=False)["image"]) for name in ("apgd", "square")
    }
    images = len(broken["square"] - broken["apgd"])
    assert f"Square breaks {images} of 20 images at ε = 16/255 that APGD-CE leaves right" in text
    assert "cross-entropy is zero in every pixel of 20 of 20 images" in text
    assert "of the logits stay exactly the same" in text
    assert table.filter(attack="apgd")["no_gradient"].item() > 60


def test_random_numbers_probabilities_and_rising_accuracy_are_told_with_numbers(tmp_path):
    noisy = warned(run(model(Noisy), tmp_path / "noisy", attacks=("rand",)))
    assert "two passes over the same images differ on 20 of 20" in noisy and "rand is the attack for it" in noisy
    network = model(Probabilities)
    network.backbone.wrapped = True
    assert "they are probabilities" in warned(run(network, tmp_path / "probabilities", attacks=("square",)))


def test_accuracy_that_rises_with_the_budget_is_told():
    from ipvit.experiments.attack.warnings import warnings

    main = pl.DataFrame(
        {"model": ["m"] * 3, "attack": ["pgd"] * 3, "epsilon": [2.0, 4.0, 8.0], "top1": [40.0, 50.0, 9]}
    )
    (said,) = warnings(pl.DataFrame(), pl.DataFrame(), main)
    assert said == ("m", "m: under PGD accuracy rises from 40.0 to 50.0 % as ε grows from 2/255 to 4/255.")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"attacks": ("worst",)}, "worst is the worst of attacks within a budget"),
        ({"attacks": ("pgd", "apgd"), "norm": "l2", "epsilons": (0.5,)}, "pgd is limited in linf"),
        ({"attacks": ("apgd",), "norm": "l1", "epsilons": (-1,)}, "more than 0"),
        ({"attacks": ("apgd",), "queries": 0}, "queries"),
        ({"attacks": ("autoatack",)}, "Did you mean 'autoattack'|autoattack"),
    ],
)
def test_a_mistake_is_refused(parameters, words):
    with pytest.raises(ValueError, match=words):
        ipvit.Attack(**parameters)


def test_images_made_on_one_network_are_shown_to_the_others(tmp_path):
    models = [model(name="one"), model(seed=1, name="other")]
    result = run(models, tmp_path, attacks=("fgsm", "apgd"), epsilons=(8,), show_to_others=True)
    data = photos()
    images = torch.stack([data.read(i) for i in range(20)]).float() / 255
    labels, key = torch.from_numpy(data.labels), keys(data.ids, 0, "attack", "start", 0)
    made = apgd(models[0], images, labels, Budget("linf", 8 / 255), key, steps=4).images
    expected = (models[1](made).argmax(1) == labels).tolist()
    rows = result.records("attack").filter(model="other", attack="apgd").filter(pl.col("source") != "")
    rows = {row["image"]: row for row in rows.to_dicts()}
    assert [rows[image]["correct"] for image in data.ids] == expected
    table = result.tables["attack-transfer-pixels"]
    assert table.height == 2 * 4 and table["top1_low"].null_count() == 0
    row = table.filter(attack="apgd", made_on="one", model="other")
    assert row["top1"].item() == pytest.approx(100 * sum(expected) / 20)
    both = [i for i in range(20) if all(int(net(images[i : i + 1]).argmax()) == int(labels[i]) for net in models)]
    wrong = [i for i in both if not expected[i]]
    assert row["n_judged"].item() == len(both) and row["success"].item() == pytest.approx(100 * len(wrong) / len(both))
    assert "attack-transfer-pixels" in result.figures
    main = result.tables["attack"].filter(attack="apgd", model="one")["top1"].item()
    assert table.filter(attack="apgd", made_on="one", model="one")["top1"].item() == main
    again = run(models, tmp_path, attacks=("fgsm", "apgd"), epsilons=(8,), show_to_others=True)
    assert again.manifest.measured_in_this_call == 0


def test_images_of_another_view_are_not_shown_and_that_is_told(tmp_path):
    names = [f"c{i}" for i in range(5)]
    wide = ipvit.wrap(
        nn.Sequential(nn.AdaptiveAvgPool2d(16), Curvy(2)), size=24, crop_pct=1.0, classes=names, name="wide"
    )
    result = run([model(name="one"), wide], tmp_path, attacks=("fgsm",), show_to_others=True)
    assert "attack-transfer-pixels" not in result.tables
    assert any("made on wide is not shown to one" in note for note in result.manifest.notes)


def test_every_attack_within_a_budget_is_shown_to_the_others(tmp_path):
    names = ("fgsm", "pgd", "apgd", "apgd-dlr", "apgd-t", "apgd-ce-t", "fab-t", "square", "low-pass", "high-pass")
    models = [model(name="one"), model(seed=1, name="other")]
    result = run(models, tmp_path, attacks=(*names, "autoattack", "rand"), show_to_others=True, apgd_steps=2)
    table = result.tables["attack-transfer-pixels"]
    assert set(table["attack"]) == {*names, "ensemble", "rand"}
    assert table.group_by("attack").len()["len"].to_list() == [4] * 12


def test_two_cut_offs_in_one_folder_are_two_rows(tmp_path):
    run(model(), tmp_path, attacks=("low-pass",), epsilons=(16,), cutoff=0.2)
    run(model(), tmp_path, attacks=("low-pass",), epsilons=(16,), cutoff=0.6)
    whole = ipvit.Run(tmp_path, [ipvit.Attack(attacks=("low-pass",))], everything=True)
    table = whole.tables["attack"].filter(attack="low-pass")
    assert table["cutoff"].to_list() == [0.2, 0.6] and set(table["n_images"]) == {20}


def test_low_and_high_frequencies_are_attacks_with_a_cut_off(tmp_path):
    result = run(model(), tmp_path, attacks=("low-pass", "high-pass"), epsilons=(16,), cutoff=0.3)
    table = result.tables["attack"]
    assert table["attack"].to_list() == ["clean", "low-pass", "high-pass"]
    assert table["top1"].min() < table.filter(attack="clean")["top1"].item()
    assert set(result.records("attack").filter(attack="low-pass")["cutoff"]) == {0.3}
    with pytest.raises(ValueError, match="low-pass is limited in linf or l2"):
        ipvit.Attack(attacks=("low-pass",), norm="l1", epsilons=(1,))


@pytest.mark.slow
def test_the_standard_ensemble_runs_from_the_command_line_on_a_bundled_network(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ipvit.engine.run.save_examples", lambda *_: [])  # whose pictures are attacked once more
    line = ["attack", "-m", "demo:deit_micro", "-d", "demo:trifeature", "--limit", "2", "--epsilons", "2", "--json"]
    main([*line, "--attacks", "pgd", "autoattack", "worst", "--workers", "0", "--out", str(tmp_path)])
    told = capsys.readouterr()
    rows = {row["attack"]: row for row in json.loads(told.out)["tables"]["attack"]}
    assert set(rows) == {"clean", "pgd", "autoattack", "worst"} and "another ensemble" not in told.err
    assert rows["worst"]["top1"] == rows["autoattack"]["top1"] <= rows["pgd"]["top1"] <= rows["clean"]["top1"]
    records = pl.read_parquet(next((tmp_path / "records" / "attack").rglob("part-*.parquet")))
    (asked,) = {*records.filter(attack="autoattack").select("steps", "queries", "targets").iter_rows()}
    assert asked == (100, 5000, 9)
