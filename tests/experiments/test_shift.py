"""Natural shifts: each set and the clean images of its classes are answered among the same answers."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

import ipvit
from helpers.shift_trees import OUTPUTS, write_objectnet, write_pictures, write_v2, write_validation
from ipvit.analysis.reduction import Reduction
from ipvit.data.published.imagenet_lists import real_labels, synsets
from ipvit.errors import InputError
from ipvit.experiments.shift.lines import line, line_of, logits, networks
from ipvit.metrics.effective_robustness import AccuracyLine, accuracy_logit, effective_robustness
from ipvit.metrics.intervals import wilson
from ipvit.models.published.shifts import SETS

CLEAN = [0, 2, 10, 100, 409, 530, 954, 518, 560, *(synsets().index(name) for name in synsets("a")[:4])]


class Thousand(torch.nn.Module):
    """Logits that depend on the picture and spread over all outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Linear(3 * 4 * 4, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 8 * self.head(torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))


def network(seed: int = 0, name: str = "net") -> ipvit.Model:
    inner = Thousand()
    with torch.no_grad():
        inner.head.bias.add_(torch.randn(1000, generator=torch.Generator().manual_seed(seed)))
    return ipvit.wrap(inner, size=24, crop_pct=1.0, classes=synsets(), name=name)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp("trees")
    write_validation(root / "val", sorted(set(CLEAN)))
    write_v2(root / "v2")
    write_pictures(root / "a", synsets("a")[:3])
    write_objectnet(root / "objectnet")
    return root


def measured(trees, out, sets, **options) -> ipvit.Run:
    return ipvit.run(
        ipvit.Shift(sets=tuple(sets)),
        models=options.pop("models", network()),
        data=str(trees / "val"),
        out=out,
        workers=0,
        progress=False,
        **options,
    )


def by_hand(data, pooled) -> dict[str, int]:
    """The answer of each image: the largest of some function of all probabilities."""
    model, found = network(), {}
    for index, name in enumerate(data.ids):
        pixels = data.read(index).float().div(255)[None]
        pixels = torch.nn.functional.interpolate(pixels, (24, 24), mode="bicubic", antialias=True, align_corners=False)
        with torch.no_grad():
            found[name] = int(np.argmax(pooled(model(pixels.clamp(0, 1)).softmax(1)[0].numpy())))
    return found


def answers_of(run: ipvit.Run, images: str) -> dict[str, tuple[int, bool]]:
    rows = run.records("shift").filter(pl.col("images").cast(pl.String) == images)
    names = rows["image"].cast(pl.String).str.split("/").list.slice(1).list.join("/")
    return dict(zip(names, zip(rows["prediction"], rows["correct"], strict=True), strict=True))


def test_imagenet_a_is_answered_among_its_200_classes_and_so_are_the_clean_images(trees, tmp_path):
    run = measured(trees, tmp_path, [f"imagenet-a:{trees / 'a'}"])
    outputs = [synsets().index(name) for name in synsets("a")]
    data = ipvit.load_dataset(f"imagenet-a:{trees / 'a'}")
    wanted = by_hand(data, lambda probabilities: probabilities[outputs])
    labels = dict(zip(data.ids, data.labels.tolist(), strict=True))
    found = answers_of(run, "shifted")
    assert {name: (answer, answer == labels[name]) for name, answer in wanted.items()} == found
    clean = ipvit.load_dataset(trees / "val")
    among = {name for name in clean.ids if name.split("/")[0] in synsets("a")}
    assert answers_of(run, "clean").keys() == among and len(among) < len(clean)
    assert run.tables["shift"]["n_answers"].to_list() == [200]


def test_objectnet_takes_the_most_probable_output_of_each_class(trees, tmp_path):
    run = measured(trees, tmp_path, [f"objectnet:{trees / 'objectnet'}"])
    data = ipvit.load_dataset(f"objectnet:{trees / 'objectnet'}")
    columns = [list(OUTPUTS[name]) for name in data.classes]
    wanted = by_hand(data, lambda probabilities: [probabilities[one].max() for one in columns])
    assert {name: answer for name, (answer, _) in answers_of(run, "shifted").items()} == wanted
    clean = answers_of(run, "clean")  # a class of ImageNet's that is one of several outputs of an answer
    owners = {synsets()[output]: number for number, one in enumerate(columns) for output in one}
    assert {name.split("/")[0] for name in clean} == set(owners)
    for name, (answer, correct) in clean.items():
        assert correct == (answer == owners[name.split("/")[0]])


