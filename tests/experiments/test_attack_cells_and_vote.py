"""Replaced cells and PatchDrop as a defence in a run: what is measured, what is left out, what is refused."""

from __future__ import annotations

import polars as pl
import pytest
import torch
from torch import nn

import ipvit
from helpers.plain_loops import same_records
from ipvit.api import bind_context
from ipvit.data.dataset import MemoryDataset
from ipvit.experiments.attack.tables.votes import vote_sentences
from ipvit.perturb.attack import PatchDropVote, apgd, attack_cells, attack_vote, is_right
from ipvit.perturb.budget import Budget
from ipvit.perturb.seeding import keys
from ipvit.testing.samples import sample_cnn, sample_images, sample_vit

FAST = {"epsilons": (8,), "apgd_steps": 3, "draws": 2, "votes": 3, "vote_share": 0.25, "cells": (1, 3), "cell_steps": 3}


class BlackBox(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.mean(dim=(2, 3)).detach().numpy() @ torch.eye(3, 4).numpy())


def photos(right_for: ipvit.Model, n: int = 10) -> MemoryDataset:
    """Images with the labels that a network gives them, but for every fifth."""
    pixels = sample_images(n)
    labels = right_for(pixels.float() / 255).argmax(1).detach()
    labels[::5] = (labels[::5] + 1) % 4
    return MemoryDataset(pixels, labels, list(right_for.classes), ids=[f"photo {i}" for i in range(n)])


def run(models, out, data=None, batch_size=5, **parameters) -> ipvit.Run:
    models = models if isinstance(models, list) else [models]
    options = {"workers": 0, "progress": False, "batch_size": batch_size, "out": out}
    return ipvit.run(ipvit.Attack(**(FAST | parameters)), models=models, data=data or photos(models[0]), **options)


def asked(network: ipvit.Model, data: MemoryDataset):
    images = torch.stack([data.read(i) for i in range(len(data))]).float() / 255
    return network, images, torch.from_numpy(data.labels)


def right_of(records: pl.DataFrame, data: MemoryDataset) -> list[bool]:
    rows = {row["image"]: row["correct"] for row in records.to_dicts()}
    return [rows[image] for image in data.ids]


def test_the_records_of_cells_are_those_of_the_pure_function(tmp_path):
    network = sample_vit()
    data = photos(network)
    result = run(network, tmp_path, data, attacks=("cells",))
    key = keys(data.ids, 0, "attack", "cells")
    for choice in ("random", "gradient", "greedy"):
        options = {"grid": (4, 4), "count": 3, "choice": choice, "steps": 3}
        found = attack_cells(*asked(network, data), key, **options)
        records = result.records("attack").filter(attack="cells", choice=choice, cells=3)
        assert right_of(records, data) == is_right(found.logits, asked(network, data)[2]).tolist(), choice
    table = result.tables["attack-cells"]
    assert table["choice"].to_list() == ["none", *["random", "gradient", "greedy", "attention"] * 2]
    assert table["cells"].to_list() == [0, *[1] * 4, *[3] * 4] and set(table["grid"]) == {"4x4"}
    clean = result.records("attack").filter(attack="clean")
    assert table["top1"][0] == pytest.approx(100 * clean["correct"].mean())
    (sentence,) = [text for text in result.summary["attack"] if "cells replaced leave" in text]
    assert "1, 3 of 4x4 cells" in sentence and "chosen at random" in sentence


