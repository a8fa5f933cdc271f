"""ImageNet-V2, A, R, Sketch, ObjectNet and ReaL's labels: read as their authors distribute them."""

import json

import numpy as np
import pytest
from PIL import Image

import ipvit
from helpers.shift_trees import (
    OUTPUTS,
    write_objectnet,
    write_pictures,
    write_v2,
    write_validation,
)
from ipvit.data.published.imagenet_lists import real_labels, synsets
from ipvit.data.recognition import published_set
from ipvit.errors import InputError


def labels_of(data) -> dict[str, str]:
    return {name: data.classes[label] for name, label in zip(data.ids, data.labels, strict=True)}


def test_the_published_lists_are_whole():
    assert len(synsets()) == 1000 and len(synsets("a")) == len(synsets("r")) == 200
    assert set(synsets("a")) | set(synsets("r")) <= set(synsets())
    labels = real_labels()
    assert len(labels) == 50_000 and sum(not one for one in labels) == 3_163  # Beyer et al. 2020
    assert labels[1] == (970, 795)


def test_folders_of_v2_are_numbers_of_outputs(tmp_path):
    data = ipvit.load_dataset(f"imagenet-v2:{write_v2(tmp_path)}")
    assert labels_of(data) == {
        f"{number}/{one}.jpg": synsets()[number] for number in (0, 2, 10, 100) for one in range(2)
    }
    assert data.name.endswith("/matched-frequency") and data.answers == "all"
    assert published_set(data) == ("imagenet-v2/matched-frequency", 10_000)


def test_a_variant_of_v2_is_named_or_is_the_folder_itself(tmp_path):
    write_v2(tmp_path)
    write_v2(tmp_path, "imagenetv2-top-images-format-val")
    assert "matched-frequency, and not top-images" in ipvit.load_dataset(f"imagenet-v2:{tmp_path}").notes[-1]
    for place in ("top-images", "imagenetv2-top-images-format-val"):
        named = ipvit.load_dataset(f"imagenet-v2:{tmp_path}/{place}")
        assert named.name.endswith("/top-images") and not named.notes
    with pytest.raises(InputError, match="there is no folder imagenetv2-threshold0.7-format-val"):
        ipvit.load_dataset(f"imagenet-v2:{tmp_path}/threshold-0.7")


@pytest.mark.parametrize(
    ("scheme", "folder", "classes"),
    [("imagenet-a", "imagenet-a", 200), ("imagenet-r", "imagenet-r", 200), ("imagenet-sketch", "sketch", 1000)],
)
def test_class_folders_are_found_in_the_archives_folder_or_here(tmp_path, scheme, folder, classes):
    some = synsets(scheme[-1] if classes == 200 else "")[3:6]
    write_pictures(tmp_path / folder, some)
    above, itself = (ipvit.load_dataset(f"{scheme}:{place}") for place in (tmp_path, tmp_path / folder))
    assert labels_of(above) == labels_of(itself) == {f"{name}/{one}.jpg": name for name in some for one in range(2)}
    assert above.fingerprint == itself.fingerprint
    assert len(above.classes) == classes and above.answers == ("data" if classes == 200 else "all")


def test_a_folder_of_another_class_is_refused(tmp_path):
    write_pictures(tmp_path, [synsets("a")[0], "n00000001"])
    with pytest.raises(InputError, match="the folder 'n00000001' in .* is none of its 200 classes"):
        ipvit.load_dataset(f"imagenet-a:{tmp_path}")
    with pytest.raises(InputError, match=r"imagenet-r is to be had from github.com/hendrycks/imagenet-r"):
        ipvit.load_dataset(f"imagenet-r:{tmp_path}/nowhere")


@pytest.mark.parametrize("which", ["a", "r"])
def test_the_clean_images_of_the_200_classes_keep_their_ids_and_change_their_numbers(tmp_path, which):
    outputs = [synsets().index(name) for name in synsets(which)]
    others = [number for number in range(1000) if number not in outputs][:2]
    root = write_validation(tmp_path / "val", [*outputs, *others], n=1)
    data = ipvit.load_dataset(f"imagenet-{which}-clean:{root}")
    whole = ipvit.load_dataset(root)
    assert len(data) == 200 and len(whole) == 202
    assert labels_of(data).items() <= labels_of(whole).items()
    assert data.classes == synsets(which) and data.answers == "data" and data.fingerprint != whole.fingerprint
    first = list(whole.ids).index(data.ids[7])
    assert data.read(7).equal(whole.read(first))
    (root / synsets(which)[5]).rename(root / "gone")
    with pytest.raises(InputError, match=f"1 of its 200 classes are not there, such as {synsets(which)[5]}"):
        ipvit.load_dataset(f"imagenet-{which}-clean:{root}")


def test_objectnet_is_mapped_by_its_own_files_and_loses_its_border(tmp_path):
    data = ipvit.load_dataset(f"objectnet:{write_objectnet(tmp_path)}")
    assert set(labels_of(data).values()) == set(OUTPUTS) and len(data) == 6
    aliases = dict(zip(data.classes, data.aliases, strict=True))
    assert aliases == {folder: ",".join(synsets()[output] for output in numbers) for folder, numbers in OUTPUTS.items()}
    assert (data.answers, data.aggregate) == ("data", "max")
    assert "1 classes that ImageNet does not have are left out" in data.notes[-1]
    with Image.open(tmp_path / "objectnet-1.0/images" / data.ids[0]) as picture:
        inner = np.asarray(picture)[2:-2, 2:-2]
    assert np.array_equal(data.read(0).permute(1, 2, 0).numpy(), inner) and data.read(0).shape == (3, 20, 20)


def test_a_mapping_that_is_missing_or_does_not_fit_is_named(tmp_path):
    write_objectnet(tmp_path)
    mappings = tmp_path / "objectnet-1.0/mappings"
    (mappings / "objectnet_to_imagenet_1k.json").write_text(json.dumps({"Banana": "plantain"}))
    with pytest.raises(InputError, match="the mappings do not fit each other: KeyError\\('plantain'\\)"):
        ipvit.load_dataset(f"objectnet:{tmp_path}")
    (mappings / "imagenet_to_label_2012_v2").unlink()
    with pytest.raises(InputError, match="there is no mappings/imagenet_to_label_2012_v2"):
        ipvit.load_dataset(f"objectnet:{tmp_path}")


def test_real_labels_are_found_by_the_images_numbers(tmp_path):
    root = write_validation(tmp_path / "val", [0, 3])
    data = ipvit.load_dataset(root, labels="real")
    numbers = [50 * output + one for output in (0, 3) for one in range(2)]
    assert data.label_sets == [real_labels()[number] for number in numbers]
    assert data.labels.tolist() == [(real_labels()[number] or (-1,))[0] for number in numbers]
    assert published_set(data) == ("imagenet-real", 50_000)
    assert data.fingerprint != ipvit.load_dataset(root).fingerprint
    write_pictures(tmp_path / "other", ["a"])
    with pytest.raises(InputError, match=r"ReaL's labels are of ImageNet's validation images, .* holds 'a/0.jpg'"):
        ipvit.load_dataset(tmp_path / "other", labels="real")
    with pytest.raises(InputError, match="unknown labels 'reel'; known: real"):
        ipvit.load_dataset(root, labels="reel")
