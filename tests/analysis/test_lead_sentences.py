"""What one sentence says of many models: together where it is the same, apart where it is not."""

from __future__ import annotations

import pytest

from ipvit.analysis.answers import Fall, each, joined_names, percent, told, told_exactly


def fall(who: str, clean: float | None, left: float | None, **more) -> Fall:
    return Fall(who, clean, left, **more)


@pytest.mark.parametrize(
    ("falls", "expected"),
    [
        ([fall("a", 99, 10), fall("b", 99, 10)], "Both fall from 99 % to 10 % in a corner."),
        ([fall("a", 99, 10), fall("b", 99, 10), fall("c", 99, 10)], "All three fall from 99 % to 10 % in a corner."),
        ([fall("a", 50, 50)], "a stays at 50.0 % in a corner."),
        ([fall("a", 50, 70)], "a rises from 50.0 % to 70.0 % in a corner."),
        ([fall("a", None, 70)], "a is at 70 % in a corner."),
        ([fall("a", 90, None)], "a has no result in a corner."),
        (
            [fall("a", 90, 40), fall("b", 90, None)],
            "In a corner, a falls from 90 % to 40 %; b has no result in a corner.",
        ),
        ([fall("a", 90, 40), fall("b", 90, 90)], "In a corner, a falls from 90 % to 40 %; b stays at 90 %."),
        ([fall("a", 90, 88, changed=False)], "a is at 90.0 % and then 88.0 %, within its error, in a corner."),
        ([fall("a", 99.8, 0.2)], "a falls from 99.8 % to 0.2 % in a corner."),
        ([], ""),
    ],
)
def test_a_sentence_says_no_more_than_the_numbers(falls, expected):
    assert told(falls, "in a corner") == expected


def test_a_name_is_written_as_it_is_and_any_other_beginning_with_a_capital():
    assert told([fall("both_nets", 90, 40), fall("b", 90, 40)], "there").startswith("Both fall")
    assert told([fall("resnet", 90, 40)], "there").startswith("resnet falls")


def test_of_many_models_only_the_ends_are_named():
    said = told([fall(f"m{n}", 90, 10 * n + 5) for n in range(7)], "there")
    assert said == "There, 7 models fall to between 5 % (m0) and 65 % (m6)."
    assert each([(f"m{n}", float(n), f"{n} %") for n in range(7)]) == "from m0 0 % to m6 6 % in 7 models"
    assert joined_names([f"m{n}" for n in range(8)]) == "m0, m1, m2, m3, m4 and 3 more"


def test_a_single_model_is_told_with_a_decimal_and_what_it_retains():
    kept = fall("a", 95.0, 56.7, changed=True, retained="54.9 % [42.3, 69.5]")
    assert told_exactly(kept, "there") == (
        "a falls from 95.0 % to 56.7 % there: it retains 54.9 % [42.3, 69.5] of its accuracy above chance."
    )
    guessing = fall("a", 12.0, 10.0, above_chance=False, chance=10.0, retained="")
    assert "says nothing" in told_exactly(guessing, "there")


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0 %"), (0.4, "0.4 %"), (99.6, "99.6 %"), (99.4, "99 %"), (100.0, "100 %")]
)
def test_almost_nothing_is_not_nothing_and_almost_all_not_all(value, shown):
    assert percent(value) == shown
