"""The command line: parse, call, print. Commands are imported when they are called."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Sequence

from cyclopts import App, ArgumentCollection, CycloptsError, MissingArgumentError, UnknownOptionError

from ipvit import __version__
from ipvit.core.plugins import OWN_FILE
from ipvit.core.signals import ignore_signals, interrupt_by_signals
from ipvit.errors import CombinedInputError, InputError, closest, did_you_mean, error_line, printable, shown
from ipvit.experiments.registry import BUILT_IN, plugins

EXPERIMENTS = {name: text for name, (_, text) in BUILT_IN.items()}
"""Our experiments, each with a command of its own, and what the help says of it."""

COMMANDS = {
    "demo": (
        "ipvit.commands.measure:demo",
        "Run all experiments on small bundled models; needs no data and no internet.",
    ),
    "run": ("ipvit.commands.measure:run", "Run a study file, or continue it."),
    "play": ("ipvit.commands.play:play", "Change a photo and watch two networks, in a browser, on this computer."),
    "check": (
        "ipvit.commands.scale:check",
        "Estimate time, memory and disk of a study, or of all experiments on a model.",
    ),
    "merge": ("ipvit.commands.scale:merge", "Join the shards of a study into one run folder."),
    "doctor": ("ipvit.commands.doctor:doctor", "Is the set-up right: versions, devices, a network's clean accuracy."),
    "report": ("ipvit.commands.show:report", "Build tables, figures and report.html of a run folder."),
    "profile": ("ipvit.commands.profile:profile", "One row a model, one column a question, with intervals and ranks."),
    "diff": ("ipvit.commands.verdicts.diff:diff", "Two runs or models, image by image: is the second one worse?"),
    "export": ("ipvit.commands.export:export", "A model card of the Hugging Face hub: metadata, table, results."),
    "calibration": (
        "ipvit.commands.verdicts.calibration:calibration",
        "Does a model know when it is wrong?",
    ),
    "missingness": (
        "ipvit.commands.verdicts.missingness:missingness",
        "Does the ranking of models survive what dropped patches become?",
    ),
    "compare": ("ipvit.commands.compare:compare", "Our numbers beside the paper's, or beside published tables."),
    "bundle": ("ipvit.commands.verdicts.bundle:bundle", "One zip file of a run, without images and code, to hand on."),
    "reproduce": ("ipvit.commands.reproduce:reproduce", "Run the study behind a table or figure of the paper."),
    "train": ("ipvit.commands.make:train", "Train a network by a recipe."),
    "stylize": ("ipvit.commands.derived.stylize:stylize", "Copy images in the textures of paintings (section 3.2)."),
    "corrupt": ("ipvit.commands.derived.corrupt:corrupt", "Copy images with ImageNet-C's corruptions, in its layout."),
    "models": ("ipvit.commands.show:models", "List the networks that can be used."),
    "datasets": ("ipvit.commands.show:datasets", "List the kinds of data that can be used."),
    "experiments": ("ipvit.commands.show:experiments", "List the experiments and what each reproduces."),
    "schema": ("ipvit.commands.schema:schema", "Print the JSON schema of study files, recipes, manifests or tables."),
}


_WRONG_PATH = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR})
"""What is wrong about a path that was given, however the disk is."""


def make_app() -> App:
    """Return the command-line application; nothing heavy is imported."""
    app = App(
        name="ipvit",
        help="Measure what a vision backbone really relies on.",
        version=__version__,
        help_format="plaintext",
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        help_epilogue="An experiment of your own: ipvit FILE.py:CLASS --model ... --data ...",
    )
    app.register_install_completion_command(help="Let Tab complete commands and options in this shell.")
    for name, (where, text) in COMMANDS.items():
        app.command(where, name=name, help=text, group="Commands")
    others = {point.name: f"From {point.value.partition(':')[0]}." for point in plugins()}
    for name, text in (EXPERIMENTS | others).items():
        app.command(f"ipvit.commands.experiment:{name.replace('-', '_')}", name=name, help=text, group="Experiments")
    return app


def _check_command(app: App, token: str) -> None:
    """Raise InputError for a word that is no command: cyclopts would import every command to say so."""
    known = [*app]
    if token not in known:
        what = "option" if token.startswith("-") else "command"
        raise InputError(f"there is no {what} {shown(token)}.{did_you_mean(token, known)} See ipvit --help.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    0: done, 1: failed, 2: wrong input, 3: an assertion does not hold, 130: interrupted.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    before, warnings.formatwarning = warnings.formatwarning, warning_line
    asked = tokens[0] if tokens else ""
    app = None
    try:
        if sys.flags.optimize > 1:
            raise InputError("python -OO removes the texts that the charts are made with; use -O, or nothing")
        app = make_app()
        if tokens and OWN_FILE in tokens[0]:
            from ipvit.commands.experiment import add_from_file

            tokens[0] = add_from_file(app, tokens[0])
        if tokens:
            _check_command(app, tokens[0])
        code = app(tokens, exit_on_error=False, print_error=False)
        return _told(code if isinstance(code, int) else 0)
    except InputError as error:
        return _fail(2, *(error.lines if isinstance(error, CombinedInputError) else (str(error),)))
    except MissingArgumentError as error:
        said = (_misspelt(app, tokens) if app else "") or _missing(error, asked)
        return _fail(2, f"{said} Try `ipvit {printable(asked)} --help`.")
    except UnknownOptionError as error:
        said = _unknown(error.token.keyword or error.token.value, error.argument_collection, asked)
        return _fail(2, f"{said} Try `ipvit {printable(asked)} --help`.")
    except CycloptsError as error:
        text = printable(str(error))
        return _fail(2, f"{text}{'' if text.endswith(('.', '?')) else '.'} Try `ipvit {printable(asked)} --help`.")
    except KeyboardInterrupt:
        return _fail(130, "interrupted; what is measured is kept, the same command goes on from there")
    except BrokenPipeError:  # the reader went away, as in `ipvit --help | head`
        _silence()
        return 0
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # as rich ends the process where it prints a help
            return 0
        raise
    except OSError as error:
        return _fail(
            2 if error.errno in _WRONG_PATH else 1,
            f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}",
        )
    except Exception as error:
        if os.environ.get("IPVIT_TRACEBACK"):
            raise
        text = f"{type(error).__name__}: {printable(str(error))}{_limit_of_memory(error)}"
        return _fail(1, f"{text} (IPVIT_TRACEBACK=1 shows where)")
    finally:
        warnings.formatwarning = before


def _missing(error: MissingArgumentError, command: str) -> str:
    """Say which option or argument a command lacks, or which option has no value."""
    name = error.argument.name if error.argument is not None else "an argument"
    given = error.keyword is not None or (error.argument is not None and bool(error.argument.tokens))
    return f"{printable(name)} needs a value." if given else f"{printable(command)} needs {printable(name)}."


def _unknown(given: str, arguments: ArgumentCollection, command: str) -> str:
    """Say which option a command does not have, and which of its own is meant where one is alike."""
    given = given.partition("=")[0]
    known = {name.lstrip("-"): name for one in arguments if one.parse for name in one.names}
    # the dashes, which all have, make no two names alike
    alike = [known[name] for name in closest(given.lstrip("-"), known, 2, likeness=0.7)]
    meant = f" Did you mean {' or '.join(alike)}?" if alike else ""
    return f"{printable(command)} has no option {printable(given)}.{meant}"


def _misspelt(app: App, tokens: Sequence[str]) -> str:
    """Say which long option of a command does not exist: it may be the one that seems to be missing."""
    command, *rest = tokens
    arguments = app[command].assemble_argument_collection()
    names = {name for one in arguments for name in (*one.names, *one.negatives)}
    strange = (token for token in rest if token.startswith("--") and token.partition("=")[0] not in names)
    found = next(strange, "")
    return _unknown(found, arguments, command) if found else ""


def warning_line(
    message: Warning | str,
    category: type[Warning],  # noqa: ARG001 - as Python calls it
    filename: str,
    lineno: int,
    line: str | None = None,  # noqa: ARG001
) -> str:
    """Return a warning of another library, or of the user's code, on one line that says whose it is.

    >>> warning_line("old\\n name", UserWarning, "/usr/lib/python3/site-packages/timm/models/vit.py", 3)
    'ipvit: warning of timm: old name\\n'
    """
    _, inside, below = filename.replace("\\", "/").rpartition("/site-packages/")
    whose = below.partition("/")[0].removesuffix(".py") if inside else f"{filename}, line {lineno}"
    return f"ipvit: warning of {printable(whose)}: {error_line(message, 300)}\n"


def _limit_of_memory(error: Exception) -> str:
    """Return what the user should know where an error may be due to ``ulimit -v``, which no message names."""
    words = ("memory", "map segment", "allocate", "start new thread", "bad_alloc")
    if not isinstance(error, MemoryError) and not any(word in str(error) for word in words):
        return ""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return ""
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most == resource.RLIM_INFINITY:
        return ""
    return f"; this shell lets a process have no more than {most / 1e9:,.1f} GB of memory (ulimit -v), raise that"


def _told(code: int) -> int:
    """Bring what was printed to its reader; one who went away changes nothing."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence()
    except OSError as error:  # a full disk
        _silence()
        raise OSError(error.errno, error.strerror, "standard output") from None
    return code


def _silence() -> None:
    from ipvit.core.terminal import silence

    silence(sys.stdout)


def entry_point() -> None:
    """Run the command line and end the process with its exit code; what ends a process interrupts as Ctrl-C does."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        from ipvit.core.terminal import open_standard_streams

        open_standard_streams()
    interrupt_by_signals()
    try:
        code = main()
    except KeyboardInterrupt:  # once more, while the first one was told of
        code = 130
    ignore_signals()
    sys.exit(code)


def _fail(code: int, *lines: str) -> int:
    with contextlib.suppress(OSError):  # nobody reads it
        for text in lines:
            print(f"ipvit: {printable(text)}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    entry_point()
