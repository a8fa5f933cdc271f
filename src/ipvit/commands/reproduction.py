"""Measures the parts of a reproduction one after the other, and compares with the paper after each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ipvit.api import run_study
from ipvit.commands.compare import show, together
from ipvit.commands.measure import complain, print_failure, print_tables, tell_faults
from ipvit.commands.paper_studies import PaperStudy, StudyPart
from ipvit.commands.preflight import Sources, ready_parts
from ipvit.core.files import is_of_the_disk
from ipvit.core.run_config import RunConfig
from ipvit.core.terminal import Terminal
from ipvit.engine.distributed import ProcessGroup, launched
from ipvit.engine.manifest import read_manifest
from ipvit.errors import InputError, error_line
from ipvit.report import write_table
from ipvit.report.comparison import FILE
from ipvit.results import Run
from ipvit.run_collection import RunCollection

if TYPE_CHECKING:
    import polars as pl

    from ipvit.engine.study import Study


@dataclasses.dataclass(frozen=True)
class PlacedPart:
    """A part of a study and the folder of its run."""

    study: PaperStudy
    part: StudyPart
    out: Path


class Reproduction:
    """The studies behind tables and figures, in one folder. Run it again after an interruption: it goes on.

    Args:
        studies: what is reproduced.
        out: the folder; a study of one part alone is a run folder, several parts have run folders in it.
        config: the options of all runs.
    """

    def __init__(self, studies: Sequence[PaperStudy], out: Path, config: RunConfig) -> None:
        self.out, self.config = out, config
        self.studies = studies
        self.parts = list(_placed(studies, out))
        self._runs: dict[int, Run] = {}
        self._failures: dict[int, str] = {}

    def run(self, sources: Sources, *, partial: bool, json: bool, quiet: bool = False) -> int:
        """Measure everything, and compare; return the exit code.

        Under ``torchrun`` all processes call it, and the first one tells.

        Args:
            sources: where data and weights are.
            partial: leave out what something is missing for.
            json: print the comparison as JSON, nothing else.
            quiet: print failures and warnings, and the comparison, nothing else.

        Raises:
            CombinedInputError: data or weights are missing; raised before anything is measured.
        """
        parts = [placed.part for placed in self.parts]
        with launched() as group:
            ready, left_out = group.main_process_first(
                lambda: ready_parts(parts, sources, self.config, partial=partial)
            )
            group.assert_same_on_all_ranks("data and weights", [*ready])
            code = 0
            for number, study in ready.items():
                code |= self._measure(number, study, group, json=json, quiet=quiet)
                if group.is_main_process:
                    self._write(ready)
        if not group.is_main_process:
            return 0
        if not self._runs:
            return 1  # every part has said why it failed
        table, notes = self._compared(list(self._runs.values()))
        failed = [f"{self.parts[number].out.name} failed: {error}" for number, error in self._failures.items()]
        said = [*(f"left out: {line}" for line in left_out), *failed, *notes]
        show(table, said, everything=False, json=json, folder=self.out)
        return code

    def _measure(self, number: int, study: Study, group: ProcessGroup, *, json: bool, quiet: bool) -> int:
        """Measure a part; what it fails with is kept, and the others go on."""
        placed = self.parts[number]
        try:
            results = run_study(study, placed.out)
            if not group.is_main_process:
                return 0
            results.report()  # before anything is printed: whoever reads that may go away
            if not json and not quiet:
                if len(self.parts) > 1:
                    Terminal().print(f"{placed.study.title}: {placed.out.name}", style="bold", highlight=False)
                print_tables(results)
            self._runs[number] = results
            made = tell_faults(results)
            return 1 if complain(results, quiet=quiet) or not made else 0
        except SystemExit:  # the first process says why this part cannot be measured
            return 1
        except Exception as error:
            # the other processes would wait for this one, and on a full disk nothing more can be written
            refused = isinstance(error, InputError)
            if is_of_the_disk(error) or (group.size > 1 and not refused):
                raise
            self._runs.pop(number, None)
            self._failures[number] = error_line(error, 600, named=not refused)
            more = ", the others go on" if len(self.parts) > 1 else ""
            print_failure(f"{placed.out.name} failed{more}: {self._failures[number]}")
            return 1

    def _write(self, ready: dict[int, Study]) -> None:
        """Write comparison and report of what is measured: by this call, or by one before that was interrupted."""
        if self.config.effective_shard.count > 1:  # a part of the images; the whole is compared after merging
            return
        for number in ready.keys() - self._runs.keys() - self._failures.keys():
            if _is_finished(out := self.parts[number].out):
                self._runs[number] = Run(out)  # until this call comes to it
        runs = [self._runs[number] for number in sorted(self._runs)]
        if not runs:
            return
        table, _ = self._compared(runs)
        write_table(table, self.out / FILE)
        if len(self.parts) > 1:
            RunCollection(self.out, runs).report()

    def _compared(self, runs: Sequence[Run]) -> tuple[pl.DataFrame, list[str]]:
        """Return the numbers of these studies, and those of others that the runs also hold."""
        import polars as pl

        table, notes = together(runs)
        wanted = [target for study in self.studies for target in study.targets]
        table = table.filter(pl.col("target").is_in(wanted) | pl.col("ours").is_not_null())
        unread = [study.name.replace("-", " ") for study in self.studies if not study.targets]
        if unread:
            notes.append(
                f"The paper's values cannot be read for {', '.join(unread)}; numbers of other tables and figures that "
                "these runs also hold are compared under their names."
            )
        return table, notes


def _placed(studies: Sequence[PaperStudy], out: Path) -> Iterator[PlacedPart]:
    """Yield the parts of all studies, each with a folder that no other has."""
    names = [part.name for study in studies for part in study.parts]
    for study in studies:
        for part in study.parts:
            name = part.name
            if names.count(name) > 1 and name != study.name:
                name = f"{study.name}-{name}"
            yield PlacedPart(study, part, out / name if len(names) > 1 else out)


def _is_finished(out: Path) -> bool:
    manifest = read_manifest(out)
    return manifest is not None and manifest.status in ("done", "failed")
