"""What commands do with assertions: check the names first, decide at the end, tell, and return the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ipvit.commands.options import AssertOptions
from ipvit.core.terminal import Terminal
from ipvit.errors import InputError
from ipvit.verdicts.grammar import Assertion, read

if TYPE_CHECKING:
    from ipvit.engine.study import Study
    from ipvit.results import Run
    from ipvit.run_collection import RunCollection
    from ipvit.verdicts.deciding import Decided
    from ipvit.verdicts.sides import Side

FAILED = 3
"""Exit code where an assertion does not hold."""


class Asserted:
    """The assertions of one call.

    Args:
        options: of the command line.

    Attributes:
        decided: what was decided, once it was.

    Raises:
        InputError: an assertion cannot be read.
    """

    def __init__(self, options: AssertOptions | None) -> None:
        options = options or AssertOptions()
        self.assertions: tuple[Assertion, ...] = read(options.asserted or [])
        self._junit = options.junit
        self._references: dict[str, Side] = {}
        self.decided: list[Decided] = []
        if self._junit is not None and not self.assertions:
            raise InputError("--junit writes one case an assertion; give --assert too")

    def check(self, study: Study) -> None:
        """Check the names before anything is measured.

        Raises:
            InputError: one is none of the study's, or the study is one shard of several.
        """
        if not self.assertions:
            return
        from ipvit.verdicts.checking import check_planned

        if study.effective_shard.count > 1:
            raise InputError(
                "--assert is for whole runs, --shard measures a part; join the shards, then ipvit report DIR --assert"
            )
        self._references = check_planned(self.assertions, [one.experiment for one in study.make_experiments()])

    def decide(self, results: Run | RunCollection) -> None:
        """Decide, and write the JUnit file.

        Raises:
            InputError: a name is none of the results', or a run cannot be compared with.
        """
        if self.assertions:
            from ipvit.verdicts.deciding import decide

            self.decided = decide(self.assertions, results, self._references)
            if self._junit is not None:
                from ipvit.verdicts.junit import write_junit

                write_junit(self._junit, self.decided)

    def as_json(self) -> dict[str, Any]:
        """Return what is added to the JSON of a command."""
        return {"assertions": [one.as_json() for one in self.decided]} if self.decided else {}

    def tell(self, *, json: bool = False, quiet: bool = False) -> None:
        """Print what decided; on standard error where standard output is for something else."""
        console = Terminal(stderr=json or quiet)
        for one in self.decided:
            if one.holds and quiet:
                continue
            word, style = ("holds", "green") if one.holds else ("does not hold", "red")
            console.print(f"{word}: {one.assertion.text}: {one.why}", style=style, highlight=False, soft_wrap=True)
            for row in one.rows if len(one.rows) > 1 else ():
                console.print(f"  {row}", highlight=False, soft_wrap=True)

    def code(self, otherwise: int) -> int:
        """Return the exit code: 3 where one does not hold, else another one."""
        return FAILED if failing(self.decided) else otherwise


def failing(decided: Sequence[Decided]) -> list[Decided]:
    """Return the assertions that do not hold."""
    return [one for one in decided if not one.holds]