def test_real_labels_and_v2_are_answered_among_all_outputs(trees, tmp_path):
    run = measured(trees, tmp_path, [f"imagenet-v2:{trees / 'v2'}", f"imagenet-real:{trees / 'val'}"])
    rows = run.records("shift").filter(pl.col("set").cast(pl.String) == "imagenet-real")
    for image, answer, correct, label, images in rows.select(
        "image", "prediction", "correct", "right", pl.col("images").cast(pl.String)
    ).iter_rows():
        if images == "shifted":
            number = int(image.rpartition("_")[2].split(".")[0]) - 1
            assert correct == (answer in real_labels()[number]) and (label == -1) == (not real_labels()[number])
    table = run.tables["shift"]
    assert table["set"].to_list() == ["imagenet-real", "imagenet-v2/matched-frequency"]
    assert table["n_answers"].to_list() == [1000, 1000] and table["effective"].null_count() == 2
    labelled = sum(bool(real_labels()[50 * output + one]) for output in set(CLEAN) for one in range(2))
    assert table["n_shifted"].to_list() == [labelled, 8]
    assert any("it needs all images, as published" in text for text in run.summary_of("shift"))


def test_one_more_set_adds_only_itself_and_all_goes_among_all_when_asked(trees, tmp_path):
    first, second = f"imagenet-a:{trees / 'a'}", f"imagenet-v2:{trees / 'v2'}"
    measured(trees, tmp_path, [first])
    run = measured(trees, tmp_path, [first, second])
    assert run.manifest.measured_in_this_call == 8 + len(ipvit.load_dataset(trees / "val"))
    every = measured(trees, tmp_path / "all", [first], answers="all")
    assert every.tables["shift"]["n_answers"].to_list() == [1000]


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ([], "which shifted data"),
        (["imagenet-a:a", "imagenet-a:a"], "two of the sets are the same"),
        (["val"], "two of the sets are the same, or one is the clean data"),
        (["other"], "cannot map 1 of the 1 classes"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(trees, tmp_path, monkeypatch, sets, words):
    monkeypatch.chdir(trees)
    write_pictures(trees / "other", ["yak"])
    with pytest.raises(InputError, match=words):
        measured(trees, tmp_path, sets)


def plain_folders(root):
    """Clean and shifted photos of a few classes, in folders of the user's own."""
    write_pictures(root / "val", [synsets()[number] for number in range(6)], n=3)
    write_pictures(root / "other", [synsets()[number] for number in (1, 3, 5)], n=2, size=28)
    return root


def counts(run: ipvit.Run) -> list[tuple]:
    return run.tables["shift"].select("n_answers", "n_shifted", "n_clean", "top1", "clean").rows()


def of_other(root, out, **options):
    return measured(root, out, [str(root / "other")], answers="data", **options)


def test_what_a_set_was_before_is_not_mixed_with_what_it_is_now(tmp_path):
    root = plain_folders(tmp_path / "data")
    (first,) = counts(of_other(root, tmp_path / "run"))
    assert first[:3] == (3, 6, 9)
    write_pictures(root / "new", ["x"], n=1, size=30)
    (root / "new/x/0.jpg").rename(root / "val" / synsets()[1] / "new.jpg")
    run = of_other(root, tmp_path / "run")
    assert counts(run) == counts(of_other(root, tmp_path / "fresh")) and counts(run)[0][:3] == (3, 6, 10)
    assert any("another seed, precision, version, answer space or data set" in note for note in run.told)
    (root / "other" / synsets()[5]).rename(root / "other" / synsets()[4])
    run = of_other(root, tmp_path / "run")
    assert counts(run) == counts(of_other(root, tmp_path / "anew"))
    assert counts(ipvit.Run(tmp_path / "run")) == counts(run)


def test_another_classes_txt_is_another_answer_space(tmp_path):
    root, found = plain_folders(tmp_path / "data"), []
    for second in (1, 7):
        lines = [f"{synsets()[number]}\t{synsets()[number]}" for number in (1, 3)]
        lines.append(f"{synsets()[5]}\t{synsets()[5]},{synsets()[100 + second]}")
        (root / "other/classes.txt").write_text("\n".join(lines))
        run = of_other(root, tmp_path / "run")
        assert counts(run) == counts(of_other(root, tmp_path / str(second)))
        found.append(run.records("shift")["label_probability"].to_list())
    assert found[0] != found[1]


def test_a_limit_counts_clean_images_of_each_sets_classes(trees, tmp_path):
    run = measured(trees, tmp_path, [f"imagenet-a:{trees / 'a'}", f"objectnet:{trees / 'objectnet'}"], limit=2)
    assert run.tables["shift"].select("n_shifted", "n_clean").rows() == [(2, 2), (2, 2)]


def test_a_folder_that_is_called_as_a_published_set_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(plain_folders(tmp_path))
    (tmp_path / "other").rename("imagenet-a")
    run = measured(tmp_path, "run", ["imagenet-a"])
    assert run.tables["shift"]["set"].to_list() == ["./imagenet-a"]


def test_what_the_shifted_sets_say_of_themselves_is_told_and_unlabelled_images_are_counted(trees, tmp_path):
    run = measured(trees, tmp_path, [f"objectnet:{trees / 'objectnet'}", f"imagenet-real:{trees / 'val'}"])
    assert any("1 classes that ImageNet does not have are left out" in note for note in run.manifest.notes)
    numbers = [50 * output + one for output in sorted(set(CLEAN)) for one in range(2)]
    unlabelled = sum(not real_labels()[number] for number in numbers)
    assert f"{unlabelled} images have no label and are left out of the accuracies." in run.notes_of("shift")


# --- effective robustness -------------------------------------------------------------------------------------------


def test_the_lines_of_the_published_networks():
    assert len(networks()) == 1265 and sum(one.in1k for one in networks()) == 979
    found = {name: AccuracyLine.fit(*logits(name)) for name in SETS}
    assert {name: round(fitted.r2, 2) for name, fitted in found.items()} == {
        "imagenet-v2/matched-frequency": 0.99,
        "imagenet-real": 0.98,
        "imagenet-sketch": 0.86,
        "imagenet-a": 0.91,
        "imagenet-r": 0.76,
    }
    assert found["imagenet-v2/matched-frequency"].slope == pytest.approx(0.92, abs=0.005)


def test_a_part_of_a_set_or_other_answers_have_no_line():
    whole = ("imagenet-a", "imagenet", 10_000, 7_500, 200)
    assert line_of(*whole) is line("imagenet-a")
    for place, value in enumerate(("objectnet", "photos", 9_999, 7_499, 1000)):
        assert line_of(*whole[:place], value, *whole[place + 1 :]) is None


def test_effective_robustness_is_the_distance_from_the_line():
    rows = [
        {
            "model": "net",
            "set": "imagenet-sketch",
            "clean_set": "imagenet",
            "images": images,
            "n_answers": 1000,
            "n_images": n,
            "n_runs": 1,
            "top1": top1,
            "top1_low": 100 * wilson(top1 * n / 100, n)[0],
            "top1_high": 100 * wilson(top1 * n / 100, n)[1],
        }
        for images, n, top1 in (("clean", 50_000, 74.846), ("shifted", 50_889, 24.392))
    ]
    analysis = ipvit.Shift().analysis()
    tables = analysis.tables([Reduction("net", "w", {"shift": pl.DataFrame(rows)})])
    (row,) = tables["shift"].to_dicts()
    right = 37_423, 0.24392 * 50_889
    found = effective_robustness(right[0], 50_000, right[1], 50_889, line("imagenet-sketch"))
    assert row["effective"] == pytest.approx(100 * found.value) and row["effective_low"] < row["effective"]
    predicted = float(line("imagenet-sketch").predicted(accuracy_logit(37_423, 50_000)))
    assert tables["shift-line"]["predicted"].to_list() == pytest.approx([100 * predicted])
    assert row["drop"] == pytest.approx(74.846 - 24.392)
    assert list(analysis.figures(tables)) == ["shift-imagenet-sketch"]
    assert "effective robustness +0.9 points" in analysis.summary(tables)[0]
