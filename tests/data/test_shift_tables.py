"""Natural shifts in tables: the same answer spaces and classes as from their archives, and no label that is guessed."""

import numpy as np
import pytest
import torch

import ipvit
from helpers.hub_tables import ClassLabel, Feature, provide_table, rows
from ipvit.data.published.imagenet_lists import real_labels, synsets
from ipvit.data.recognition import published_set
from ipvit.errors import InputError

OF_A = [synsets().index(one) for one in synsets("a")]


def table(monkeypatch, labels: list, names: list[str] | None = None) -> None:
    kind = "int64" if names is None else ClassLabel(names)
    pictures = [rows(number % 250)[0] for number in range(len(labels))]
    provide_table(monkeypatch, {"image": pictures, "label": labels}, {"image": Feature(), "label": kind})


def opened(name: str, **options):
    return ipvit.load_dataset(f"{name}?split=test", **options)


def classes_of(data) -> list[str]:
    return [data.classes[label] if label >= 0 else "" for label in data.labels]


@pytest.mark.parametrize(
    ("labels", "names", "words"),
    [
        ([5, 0, 199], list(synsets("a")), ""),
        ([199, 5, 0], [*synsets("a")[5:], *synsets("a")[:5]], ""),
        (["n01498041", "n07697313"], None, ""),
        ([OF_A[3], OF_A[150]], None, "ImageNet's outputs"),
        ([OF_A[3], None, OF_A[150]], None, "ImageNet's outputs"),
        (list(range(200)), None, "its 200 classes in the order of their WordNet ids"),
        ([7, 1], list(synsets()[:12]), ""),
    ],
)
def test_imagenet_a_in_a_table_is_answered_among_its_200_classes(monkeypatch, labels, names, words):
    table(monkeypatch, labels, names)
    if labels == [7, 1]:  # ImageNet's names, of which the images have some that ImageNet-A does not
        with pytest.raises(InputError, match=f"the class {synsets()[1]} is none of its 200 classes"):
            opened("imagenet-a:hfds/a/b")
        return
    data = opened("imagenet-a:hfds/a/b")
    assert (data.classes, data.answers) == (synsets("a"), "data") and published_set(data) == ("imagenet-a", 7_500)
    if names is not None:
        wanted = [names[label] for label in labels]
    elif isinstance(labels[0], str):
        wanted = labels
    elif len(labels) == 200:
        wanted = list(synsets("a"))
    else:
        wanted = ["" if label is None else synsets()[label] for label in labels]
    assert classes_of(data) == wanted
    assert (words in data.notes[-1]) if words else not data.notes


@pytest.mark.parametrize(
    ("scheme", "labels", "names", "words"),
    [
        ("imagenet-a", [6, 11], None, "its labels are numbers, 6 to 11, and nothing says of which classes"),
        ("imagenet-a", [0, 900], None, "its labels are numbers, 0 to 900, and nothing says"),
        ("imagenet-v2", [1, 1000], None, "its labels are numbers, 1 to 1000, and nothing says"),
        ("imagenet-r", [0, 1], ["stingray", "crane"], "the label 'stingray' is no WordNet id"),
        ("imagenet-a-clean", list(range(900)), None, "3[0-9] of its 200 classes are not there|classes are not there"),
        ("imagenet-real", [1, 2], None, "must hold lists of classes, several or none an image"),
        ("imagenet-a", [[1], [2]], None, "must hold one class an image"),
        ("objectnet", [1], None, "objectnet is read from its own distribution"),
        ("imagenet-a", [0], [synsets()[0]], f"the class {synsets()[0]} is none of its 200 classes"),
    ],
)
def test_labels_that_could_be_read_in_two_ways_or_none_are_refused(monkeypatch, scheme, labels, names, words):
    table(monkeypatch, labels, names)
    with pytest.raises(InputError, match=words):
        opened(f"{scheme}:hfds/a/b")


