"""Text files in other encodings and with other dividers are read where that is safe, else refused with their line."""

import unicodedata

import pytest
from PIL import Image

import ipvit
from ipvit.core.text.text_files import read_text
from ipvit.core.yaml_files import read_mapping
from ipvit.errors import InputError

NAMES = ["café", "Zürich"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_that_tell_themselves_are_read(tmp_path, encoding):
    text = "plain\r\nlines\nof words\n" if encoding in ("utf-16-le", "utf-16-be") else "é\r\nü\n"
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert read_text(tmp_path / "a.txt") == text.replace("\r\n", "\n")


def test_latin_letters_are_refused_with_file_line_and_encoding(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("one\ntwo\ncafé\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"a\.txt', line 3: not a text file in UTF-8 \(byte 0xe9\); .*Latin-1: save"):
        read_text(path)
    path.write_bytes(b"one\n\0\0")
    with pytest.raises(InputError, match="line 2: not a text file"):
        read_text(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("divider", ["\t", ",", ", ", ";", "=", " = ", ": ", " "])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_list_of_classes_is_read_in_any_encoding_that_finds_the_folders(tmp_path, encoding, divider, form):
    for name in NAMES:
        folder = tmp_path / unicodedata.normalize(form, name)
        folder.mkdir()
        Image.new("RGB", (8, 8)).save(folder / "a.png")
    lines = [f"{name}{divider}{second}\n" for name, second in zip(reversed(NAMES), ["a town", "a place"], strict=True)]
    (tmp_path / "classes.txt").write_bytes("".join(lines).encode(encoding))
    data = ipvit.load_dataset(tmp_path)
    assert [unicodedata.normalize("NFC", name) for name in data.classes] == NAMES[::-1]
    assert data.aliases == ("a town", "a place")
    assert sorted(data.labels.tolist()) == [0, 1]


def test_folders_with_spaces_are_names_as_a_whole(tmp_path):
    for name in ("red fox", "red"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    (tmp_path / "classes.txt").write_text("red fox\nred\n")
    assert ipvit.load_dataset(tmp_path).classes == ("red fox", "red")
    (tmp_path / "classes.txt").write_text("red fox\nred\nred\n")
    with pytest.raises(InputError, match=r"line 3: the folder 'red' is listed twice, first in line 2"):
        ipvit.load_dataset(tmp_path)


def test_a_study_may_begin_with_a_mark_and_says_its_line_where_it_is_not_unicode(tmp_path):
    path = tmp_path / "study.yaml"
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_bytes("data: images\n".encode(encoding))
        assert read_mapping(path, "study", "keys") == {"data": "images"}
    path.write_bytes("data: images\nout: café\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"the study '.*study.yaml', line 2: not a text file in UTF-8"):
        read_mapping(path, "study", "keys")


def test_classes_in_two_spellings_of_one_letter_are_one_class():
    from ipvit.data.labels import map_classes

    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert map_classes([apart], None, ["tea", composed], data_name="d", model_name="m").tolist() == [1]