def test_the_records_of_the_vote_are_those_of_the_pure_functions(tmp_path):
    network = sample_vit()
    data = photos(network)
    result = run(network, tmp_path, data, attacks=("vote",))
    model, images, labels = asked(network, data)
    budget, looks = Budget("linf", 8 / 255), {"share": 0.25, "votes": 3}
    made = apgd(model, images, labels, budget, keys(data.ids, 0, "attack", "start", 0), steps=3, all_steps=True)
    known = keys(data.ids, 0, "attack", "vote", "known")
    against = attack_vote(model, images, labels, budget, known, grid=(4, 4), steps=3, draws=2, **looks)
    with torch.no_grad():
        answers = {
            (0.0, "unchanged", "vote"): vote(network, data, looks)(images),
            (8.0, "against network", "network"): made.logits,
            (8.0, "against network", "vote"): vote(network, data, looks)(made.images),
            (8.0, "against vote", "vote"): against.logits,
        }
    records = result.records("attack").filter(attack="vote")
    for (epsilon, shown, answered_by), logits in answers.items():
        rows = records.filter(epsilon=epsilon, shown=shown, answered_by=answered_by)
        assert right_of(rows, data) == is_right(logits, labels).tolist(), (shown, answered_by)
    table = result.tables["attack-vote"]
    assert set(zip(table["epsilon"], table["shown"], table["answered_by"], strict=True)) == {
        (0.0, "unchanged", "network"),
        *answers,
    }
    assert sum("attack that knows of it" in text for text in result.summary["attack"]) == 1


def vote(network: ipvit.Model, data: MemoryDataset, looks: dict) -> PatchDropVote:
    return PatchDropVote(network, (4, 4), keys(data.ids, 0, "attack", "vote", "answer"), **looks)


def test_the_batch_size_changes_no_record(tmp_path):
    whole = run(sample_vit(), tmp_path / "a", attacks=("cells", "vote"), cells=(2,), batch_size=10).records("attack")
    small = run(sample_vit(), tmp_path / "b", attacks=("cells", "vote"), cells=(2,), batch_size=3).records("attack")
    same_records(whole, small)


def test_a_network_without_attention_has_no_cells_that_draw_it_and_that_is_told(tmp_path):
    result = run([sample_vit(), sample_cnn()], tmp_path, attacks=("cells",), cells=(1,))
    of = result.records("attack").filter(attack="cells")
    assert set(of.filter(model="sample ViT")["choice"]) == {"random", "gradient", "greedy", "attention"}
    assert set(of.filter(model="sample CNN")["choice"]) == {"random", "gradient", "greedy"}
    notes = " ".join(result.manifest.notes)
    assert "sample CNN: cells that draw attention left out" in notes
    assert "grid of 14x14, of sample ViT 4x4" in notes and "--cell-grid" in notes


def test_attention_is_among_patches_and_is_not_drawn_to_other_cells(tmp_path):
    result = run(sample_vit(), tmp_path, attacks=("cells",), cells=(1,), cell_grid="8x8")
    assert "attention" not in set(result.records("attack").filter(attack="cells")["choice"])
    assert any("among 4x4 patches, and the cells are of a grid of 8x8" in note for note in result.manifest.notes)


def test_a_network_without_gradients_has_neither_and_that_is_told(tmp_path):
    network = ipvit.wrap(BlackBox(), size=32, crop_pct=1.0, classes=["a", "b", "c", "d"], name="box")
    result = run(network, tmp_path, attacks=("cells", "vote", "square"), queries=3)
    assert set(result.records("attack")["attack"]) == {"clean", "check", "square"}
    assert any("replaced cells, PatchDrop as a defence left out" in note for note in result.manifest.notes)


def two_networks() -> list[ipvit.Model]:
    """Two networks of random weights that look at the same view, and number their classes differently."""
    return [sample_vit(), sample_cnn()]


