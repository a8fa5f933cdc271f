"""One sentence that answers an experiment's question for each model: what a perturbation leaves, and whether it does.

A tie is told as a tie: a change that the interval of retained accuracy does not tell from none is no fall, and of a
model that is not above chance on images as they are nothing is said.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from ipvit.analysis.perturbed import CHANCE, RETAINED
from ipvit.analysis.sentences import ends, is_missing

MOST_NAMED = 6
"""Models that a sentence names one by one; of more it names the ends."""

_NUMBERS = {2: "both", 3: "all three", 4: "all four", 5: "all five", 6: "all six"}


@dataclasses.dataclass(frozen=True)
class Fall:
    """What a perturbation leaves of one model's accuracy.

    Attributes:
        who: the model, and what else tells the row from others.
        clean: accuracy on images as they are, in per cent; None where it was not measured.
        left: accuracy under the perturbation, in per cent; None where it was not measured.
        above_chance: whether the clean accuracy is above chance; None where nobody knows.
        changed: whether the interval of what is retained excludes all of it; None where there is no interval.
        guesses: whether the interval of what is left contains chance; None where nobody knows.
        chance: what guessing gives, in per cent; None where nobody knows.
        note: what is said behind the number, in brackets.
        retained: what is retained, with its interval, as text; empty where there is no value, or one of several rows.
    """

    who: str
    clean: float | None
    left: float | None
    above_chance: bool | None = None
    changed: bool | None = None
    guesses: bool | None = None
    chance: float | None = None
    note: str = ""
    retained: str = ""

    @classmethod
    def of(cls, who: str, clean: Mapping[str, Any] | None, row: Mapping[str, Any], note: str = "") -> Fall:
        """Return it from two rows of a table with ``top1`` and what is retained."""
        return cls.over(who, clean, [row], note)

    @classmethod
    def over(cls, who: str, clean: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]], note: str = "") -> Fall:
        """Return it from several rows, such as corners: the mean; changed where all are, guessing where all are."""
        values = [row["top1"] for row in rows if not is_missing(row["top1"])]
        chance = rows[0].get(CHANCE) if rows else None
        start = None if clean is None or is_missing(clean["top1"]) else clean["top1"]
        above = None
        if chance is not None and clean is not None and not is_missing(clean.get("top1_low")):
            above = bool(clean["top1_low"] > chance)
        return cls(
            who,
            start,
            sum(values) / len(values) if values and len(values) == len(rows) else None,
            above,
            _all_hold(rows, RETAINED, lambda low, high: not low <= 100 <= high),
            None if chance is None else _all_hold(rows, "top1", lambda low, high: bool(low <= chance <= high)),
            chance,
            note,
            _retained(rows),
        )

    @property
    def verb(self) -> str:
        """What the accuracy does: ``falls``, ``rises`` or ``stays``."""
        if self.clean is None or self.left is None or percent(self.clean) == percent(self.left):
            return "stays"
        if self.changed is False:
            return "stays"
        return "falls" if self.left < self.clean else "rises"


def _all_hold(rows: Sequence[Mapping[str, Any]], name: str, holds: Callable[[float, float], bool]) -> bool | None:
    """Tell whether something holds of the interval of a column in every row; None where a row has no interval."""
    found = [(row.get(f"{name}_low"), row.get(f"{name}_high")) for row in rows]
    known = [(low, high) for low, high in found if low is not None and high is not None]
    if not known or len(known) < len(rows) or any(is_missing(end) for both in known for end in both):
        return None
    return all(holds(low, high) for low, high in known)


def percent(value: float) -> str:
    """Return a percentage without decimals, with one where it would look like nothing or all and is not.

    >>> percent(56.7), percent(98.5), percent(99.8), percent(100.0), percent(0.2)
    ('57 %', '99 %', '99.8 %', '100 %', '0.2 %')
    """
    rounded = f"{math.floor(value + 0.5):.0f}" if math.isfinite(value) else f"{value}"
    return f"{value:.1f} %" if rounded in ("0", "100") and value not in (0, 100) else f"{rounded} %"


def told(falls: Sequence[Fall], where: str) -> str:
    """Return one sentence about all models; about a single one the exact sentence.

    Args:
        falls: of each model.
        where: under which perturbation, as the end of a clause: ``with half of the patches dropped``.

    >>> told([Fall("a", 99.0, 10.2), Fall("b", 98.6, 10.4)], "in a corner")
    'Both fall from 99 % to 10 % in a corner.'
    >>> told([Fall("a", 99.0, 50.0), Fall("b", 98.6, 10.4)], "in a corner")
    'In a corner, a falls from 99 % to 50 %, b from 99 % to 10 %.'
    >>> told([Fall("a", 99.0, 50.0)], "in a corner")
    'a falls from 99.0 % to 50.0 % in a corner.'
    >>> told([Fall("a", 12.0, 10.0, above_chance=False, chance=10.0)], "in a corner")
    'a cannot be told from guessing (10 %) on images as they are (12 %): what it loses in a corner says nothing.'
    """
    if len(falls) == 1 and None not in (falls[0].left, falls[0].clean) and falls[0].above_chance is not False:
        return told_exactly(falls[0], where)
    moved = [fall for fall in falls if fall.left is not None and fall.above_chance is not False]
    verbs = list(dict.fromkeys(fall.verb for fall in moved))
    alone = len(verbs) == 1 and len(moved) == len(falls) and (len(moved) == 1 or _alike(moved))
    clauses = [_clause(verb, [fall for fall in moved if fall.verb == verb], len(falls)) for verb in verbs]
    said = f"{'; '.join(clauses)} {where}" if alone else f"{where}, {'; '.join(clauses)}" if clauses else ""
    guessing = [fall for fall in moved if fall.guesses and fall.verb == "falls"]
    if guessing:
        said += f" (guessing gives {percent(guessing[0].chance or 0)})"
    parts = [said] if said else []
    parts += _guessing_before([fall for fall in falls if fall.left is not None and fall.above_chance is False], where)
    missing = [fall.who for fall in falls if fall.left is None]
    if missing:
        parts.append(f"{joined_names(missing)} {'has' if len(missing) == 1 else 'have'} no result {where}")
    return capitalised("; ".join(parts), [fall.who for fall in falls]) + "." if parts else ""


def _guessing_before(falls: Sequence[Fall], where: str) -> list[str]:
    """Say of which models nothing is learnt, as they cannot be told from guessing on images as they are."""
    if not falls:
        return []
    chance = percent(falls[0].chance or 0)
    if len(falls) == 1:
        (fall,) = falls
        higher = (fall.clean or 0) > (fall.chance or 0)
        verb = "cannot be told from guessing" if higher else "is not above chance"
        clean = percent(fall.clean or 0)
        return [f"{fall.who} {verb} ({chance}) on images as they are ({clean}): what it loses {where} says nothing"]
    who = joined_names([fall.who for fall in falls])
    same = chance if len({fall.chance for fall in falls}) == 1 else "of each"
    return [f"{who} cannot be told from guessing ({same}) on images as they are: what they lose {where} says nothing"]


def told_exactly(fall: Fall, where: str) -> str:
    """Return one sentence about one model, with a decimal and with what is retained where that is known.

    >>> told_exactly(Fall("a", 99.0, 50.0, retained="44.9 % [30.0, 60.0]"), "in a corner")
    'a falls from 99.0 % to 50.0 % in a corner: it retains 44.9 % [30.0, 60.0] of its accuracy above chance.'
    """
    if fall.left is None or fall.clean is None or fall.above_chance is False:
        return told([fall], where)
    note = f" ({fall.note})" if fall.note else ""
    start, left = f"{fall.clean:.1f} %", f"{fall.left:.1f} %"
    words = {
        "falls": f"falls from {start} to {left}",
        "rises": f"rises from {start} to {left}",
        "stays": f"stays at {left}" if start == left else f"is at {start} and then {left}, within its error,",
    }[fall.verb]
    if fall.verb == "stays" and fall.changed is not False and start != left:
        words = f"{'falls' if fall.left < fall.clean else 'rises'} from {start} to {left}"
    kept = f": it retains {fall.retained} of its accuracy above chance" if fall.retained else ""
    guessing = f" (guessing gives {fall.chance:.1f} %)" if fall.guesses and fall.chance is not None else ""
    return f"{fall.who} {words}{note}{guessing} {where}{kept}."


def _retained(rows: Sequence[Mapping[str, Any]]) -> str:
    if len(rows) != 1 or is_missing(rows[0].get(RETAINED)):
        return ""
    return f"{rows[0][RETAINED]:z.1f} %{ends(rows[0], RETAINED, 1)}"


def joined_names(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """Return names as a list for a sentence; of many only how many more there are.

    >>> joined_names(["a"]), joined_names(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


def each(values: Sequence[tuple[str, float, str]], most: int = MOST_NAMED) -> str:
    """Return a number of each model; of many models only the two ends.

    Args:
        values: model, value and the value as text.
        most: models that are named.

    >>> each([("a", 1.0, "1 %"), ("b", 2.0, "2 %")])
    'a 1 %, b 2 %'
    """
    if len(values) <= most:
        return ", ".join(f"{who} {shown}" for who, _, shown in values)
    least, largest = min(values, key=lambda v: v[1]), max(values, key=lambda v: v[1])
    return f"from {least[0]} {least[2]} to {largest[0]} {largest[2]} in {len(values)} models"


def capitalised(text: str, names: Sequence[str] = ()) -> str:
    """Return a sentence with a capital, unless it begins with one of some names, which are written as they are."""
    return text if any(text.startswith((f"{name} ", f"{name}:")) for name in names) else text[:1].upper() + text[1:]


def areas_told(
    tables: Mapping[str, pl.DataFrame], name: str, over: str, settings: Sequence[str] = (), *, shares: bool = False
) -> str:
    """Return one sentence about the areas under the curves of what is retained; empty where there are none.

    Areas over other levels than those of most models are named as such, and not set beside the others.

    Args:
        tables: of an experiment.
        name: of the experiment.
        over: what the levels are, in words.
        settings: columns that tell curves of one model apart, beside those that the table has.
        shares: levels are shares, and said in per cent.
    """
    table = tables.get(f"{name}-area", pl.DataFrame())
    if table.is_empty():
        return ""
    places = [c for c in table.columns[1 : table.columns.index("levels")] if c in settings or not settings]
    parts: list[str] = []
    for key, rows in table.group_by([*places, "levels"], maintain_order=True) if places else table.group_by("levels"):
        values = [
            (str(row["model"]), row["area_retained"], f"{row['area_retained']:z.0f} %{ends(row, 'area_retained', 0)}")
            for row in rows.to_dicts()
            if not is_missing(row["area_retained"])
        ]
        if values:
            levels = [_level(text, shares=shares) for text in str(key[-1]).split()]
            place = "".join(f"{part}, " for part in key[:-1] if part not in (None, ""))
            parts.append(f"{place}{over} {levels[0]} to {levels[-1]}: {each(values)}")
    start = "Retained of the accuracy above chance, as the area under the curve"
    return f"{start}{': ' if len(parts) > 1 else ' '}{'; '.join(parts)}." if parts else ""


def _level(text: str, *, shares: bool) -> str:
    return f"{100 * float(text):.0f} %" if shares else text


def _alike(falls: Sequence[Fall]) -> bool:
    """Tell whether the same is said of all models."""
    said = {(fall.verb, percent(fall.clean or 0), percent(fall.left or 0), fall.note) for fall in falls}
    return len(said) == 1


def _clause(verb: str, falls: Sequence[Fall], of: int) -> str:
    """Return what is said of the models of which one verb is true."""
    first = falls[0]
    if len(falls) > 1 and _alike(falls):
        who = _NUMBERS.get(of, f"all {of} models") if len(falls) == of else joined_names([fall.who for fall in falls])
        plain = {"falls": "fall", "rises": "rise", "stays": "stay"}[verb]
        return f"{who} {_moved(first, plain)}"
    if len(falls) > MOST_NAMED:
        least, most = (pick(falls, key=lambda fall: fall.left or 0) for pick in (min, max))
        verbs = {"falls": "fall to", "rises": "rise to", "stays": "change within their errors, to"}[verb]
        ends_of = f"{percent(least.left or 0)} ({least.who}) and {percent(most.left or 0)} ({most.who})"
        return f"{len(falls)} models {verbs} between {ends_of}"
    rest = [f"{fall.who} {_moved(fall, '')}" for fall in falls[1:]]
    return ", ".join([f"{first.who} {_moved(first, verb)}", *rest])


def _moved(fall: Fall, verb: str) -> str:
    """Return what one accuracy does; without a verb where the sentence has it already."""
    note = f" ({fall.note})" if fall.note else ""
    left = percent(fall.left or 0)
    if fall.clean is None:
        words = f"{'is' if verb.endswith('s') else 'are'} at {left}" if verb else f"at {left}"
    elif fall.verb != "stays":
        words = f"{verb} from {percent(fall.clean)} to {left}"
    elif percent(fall.clean) == left:
        words = f"{verb} at {left}"
    else:
        be, whose = ("are", "their") if verb == "stay" else ("is" if verb else "", "its")
        words = f"{be} at {percent(fall.clean)} and then {left}, a difference within {whose} error"
    return words.strip() + note
