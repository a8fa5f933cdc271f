"""Tables for a paper: LaTeX with booktabs, a caption that says what and how many, and no cell that fits no page."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from ipvit.analysis.columns import COMMON, Columns
from ipvit.errors import printable
from ipvit.report.tables.cells import Cell, cells_of, counted, head, side_by_side

LONGEST_CELL = 60
"""Characters of a cell of a paper's table; a column that has longer ones, such as the cells of a map, is left out."""
MOST_ROWS = 40
"""Rows of a table on one page; longer ones break over pages."""
ONE_COLUMN = 52
"""Characters of a row that fit into one of two columns of a page; wider tables go over both."""

_SIGNS = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "ε": r"$\varepsilon$",
    "²": r"$^2$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\to$",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
    "\u00a0": "~",
}
"""What a sign means to TeX, or how it is set without packages."""
_COUNTS = ("n_images", "n_runs", "n_answers")
"""Columns that belong into the caption where all rows have the same value."""


def to_latex(frame: pl.DataFrame, columns: Columns = COMMON, *, title: str = "", name: str = "") -> str:
    r"""Return a LaTeX table for booktabs, levels side by side where there are levels, as papers print them.

    A value with its 95 % interval is ``$80.0_{78.0}^{82.0}$``. The table is a float over one column or, where it is
    wide, over both of a two-column page; one of many rows is a ``longtable``.

    Args:
        frame: the table.
        columns: what is known of its columns.
        title: what it is of, for the caption.
        name: of the table, for its ``\label``.
    """
    table, said = _without_constants(frame)
    grid = side_by_side(frame, columns)
    over = ""
    if grid is None:
        names, rows = cells_of(table, columns)
        names, rows, left_out = _that_fit(names, rows)
        heads = [head(name, columns) for name in names]
        left = next((place for place in range(len(names)) if _is_number(rows, place)), len(names))
        what = title
    else:
        heads, rows, left, left_out = grid.heads, grid.rows, grid.left, []
        over = grid.level
        what = f"{title}: {grid.value} by {grid.level}" if title else f"{grid.value} by {grid.level}"
    intervals = any(ends for row in rows for _, ends in row)
    facts = [counted(frame), *(f"{head(name, columns)}: {value}" for name, value in said.items() if name != "n_images")]
    sentences = [what, ", ".join(filter(None, facts))]
    if intervals:
        sentences.append("small numbers are the ends of 95 % confidence intervals")
    caption = "; ".join(filter(None, sentences))
    return _set(heads, rows, left, over, f"{caption}.", name, left_out)


def _set(
    heads: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    left: int,
    over: str,
    caption: str,
    name: str,
    left_out: Sequence[str],
) -> str:
    """Return the whole text.

    Args:
        heads: of the columns.
        rows: of cells.
        left: how many columns are set flush left.
        over: the head over the other columns; empty for none.
        caption: of the table.
        name: for the label.
        left_out: names of columns that are not shown.
    """
    body = [" & ".join(_cell(*cell) for cell in row) + r" \\" for row in rows]
    top = [" & ".join(_latex(text) for text in heads) + r" \\"]
    if over and len(heads) > left:
        line = f"{' & ' * left}\\multicolumn{{{len(heads) - left}}}{{c}}{{{_latex(over)}}} \\\\"
        top = [line, f"\\cmidrule(l){{{left + 1}-{len(heads)}}}", *top]
    preamble = f"@{{}}{'l' * left}{'r' * (len(heads) - left)}@{{}}"
    caption, label = (
        f"\\caption{{{_latex(caption)}}}",
        f"\\label{{tab:{re.sub(r'[^a-zA-Z0-9-]+', '-', name) or 'table'}}}",
    )
    needs = "booktabs"
    if len(rows) > MOST_ROWS:
        needs += ",longtable"
        lines = [
            f"\\begin{{longtable}}{{{preamble}}}",
            f"{caption}{label} \\\\",
            "\\toprule",
            *top,
            "\\midrule",
            "\\endfirsthead",
            "\\toprule",
            *top,
            "\\midrule",
            "\\endhead",
            "\\bottomrule",
            "\\endfoot",
            *body,
            "\\end{longtable}",
        ]
    else:
        widest = max((_length(row) for row in ([(text, "") for text in heads], *rows)), default=0)
        kind = "table" if widest <= ONE_COLUMN else "table*"
        lines = [
            f"\\begin{{{kind}}}",
            "\\centering\\small",
            caption,
            label,
            f"\\begin{{tabular}}{{{preamble}}}",
            "\\toprule",
            *top,
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
            f"\\end{{{kind}}}",
        ]
    notes = [f"% needs \\usepackage{{{needs}}}"]
    if left_out:
        listed = ", ".join(_latex(name) for name in left_out)
        notes.append(f"% left out, as its cells are too long for a page: {listed}; the CSV file has it")
    return "\n".join([*notes, *lines]) + "\n"


def _without_constants(frame: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, str]]:
    """Return the table without counts that are the same in all rows, and these counts as text."""
    same = [name for name in _COUNTS if name in frame.columns and frame.height and frame[name].n_unique() == 1]
    found = {name: f"{frame[name][0]:,}" for name in same if isinstance(frame[name][0], int)}
    if found.get("n_runs") == "1":
        del found["n_runs"]
    return frame.drop(same), found


def _that_fit(names: Sequence[str], rows: Sequence[Sequence[Cell]]) -> tuple[list[str], list[list[Cell]], list[str]]:
    """Return the columns whose cells fit a page, their cells, and the names of the others."""
    places = [
        place for place in range(len(names)) if max((len(row[place][0]) for row in rows), default=0) <= LONGEST_CELL
    ]
    kept = [names[place] for place in places]
    return kept, [[row[place] for place in places] for row in rows], [name for name in names if name not in kept]


def _is_number(rows: Sequence[Sequence[Cell]], place: int) -> bool:
    cells = [row[place][0] for row in rows if row[place][0]]
    return bool(cells) and all(re.match(r"[+-]?[\d.]", cell) for cell in cells)


def _length(row: Sequence[Cell]) -> int:
    """Return how many characters a row is wide; the two ends of an interval are small and above each other."""
    return sum(len(value) + (4 if ends else 0) + 2 for value, ends in row)


def _cell(value: str, ends: str) -> str:
    if not ends:
        return _latex(value)
    low, high = ends.strip("[]").split(", ")
    return f"${value}_{{{low}}}^{{{high}}}$"


def _latex(text: str) -> str:
    """Return text for TeX: every sign shows as itself, and what pdfTeX cannot set is named by its number."""
    shown = re.sub(r"[\\{}&%$#_^~<>|]|[^\x00-\x7f]", _sign, printable(text))
    shown = shown.replace("--", "-{}-")
    # after a line's end TeX takes [ and * for an argument of it
    return f"{{{shown[0]}}}{shown[1:]}" if shown[:1] in ("[", "*") else shown


def _sign(match: re.Match[str]) -> str:
    sign = match[0]
    if sign in _SIGNS:
        return _SIGNS[sign]
    if sign.isascii():
        return f"\\{sign}"
    latin = "\u00c0" <= sign <= "\u017e" and sign.isalpha()  # letters with accents
    return sign if latin and sign not in "ÐðÞþ" else f"[U+{ord(sign):04X}]"
