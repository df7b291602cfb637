"""What all commands share: how they fail, how they print JSON, the options that several of them have."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from copy import copy
from typing import Any

import click

from embedcache.commands.process import prepare_command, prepare_process, prepare_streams
from embedcache.commands.types import CommaList, JournalName, NumberInRange
from embedcache.common import packages
from embedcache.common.screen import one_line
from embedcache.encoder.poolings import MODEL, POOLINGS
from embedcache.errors import EmbedcacheError, InputNote
from embedcache.tables.limits import TEXT_MB, text_limit

COUNT = NumberInRange(int, 1)
NAMES = CommaList()


class Commands(click.Group):
    """Turns every failure into one line on stderr: exit 1 for failed work, 2 for wrong usage, no traceback.

    130 after Ctrl-C, 143 after SIGTERM; both save what can be saved.
    """

    def main(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Any:
        prepare_streams()
        if args is None:  # the command line, not a program that calls a command
            prepare_process()
        return super().main(args, *more, **options)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        prepare_command(cmd)
        super().add_command(cmd, name)

    def before(self, ctx: click.Context) -> None:
        """A hook that runs before every command."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with notes_on_stderr(), sigterm_as_ctrl_c():
                self.before(ctx)
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt as stop:
            default = "Interrupted: nothing is half written; run the same command to start again."
            click.echo(one_line(str(stop)) or default, err=True)
            ctx.exit(128 + stopped_by.number)  # what a shell has for a command that a signal ended
        except BrokenPipeError:
            raise
        except Exception as error:
            if os.environ.get("EMBEDCACHE_DEBUG"):
                raise
            click.echo(f"Error: {_one_line(error)}", err=True)
            ctx.exit(1)


@contextmanager
def notes_on_stderr() -> Iterator[None]:
    """Print each note on how an input was read once, on stderr."""
    told: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputNote)
        show = warnings.showwarning

        def tell(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, InputNote):
                show(message, category, *where, **more)
            elif str(message) not in told:
                told.add(str(message))
                click.echo(f"Note: {one_line(str(message))}", err=True)

        warnings.showwarning = tell
        yield


def _one_line(error: Exception) -> str:
    if isinstance(error, EmbedcacheError):
        return one_line(str(error))
    if isinstance(error, MemoryError):
        return "out of memory; use fewer --threads or a smaller batch"
    if isinstance(error, OSError) and error.strerror:
        where = f" {one_line(str(error.filename))}" if error.filename else ""
        return f"{error.strerror}:{where}; check that the path exists, is yours to use and has space"
    text = one_line(str(error)) or "no message"
    if found := packages.missing(error):
        return f"this needs {found[0]}, which is not installed: {found[1]}"
    return f"{type(error).__name__}: {text} (unexpected: EMBEDCACHE_DEBUG=1 shows where)"


def json_option(command: Any) -> Any:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")(command)


def emit(document: Any) -> None:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:  # a pipe that is not UTF-8, or half a surrogate pair: JSON can spell both
        text = json.dumps(document, allow_nan=False)
    click.echo(text)


class StoppedBy(threading.local):
    """The signal that stopped the work, if one did."""

    number: int = signal.SIGINT


stopped_by = StoppedBy()


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, which batch systems send, save what Ctrl-C saves."""
    stopped_by.number = signal.SIGINT
    if threading.current_thread() is not threading.main_thread():  # only the main one hears signals
        yield
        return

    def stop(number: int, frame: Any) -> None:
        stopped_by.number = number
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _limit_texts(ctx: click.Context, _: click.Parameter, megabytes: float | None) -> None:
    if megabytes is not None:
        ctx.with_resource(text_limit(megabytes))


def reading_options(of: str) -> Any:
    """--encoding, --separator, --sheet and --max-text-mb ``of`` the files that a command reads."""

    def add(command: Any) -> Any:
        command = click.option(
            "--max-text-mb",
            type=NumberInRange(float, 0, above=True),
            expose_value=False,
            callback=_limit_texts,
            help=f"Refuse a longer text or line {of}.  [default: {TEXT_MB}]",
        )(command)
        for name, what in (
            ("--sheet", f"Sheet of a workbook, or table of a database, {of}.  [default: the first, the only one]"),
            ("--separator", f"Separator of a .csv {of}: ; or | or tab.  [default: detected]"),
        ):
            command = click.option(name, help=what)(command)
        what = f"Encoding of a text file {of}."
        return click.option("--encoding", default="utf-8", show_default=True, help=what)(command)

    return add


class DerivedHelp(click.Command):
    """A command whose help says what a registry holds, which is loaded only where the help is shown.

    ``words``: what stands for ``{name}`` in the help, as a function.
    """

    def __init__(self, *args: Any, words: Mapping[str, Callable[[], str]], **more: Any) -> None:
        super().__init__(*args, **more)
        self.words = words

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shown = copy(self)  # what the registry holds may change before the help is shown again
        for name, find in self.words.items():
            shown.help = (shown.help or "").replace(f"{{{name}}}", find())
        super(DerivedHelp, shown).format_help_text(ctx, formatter)


def formats_read() -> str:
    """The formats of tables that are read, for a sentence."""
    from embedcache.tables.formats import in_words

    return in_words()


def formats_written() -> str:
    """The formats of tables that are written."""
    from embedcache.tables.formats import in_words

    return in_words(written=True)


def tell(line: str) -> None:
    """Print a note beside the result, on stderr."""
    click.echo(f"Note: {one_line(line)}.", err=True)


def _is_standard_output(output: str | None) -> bool:
    from embedcache.common.whole_file import is_standard_output

    return output is not None and is_standard_output(output)


def check_json(as_json: bool, output: str | None) -> None:
    """Raises UsageError where a table and the JSON document would both go to standard output."""
    if as_json and _is_standard_output(output):
        raise click.UsageError(f"--json and -o {output} both go to standard output: leave one out")


@contextmanager
def unless_written_to(output: str | None) -> Iterator[None]:
    """Print to stderr here if ``output`` is standard output."""
    with redirect_stdout(sys.stderr) if _is_standard_output(output) else nullcontext():
        yield


def journal_option(name: str) -> Callable[[Any], Any]:
    """The option of the labels that people gave, called ``name``."""
    return click.option(
        name,
        type=JournalName(),
        help="Labels that people gave, from this journal (JOURNAL@N: its first N entries), over CACHE's own; none: "
        "CACHE's own alone.  [default: CACHE.labels.jsonl where it is there]",
    )


labels_option = journal_option("--labels")
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda[:N].")
pooling_option = click.option(
    "--pooling", type=click.Choice([*POOLINGS, MODEL]), help="[default: model where it is stored, else cls]"
)
trust_option = click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Run Python code that comes with the model. Only for models you trust.",
)