def test_cells_replaced_on_one_network_are_shown_to_the_others(tmp_path):
    one, other = models = two_networks()
    data = photos(one)
    result = run(models, tmp_path, data, attacks=("cells",), cells=(1, 3), show_to_others=True, cell_grid="4x4")
    images, labels = asked(one, data)[1:]
    options = {"grid": (4, 4), "count": 3, "choice": "greedy", "steps": 3}
    made = attack_cells(one, images, labels, keys(data.ids, 0, "attack", "cells"), **options).images
    names = [one.classes[label] for label in labels]

    def right(network: ipvit.Model, shown: torch.Tensor) -> list[bool]:
        said = [network.classes[int(answer)] for answer in network(shown).argmax(1)]
        return [answer == name for answer, name in zip(said, names, strict=True)]

    answers = right(other, made)
    every = result.records("attack").filter(attack="cells").filter(pl.col("source") != "")
    assert right_of(every.filter(model="sample CNN", choice="greedy", cells=3), data) == answers
    table = result.tables["attack-transfer-cells"]
    # the ViT makes four kinds of two sizes, the CNN three, and each is shown to both
    assert table.height == 2 * 2 * (4 + 3) and table["top1_low"].null_count() == 0
    pair = table.filter(made_on="sample ViT", model="sample CNN", choice="greedy", cells=3)
    assert pair["top1"].item() == pytest.approx(100 * sum(answers) / len(data))
    both = [i for i, known in enumerate(zip(*(right(net, images) for net in models), strict=True)) if all(known)]
    fooled = [i for i in both if not answers[i]]
    assert pair["n_judged"].item() == len(both) > 0
    assert pair["success"].item() == pytest.approx(100 * len(fooled) / len(both))
    own = {"choice": "greedy", "cells": 3}
    diagonal = table.filter(made_on="sample ViT", model="sample ViT", **own)["top1"].item()
    assert diagonal == result.tables["attack-cells"].filter(model="sample ViT", **own)["top1"].item()
    assert result.tables["attack-cells"].height == (1 + 2 * 4) + (1 + 2 * 3)  # of their own alone
    assert "attack-transfer-cells" in result.figures and "attack-transfer-pixels" not in result.tables
    said = [text for text in result.summary["attack"] if text.startswith("Images made on sample ViT with 3 cells")]
    assert len(said) == 4 and all("leave sample CNN" in text for text in said)


def test_shown_cells_are_the_same_whatever_the_batch_and_whatever_was_measured_before(tmp_path):
    asked_for = {"attacks": ("cells",), "cells": (2,), "cell_grid": "4x4"}
    data = photos(sample_vit())
    whole = run(two_networks(), tmp_path / "a", data, batch_size=10, show_to_others=True, **asked_for)
    run(two_networks(), tmp_path / "b", data, batch_size=3, **asked_for)  # no images to show are left of this
    later = run(two_networks(), tmp_path / "b", data, batch_size=4, show_to_others=True, **asked_for)
    same_records(whole.records("attack"), later.records("attack"))
    assert later.manifest.measured_in_this_call == 10 * (4 + 3)
    assert whole.tables["attack-transfer-cells"].equals(later.tables["attack-transfer-cells"])


def test_the_interval_of_shown_cells_is_over_images(tmp_path):
    from ipvit.metrics.intervals import accuracy_interval

    result = run(two_networks(), tmp_path, attacks=("cells",), cells=(2,), cell_grid="4x4", show_to_others=True)
    rows = result.records("attack").filter(attack="cells", model="sample CNN", choice="random")
    right = rows.filter(pl.col("source") != "")["correct"].cast(pl.Float64).to_numpy()
    pair = result.tables["attack-transfer-cells"].filter(model="sample CNN", made_on="sample ViT", choice="random")
    low, high = accuracy_interval(right, 1)
    assert (pair["top1_low"].item(), pair["top1_high"].item()) == pytest.approx((100 * low, 100 * high))


def test_what_is_not_shown_to_others_is_told_with_the_reason(tmp_path):
    some = {"attacks": ("cells", "vote", "fgsm", "worst"), "cells": (1,), "cell_grid": "4x4", "show_to_others": True}
    result = run(two_networks(), tmp_path / "two", **some)
    notes = " ".join(result.manifest.notes)
    assert "PatchDrop as a defence: what is made against a network and against its vote is not shown" in notes
    assert "the worst of all attacks: for other networks there is no worst of what is shown" in notes
    shown = result.records("attack").filter(pl.col("source") != "")
    assert set(shown["attack"]) == {"cells", "fgsm"}
    alone = run(sample_vit(), tmp_path / "one", **some)
    assert any("shows nothing: the study has one network" in note for note in alone.manifest.notes)


