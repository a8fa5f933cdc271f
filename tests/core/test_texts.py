"""Texts in one block of memory are as good as a list of them."""

from __future__ import annotations

import pickle

import polars as pl
import pytest

from ipvit.core.text.texts import Texts
from ipvit.data.dataset import fingerprint

PATHS = ["cat/1.jpg", "", "dog/é.jpg", "raw/\udcff.png", "日本/二.png", *(f"many/{i}.jpg" for i in range(9000))]


def test_texts_are_those_that_were_put_in():
    texts = Texts(iter(PATHS))
    assert list(texts) == PATHS
    assert [texts[place] for place in range(len(PATHS))] == PATHS
    assert texts[-1] == PATHS[-1]
    assert texts[1:7:2] == PATHS[1:7:2] and texts[::-1] == PATHS[::-1]
    assert texts.index("dog/é.jpg") == 2 and "many/17.jpg" in texts and "none" not in texts
    assert dict(zip(texts, range(3), strict=False)) == {"cat/1.jpg": 0, "": 1, "dog/é.jpg": 2}


@pytest.mark.parametrize("place", [3, -4])
def test_there_are_no_texts_beyond_the_last(place):
    with pytest.raises(IndexError, match="of 3"):
        Texts(["a", "b", "c"])[place]


def test_they_equal_lists_and_other_texts_of_the_same_content():
    texts = Texts(PATHS)
    assert texts == PATHS and texts == PATHS and texts == Texts(PATHS) and texts == tuple(PATHS)
    assert texts != PATHS[:-1] and texts != [*PATHS[:-1], "other"] and texts != 1
    assert Texts(["ab", "c"]) != Texts(["a", "bc"])
    assert Texts([]) == [] and not Texts([])


def test_data_of_such_ids_have_the_fingerprint_that_a_list_gives():
    assert fingerprint("folder", Texts(PATHS), 1) == fingerprint("folder", PATHS, 1)


def test_polars_takes_them_as_a_column():
    assert pl.Series("image", Texts(PATHS[:3])).to_list() == PATHS[:3]


def test_they_take_their_letters_and_nine_bytes_each_also_on_the_way_to_another_process():
    data = pickle.dumps(Texts(PATHS))
    assert pickle.loads(data) == PATHS  # noqa: S301 - written above
    assert len(data) < sum(len(path.encode("utf-8", "surrogatepass")) for path in PATHS) + 9 * len(PATHS) + 500


def test_they_know_whether_all_of_them_can_be_written():
    assert Texts(["a", "é", "日本"]).are_unicode and Texts([]).are_unicode
    assert not Texts(["a", "raw/\udcff.png"]).are_unicode


@pytest.mark.parametrize("texts", [PATHS, ["it's.jpg"], ["a\\b"], ["tab\t"], ['say "x"'], ["plain.jpg", "two.jpg"], []])
def test_what_is_written_of_them_together_is_what_python_writes_for_each(texts):
    assert b"".join(Texts(texts).as_written()) == b"".join(
        repr(t).encode("utf-8", "surrogatepass") + b"\0" for t in texts
    )


def test_their_digests_are_their_own_wherever_they_stand():
    digests = Texts(PATHS).digests()
    assert len(set(digests.tolist())) == len(PATHS)
    assert Texts(PATHS[::-1]).digests().tolist() == digests[::-1].tolist()
    assert len(set(Texts(["ab", "ba", "a", "b", "a\0", "\0a", ""]).digests().tolist())) == 7


def test_some_of_their_digests_are_those_of_all():
    texts = Texts(PATHS)
    assert texts.digests(3, 5000).tolist() == texts.digests()[3:5000].tolist()
    assert texts.digests(8000, 20_000).tolist() == texts.digests()[8000:].tolist()


def test_texts_with_zeros_in_them_are_not_cut():
    texts = Texts(["a\0b", "", "\0", "c"])
    assert list(texts) == ["a\0b", "", "\0", "c"] and texts[2] == "\0"
    assert b"".join(texts.as_written()) == b"'a\\x00b'\0''\0'\\x00'\0'c'\0"
    assert fingerprint(texts) == fingerprint(["a\0b", "", "\0", "c"])


def test_the_digest_of_all_is_that_of_what_is_in_them_and_in_what_order():
    digests = [Texts(some).digest() for some in (["a", "b"], ["b", "a"], ["ab"], ["a"], [])]
    assert len(set(digests)) == 5 and Texts(iter(["a", "b"])).digest() == digests[0]
