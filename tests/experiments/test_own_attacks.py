"""Attacks of the user's own: what they are given, what they may return, how they are known and shown."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import ipvit
from helpers.command_line import complaint
from helpers.plain_loops import (
    CLASSES,
    bound,
    loud,
    measured,
    photos,
    plain,
    same_for_any_batch_size,
    same_from_everywhere,
    working_folder,
)
from ipvit.cli import main
from ipvit.core import plugins
from ipvit.core.memory import is_out_of_memory
from ipvit.core.plugins import OwnCodeError, own_function
from ipvit.data.dataset import MemoryDataset
from ipvit.experiments.attack.conditions import AttackCondition
from ipvit.perturb.attack import is_right, run_attack
from ipvit.perturb.budget import LEVELS, Budget
from ipvit.perturb.distance import distances, random_noise, within
from ipvit.perturb.seeding import keys

SIGNS = """
import numpy as np
import torch

def signs(model, images, labels, budget, key):
    drawn = [np.random.default_rng(int(number)).choice([-1.0, 1.0], size=images.shape[1:]) for number in key]
    return (images + budget.size * torch.from_numpy(np.stack(drawn)).to(images)).clamp(0, 1)

def uphill(model, images, labels, budget, key):
    images = images.requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    gradient = torch.autograd.grad(loss, images)[0]
    length = gradient.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
    return (images + budget.size * gradient / length).clamp(0, 1)

def small(model, images, labels, budget, key):
    return images[:, :, :8]

def bytes_(model, images, labels, budget, key):
    return (images * 255).to(torch.uint8)

def nothing(model, images, labels, budget, key):
    return None

def nan(model, images, labels, budget, key):
    images[:, 0, 0, 0] = float("nan")
    return images

def bright(model, images, labels, budget, key):
    return images + 1

def far(model, images, labels, budget, key):
    return (images + 1.01 * budget.size).clamp(0, 1)

def broken(model, images, labels, budget, key):
    return images / 0 + missing

def hungry(model, images, labels, budget, key):
    if len(images) > 1:
        raise MemoryError("Unable to allocate 3 TiB")
    return images

def cuda(model, images, labels, budget, key):
    if len(images) > 1:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return images