def test_an_attack_in_l2_says_its_unit(tmp_path):
    result = run(sample_vit(), tmp_path, attacks=("vote",), norm="l2", epsilons=(0.5,))
    assert set(result.tables["attack-vote"]["norm"]) == {"l2"} and set(result.tables["attack-vote"]["unit"]) == {
        "0 to 1"
    }
    assert any("ε = 0.5 in l2" in text for text in result.summary["attack"])


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"attacks": ("cells",), "cells": (17,)}, "17 cells cannot be replaced on sample ViT.*4x4 has 16"),
        ({"attacks": ("cells",), "cell_grid": "33x33"}, "has room for"),
        ({"attacks": ("vote",), "cell_grid": "33x33"}, "has room for"),
    ],
)
def test_what_does_not_fit_is_refused(parameters, words):
    experiment = ipvit.Attack(**(FAST | parameters))
    with pytest.raises(ipvit.errors.InputError, match=words):
        experiment.bind([sample_vit()], photos(sample_vit()), bind_context())


def test_an_attack_that_knows_of_the_vote_and_leaves_more_is_said_to_be_too_weak():
    def table(same: float, known: float) -> pl.DataFrame:
        rows = [
            (0.0, "unchanged", "network", 100.0),
            (0.0, "unchanged", "vote", 90.0),
            (4.0, "against network", "network", 20.0),
            (4.0, "against network", "vote", same),
            (4.0, "against vote", "vote", known),
        ]
        found = pl.DataFrame(rows, schema=["epsilon", "shown", "answered_by", "top1"], orient="row")
        return found.with_columns(model=pl.lit("net"), grid=pl.lit("4x4"), share=0.5, votes=3)

    assert "knows of it, which is too weak" in list(vote_sentences(table(40, 60)))[1][1]
    assert "too weak" not in list(vote_sentences(table(60, 40)))[1][1]


def test_cells_painted_in_two_numbers_of_steps_are_two_rows(tmp_path):
    networks = [sample_vit(), sample_cnn()]
    for steps in (2, 5):
        run(networks, tmp_path, attacks=("cells",), cells=(2,), cell_steps=steps, show_to_others=True)
    whole = ipvit.Run(tmp_path, [ipvit.Attack(attacks=("cells",), show_to_others=True)], everything=True)
    attacked = whole.tables["attack-cells"].filter(pl.col("choice") == "random")
    assert attacked["steps"].to_list() == [2, 5] * 2 and set(attacked["n_images"]) == {10}
    shown = whole.tables["attack-transfer-cells"].filter(pl.col("choice") == "random")
    assert shown["steps"].to_list() == [2] * 4 + [5] * 4 and set(shown["n_images"]) == {10}
    (sentence, *_) = [said for said in whole.answers_of("attack").values() if "cells replaced" in said]
    assert "chosen at random, 2 steps" in sentence and "chosen at random, 5 steps" in sentence
    assert {"attack-cells", "attack-transfer-cells"} <= {*whole.figures}
    (alone,) = {*run(networks, tmp_path / "one", attacks=("cells",)).tables["attack-cells"].columns} & {"steps"} or {
        None
    }
    assert alone is None, "one number of steps is no column"


def test_votes_against_attacks_of_two_numbers_of_steps_are_two_rows(tmp_path):
    network = sample_vit()
    for steps in (2, 5):
        run(network, tmp_path, attacks=("vote",), apgd_steps=steps)
    whole = ipvit.Run(tmp_path, [ipvit.Attack(attacks=("vote",))], everything=True)
    known = whole.tables["attack-vote"].filter(shown="against vote", answered_by="vote")
    assert known["steps"].to_list() == [2, 5] and set(known["n_images"]) == {10}
    told = " ".join(whole.answers_of("attack").values())
    assert "with 2 steps" in told and "with 5 steps" in told and "attack-vote" in whole.figures
    assert "steps" not in run(network, tmp_path / "one", attacks=("vote",)).tables["attack-vote"].columns