def test_what_classes_states_is_not_guessed(monkeypatch, tmp_path):
    table(monkeypatch, [0, 2])
    (tmp_path / "ids").write_text("\n".join(synsets("a")[3:6]))
    assert classes_of(opened("imagenet-a:hfds/a/b", classes=str(tmp_path / "ids"))) == [
        synsets("a")[3],
        synsets("a")[5],
    ]
    table(monkeypatch, [OF_A[0]])
    assert classes_of(opened("imagenet-a:hfds/a/b", classes="imagenet-1k")) == [synsets("a")[0]]


def test_variants_of_v2_are_named_and_numbers_sorted_as_text_are_read(monkeypatch):
    names = sorted(map(str, range(1000)))
    table(monkeypatch, [names.index("10"), names.index("2"), names.index("999")], names)
    data = ipvit.load_dataset("imagenet-v2:hfds/a/b?variant=top-images&split=test")
    assert classes_of(data) == [synsets()[number] for number in (10, 2, 999)] and data.answers == "all"
    assert published_set(data) == ("imagenet-v2/top-images", 10_000)
    assert published_set(opened("imagenet-v2:hfds/a/b")) == ("imagenet-v2", 10_000)
    with pytest.raises(InputError, match=r"unknown variant 'top-image'; .* Did you mean 'top-images'"):
        ipvit.load_dataset("imagenet-v2:hfds/a/b?variant=top-image&split=test")
    with pytest.raises(InputError, match="imagenet-sketch: unknown variant 'top-images'"):
        ipvit.load_dataset("imagenet-sketch:hfds/a/b?variant=top-images&split=test")


def test_clean_images_of_other_classes_are_left_out(monkeypatch):
    table(monkeypatch, list(range(1000)))
    data = opened("imagenet-r-clean:hfds/a/b")
    assert classes_of(data) == sorted(synsets("r")) and len(data) == 200
    assert (data.answers, published_set(data)[0]) == ("data", "imagenet-r-clean")


def test_reals_labels_are_lists(monkeypatch, tmp_path):
    some = [list(real_labels()[number]) for number in (0, 1, 2, 3)] + [[]]
    table(monkeypatch, some)
    data = opened("imagenet-real:hfds/a/b")
    assert data.label_sets == [tuple(one) for one in some] and data.classes == synsets()
    assert published_set(data) == ("imagenet-real", 50_000)
    torch.manual_seed(0)
    inner = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 1000))
    model = ipvit.wrap(inner, size=16, classes=synsets(), name="net")
    run = ipvit.run(ipvit.Accuracy(), models=model, data=data, out=tmp_path, workers=0, progress=False)
    rows_ = run.records("accuracy")
    for image, prediction, correct in rows_.select("image", "prediction", "correct").iter_rows():
        assert correct == (prediction in some[int(image)])
    assert run.tables["accuracy"]["n_images"].to_list() == [sum(map(bool, some))]


def test_an_experiment_on_a_table_is_answered_as_on_the_archive(monkeypatch, tmp_path):
    table(monkeypatch, [3, 150, 77], list(synsets("a")))
    torch.manual_seed(0)
    inner = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 1000))
    model = ipvit.wrap(inner, size=16, classes=synsets(), name="net")
    options = {"models": model, "workers": 0, "progress": False}
    run = ipvit.run(ipvit.Accuracy(), data=opened("imagenet-a:hfds/a/b"), out=tmp_path / "a", **options)
    for image, prediction in run.records("accuracy").select("image", "prediction").iter_rows():
        pixels = opened("imagenet-a:hfds/a/b").read(int(image))[None, :, :16, :16].float() / 255
        with torch.no_grad():
            assert prediction == int(np.argmax(model(pixels)[0].numpy()[OF_A]))
    assert set(run.records("accuracy")["answers"]) == {"data"}
    assert run.tables["accuracy"]["n_answers"].to_list() == [200]