number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with the attacks in own.py."""
    working_folder(tmp_path, monkeypatch)
    (tmp_path / "own.py").write_text(SIGNS)
    return tmp_path


def labelled_by(model: ipvit.Model, n: int = 6) -> MemoryDataset:
    """Photos with the labels that a network gives them, but for every third."""
    data = photos(n)
    pixels = torch.stack([data.read(i) for i in range(n)])
    labels = model(pixels.float() / 255).argmax(1).detach()
    labels[::3] = (labels[::3] + 1) % 4
    return MemoryDataset(pixels, labels, CLASSES, ids=data.ids)


def attack(*names: str, **options) -> ipvit.Attack:
    return ipvit.Attack(**{"attacks": [f"own.py:{name}" for name in names], "epsilons": (2, 8)} | options)


def run(experiment, models, data, out="out", **options) -> ipvit.Run:
    return ipvit.run(experiment, models=models, data=data, out=out, workers=0, progress=False, **options)


# --- what it is given, and what follows ------------------------------------------------------------------------------


def test_an_attack_is_given_what_is_right_and_its_images_are_shown_within_the_budget(folder):
    model = loud()
    data = labelled_by(loud())
    records = measured(attack("signs", epsilons=(8,)), model, data, folder / "out")
    own, control = (records.filter(pl.col("attack").str.starts_with(name)) for name in ("signs-", "random"))
    assert own.height == control.height == 6 and set(own["norm"]) == {"linf"} and set(own["epsilon"]) == {8.0}
    shown = model.backbone.seen[6:10]  # after the clean pass: the four that are right
    size = 8 / 255
    for place, picture in zip((1, 2, 4, 5), shown, strict=True):
        image = data.read(place).float() / 255
        key = keys([data.ids[place]], 0, "attack", "signs")[0]
        signs = torch.from_numpy(np.random.default_rng(int(key)).choice([-1.0, 1.0], size=(3, 32, 32)))
        assert torch.allclose(picture.double(), (image + size * signs).clamp(0, 1), atol=1e-6)
        assert float((picture.double() - image.double()).abs().max()) <= size  # to the last digit
        row = own.row(by_predicate=pl.col("image") == data.ids[place], named=True)
        assert row["prediction"] == int(loud()(picture[None]).argmax())
    wrong = records.filter(pl.col("image").is_in([data.ids[0], data.ids[3]]))
    assert not wrong["correct"].any() and wrong.group_by("image").agg(pl.col("confidence").n_unique())[
        "confidence"
    ].to_list() == [1, 1]


def test_images_without_label_are_not_attacked(folder):
    (folder / "own.py").write_text("def attack(model, images, labels, budget, key):\n    assert 0\n")
    data = photos(3)
    unknown = MemoryDataset(torch.stack([data.read(i) for i in range(3)]), [-1, -1, -1], CLASSES, ids=data.ids)
    records = measured(attack("attack"), plain(), unknown, folder / "out")
    assert records.height == 3 * 5 and not records["correct"].any()


def test_neither_the_batch_nor_an_interrupted_run_changes_a_record(folder):
    data = labelled_by(plain(), 8)
    same_for_any_batch_size(lambda: attack("signs"), plain, data, folder / "linf")
    same_for_any_batch_size(lambda: attack("uphill", norm="l2", epsilons=(0.25, 1.2)), plain, data, folder / "l2")


def test_python_the_command_line_and_a_study_measure_the_same(folder):
    records = same_from_everywhere("attack", {"attacks": ["fgsm", "own.py:signs"], "epsilons": [4.0]})
    (name,) = (name for name in set(records["attack"]) if name.startswith("signs-"))
    assert set(records["attack"]) == {"clean", "fgsm", name, "random"}
    assert name in Path("cli/report.html").read_text()


def test_an_edited_file_is_another_attack_and_the_rest_is_measured_already(folder):
    data = labelled_by(plain())
    first = set(run(attack("signs"), plain(), data).records("attack")["attack"])
    assert run(attack("signs"), plain(), data).manifest.measured_in_this_call == 0
    (folder / "own.py").write_text(SIGNS.replace("[-1.0, 1.0]", "[-1.0]"))
    again = run(attack("signs"), plain(), data)
    assert again.manifest.measured_in_this_call == 6 * 2
    whole = ipvit.Run(again.out, everything=True)
    names = {name for name in whole.records("attack")["attack"] if name.startswith("signs-")}
    (new,) = names - first
    assert len(names) == 2 and new == own_function("attack", "own.py:signs").name
    captions = [picture.caption for picture in again.pictures("attack")["net"]]
    assert any(new in caption for caption in captions), "the pictures are those of the file as it is"


def test_tables_figure_sentences_comparison_and_report_show_it_with_its_control(folder):
    torch.manual_seed(1)
    other = ipvit.wrap(plain().backbone, size=32, crop_pct=1.0, classes=CLASSES, name="other", mean=(0.4,) * 3)
    done = run(attack("uphill", norm="l2", epsilons=("150/255", "600/255")), [plain(), other], labelled_by(plain()))
    name = own_function("attack", "own.py:uphill").name
    table = done.tables["attack"]
    assert table["attack"].unique(maintain_order=True).to_list() == ["clean", name, "random"]
    assert set(table.filter(attack=name)["norm"]) == {"l2"}
    worst, control = (table.filter(attack=a, model="net", epsilon=600 / 255)["top1"][0] for a in (name, "random"))
    assert worst < control
    (sentence,) = (text for text in done.summary_of("attack") if text.startswith("net:"))
    assert f"{name} leaves" in sentence and f"{worst:.1f} % (ε = 2.35294 in l2)" in sentence
    assert "random noise leaves" in sentence and f"{control:.1f} % (ε = 2.35294 in l2)" in sentence
    assert {name, "random"} <= set(done.differences["attack"]["attack"])
    figure = done.figures["attack"].to_json()
    assert f"{name}, l2, 0 to 1" in figure and "random noise, l2, 0 to 1" in figure
    assert name in done.report().read_text()
    captions = " ".join(picture.caption for picture in done.pictures("attack")["net"])
    for words in (
        f"{name}, ε = 2.35294 in l2: taken for",
        "random noise, ε = 0.588235 in l2",
        f"what {name} changes at",
    ):
        assert words in captions


def test_in_linf_it_stands_beside_ours_and_ours_alone_have_no_control(folder):
    both = attack("signs", attacks=("pgd", "own.py:signs", "fgsm"), epsilons=(4,))
    table = run(both, plain(), labelled_by(plain())).tables["attack"]
    name = own_function("attack", "own.py:signs").name
    assert table["attack"].to_list() == ["clean", "fgsm", "pgd", name, "random"] and "norm" not in table.columns
    ours = bound(ipvit.Attack(), plain(), photos(3)).conditions(plain())
    assert {type(condition) for condition in ours} == {AttackCondition}
    assert AttackCondition("fgsm", 4.0).key == "f25aa0cc17bab587"  # as in the folders of version 0.1.0


# --- what is refused -------------------------------------------------------------------------------------------------

WRONG = [
    ("small", r"own.py:small must return a tensor of floating-point numbers \(4, 3, 32, 32\), not float32 \(4, 3, 8"),
    ("bytes_", "own.py:bytes_ must return a tensor of floating-point numbers .*, not uint8"),
    ("nothing", "own.py:nothing must return a tensor .*, not NoneType"),
    ("nan", "own.py:nan returned pixels that are not finite, for 'photo 1'"),
    ("bright", r"own.py:bright must return pixels from 0 to 1, not 1\.\d+ as for 'photo 1'"),
    ("far", "own.py:far moved 'photo 1' by 0.0316863 in linf, 0.00031 more than the budget of 0.0313725"),
    ("broken", r"own.py:\d+: NameError: name 'missing' is not defined"),
]


@pytest.mark.parametrize(("name", "words"), WRONG, ids=[name for name, _ in WRONG])
def test_what_cannot_be_shown_fails_that_condition_in_one_line_and_the_rest_goes_on(folder, name, words):
    experiment = attack(name, attacks=("fgsm", f"own.py:{name}"), epsilons=(8,))
    done = run(experiment, plain(), labelled_by(plain()))
    (failure,) = done.manifest.failures
    assert failure.condition.startswith(f"attack={name}-")
    assert re.search(words, failure.error) and "\n" not in failure.error
    assert set(done.records("attack")["attack"]) == {"clean", "fgsm", "random"}


def test_the_command_line_ends_with_1_where_an_attack_fails(folder, capsys):
    command = ["attack", "-m", "nets.py:net", "-d", "images", "--out", "out", "--workers", "0", "--epsilons", "8"]
    assert main([*command, "--attacks", "own.py:broken"]) == 1
    assert "NameError: name 'missing' is not defined" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--attacks", "nowhere.py:signs"], "there is no file 'nowhere.py'"),
        (["--attacks", "own.py:sings"], "own.py has no function 'sings'"),
        (["--attacks", "own.py:number"], "own.py has no function 'number'"),
        (["--attacks", "sign"], "unknown attack 'sign'; known: fgsm, pgd, apgd,"),
        (["--attacks", "pdg"], "Did you mean 'pgd'"),
        (["--attacks", "own.py:signs", "pgd", "--norm", "l2", "--epsilons", "1"], "pgd is limited in linf, not in l2"),
        (["--attacks", "own.py:signs", "--norm", "l3"], "l3"),
        (["--attacks", "own.py:signs", "--epsilons", "256"], "epsilons must be 255 or less in linf, not 256"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_anything_is_measured(folder, capsys, options, words):
    command = ["attack", "--model", "nets.py:net", "--data", "images", "--out", "out", "--workers", "0"]
    assert main([*command, *options]) == 2
    assert words in complaint(capsys)
    assert not (folder / "out" / "records").exists()


def test_a_finished_folder_is_read_without_the_file(folder):
    run(attack("signs"), plain(), labelled_by(plain()))
    (folder / "own.py").unlink()
    assert any(name.startswith("signs-") for name in ipvit.Run("out").tables["attack"]["attack"])


@pytest.mark.parametrize("name", ["hungry", "cuda"])
def test_a_batch_too_large_for_an_attack_is_halved(folder, name):
    assert measured(attack(name), plain(), labelled_by(plain()), folder / "out").height == 6 * 5
    with pytest.raises((OwnCodeError, MemoryError)) as raised:
        own_function("attack", f"own.py:{name}")(None, [1, 2], None, None, None)
    assert is_out_of_memory(raised.value)


# --- the budget ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("size", [1e-7, 0.03, 0.7, 40.0])
def test_images_are_brought_into_the_budget_to_the_last_digit(norm, size):
    random = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 16, 16, generator=random)
    images[:2] = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    moved = torch.rand(8, 3, 16, 16, generator=random)
    found = within(images, moved, Budget(norm, size))
    assert found.dtype == torch.float32 and bool(((found >= 0) & (found <= 1)).all())
    far = distances(images, found, norm)
    assert bool((far <= size).all())
    was = distances(images, moved, norm)
    assert torch.equal(found[was <= size], moved[was <= size])
    limit = {"linf": 1, "l2": 768**0.5, "l1": 768}[norm] * 2.0**-24  # what rounding inwards can cost
    assert bool((far[was > size] >= size - 2 * limit).all())


@pytest.mark.parametrize(("norm", "size"), [("linf", 8 / 255), ("l2", 0.5), ("l1", 12.0)])
def test_random_noise_uses_up_its_budget_and_belongs_to_the_image(norm, size):
    images, key = torch.full((5, 3, 16, 16), 0.5), keys([f"photo {i}" for i in range(5)], 0)
    budget = Budget(norm, size)
    found = random_noise(images, budget, key)
    far = distances(images, found, norm)
    assert bool((far <= size).all()) and torch.allclose(far, torch.full((5,), size).double(), rtol=1e-4)
    assert torch.equal(random_noise(images[3:], budget, key[3:]), found[3:])
    assert len({picture.numpy().tobytes() for picture in found}) == 5
    change = (found - images).flatten()
    assert abs(float((change > 0).float().mean()) - 0.5) < 0.03


def test_a_budget_is_a_known_norm_and_a_size():
    for wrong in (("l3", 1.0), ("l2", -1.0), ("l2", float("nan"))):
        with pytest.raises(ValueError, match="a budget is one of linf, l2, l1 and a size from 0"):
            Budget(*wrong)


def test_any_function_attacks_what_is_right_and_once_wrong_stays_wrong():
    model = plain()
    images = torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(1)
    labels[0], labels[4] = (labels[0] + 1) % 4, -1
    given = []

    def dark(network, images, labels, budget, key):
        given.append(key)
        return images * 0

    found = run_attack(dark, model, images, labels, Budget("linf", 1.0), np.arange(9, dtype=np.uint64))
    assert [key.tolist() for key in given] == [[1, 2, 3, 5, 6, 7, 8]]
    assert torch.equal(found.images[[0, 4]], images[[0, 4]]) and not found.images[[1, 2, 3, 5, 6, 7, 8]].any()
    black = int(model(torch.zeros(1, 3, 32, 32)).argmax())
    assert torch.equal(is_right(found.logits, labels)[1:4], labels[1:4] == black)
    with pytest.raises(ValueError, match="training mode"):
        run_attack(dark, plain().train(), images, labels, Budget("linf", 1.0), np.arange(9, dtype=np.uint64))


# --- in an installed package -----------------------------------------------------------------------------------------


@pytest.fixture
def package(folder, monkeypatch):
    """A package that registers an attack, a fill and a corruption."""
    site = folder / "site"
    (site / "theirs").mkdir(parents=True)
    (site / "theirs" / "__init__.py").write_text("")
    (site / "theirs" / "parts.py").write_text(
        SIGNS
        + "\ndef half(images, mask, key):\n    return torch.full_like(images, 0.5)\n"
        + "\ndef flip(image, severity, random):\n    return 255 - image\n"
    )
    info = site / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[ipvit.attacks]\nsign-noise = theirs.parts:signs\nlost = theirs.nowhere:signs\nfgsm = theirs.parts:far\n"
        "[ipvit.fills]\nhalf = theirs.parts:half\n[ipvit.corruptions]\nflip = theirs.parts:flip\n"
    )
    monkeypatch.syspath_prepend(str(site))
    plugins._registered.cache_clear()
    yield site
    plugins._registered.cache_clear()
    for name in ("theirs", "theirs.parts"):
        sys.modules.pop(name, None)


def test_functions_of_a_package_are_known_by_the_name_they_are_registered_under(package, capsys):
    records = same_from_everywhere("attack", {"attacks": ["fgsm", "sign-noise"], "epsilons": [8.0]})
    name = own_function("attack", "sign-noise").name
    assert name.startswith("sign-noise-") and {"fgsm", name} <= set(records["attack"])
    fill = own_function("fill", "half")
    images = torch.zeros(1, 3, 2, 2)
    assert torch.equal(fill(images, None, None), images + 0.5) and fill.location == "theirs.parts:half"
    assert own_function("corruption", "flip")(np.zeros(1, np.uint8), 1, None) == 255
    command = ["attack", "-m", "nets.py:net", "-d", "images", "--out", "lost", "--workers", "0", "--attacks"]
    assert main([*command, "lost"]) == 2
    assert "theirs.nowhere:signs: there is no file of the module theirs.nowhere" in complaint(capsys)
    assert main([*command, "sign-nose"]) == 2
    assert "Did you mean 'sign-noise'?" in complaint(capsys)


def test_a_package_that_changes_is_measured_anew(package):
    before = own_function("attack", "sign-noise")
    (package / "theirs" / "parts.py").write_text("def signs(model, images, labels, budget, key):\n    return 5\n")
    after = own_function("attack", "sign-noise")
    assert after.name != before.name and after(None, None, None, None, None) == 5


def test_the_json_of_the_tables_has_it(folder, capsys):
    command = ["attack", "-m", "nets.py:net", "-d", "images", "--out", "out", "--workers", "0", "--json"]
    assert main([*command, "--attacks", "own.py:signs", "--epsilons", str(float(LEVELS))]) == 0
    assert own_function("attack", "own.py:signs").name in json.dumps(json.loads(capsys.readouterr().out))
