"""completion: what a shell reads to complete embedcache's commands; and what completes files and columns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from embedcache.commands.common import emit, json_option
from embedcache.commands.types import CommaList, complete_list

INSTALL = {
    "bash": 'eval "$(embedcache completion bash)"    # in ~/.bashrc',
    "zsh": 'eval "$(embedcache completion zsh)"    # in ~/.zshrc, after compinit',
    "fish": "embedcache completion fish > ~/.config/fish/completions/embedcache.fish",
}


@click.command(short_help="Print the completion script for your shell.")
@click.argument("shell", type=click.Choice(list(INSTALL)))
@json_option
@click.pass_context
def completion(ctx: click.Context, as_json: bool, shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, choices, files, and columns of caches and tables.

    \b
      eval "$(embedcache completion bash)"      in ~/.bashrc
      eval "$(embedcache completion zsh)"       in ~/.zshrc
      embedcache completion fish > ~/.config/fish/completions/embedcache.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    script = found(ctx.find_root().command, {}, "embedcache", "_EMBEDCACHE_COMPLETE").source()
    script = f"# {INSTALL[shell]}\n{script.strip()}"
    if as_json:
        emit({"shell": shell, "script": script})
    else:
        click.echo(script)


class Files(click.types.StringParamType):
    """A text, which the shell completes as a file's name."""

    def __init__(self, kind: str = "file") -> None:
        self.kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type=self.kind)]


class ColumnList(CommaList):
    """Columns of the cache or table that is on the line already: one, or several with commas."""

    def __init__(self, several: bool, sources: Sequence[str], words: bool) -> None:
        """sources: the parameters whose value may be that file; words: and what is not sorted into parameters yet."""
        super().__init__()
        self.several, self.sources, self.words = several, sources, words
        self.name = self.name if several else "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(value, param, ctx) if self.several else value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = tuple(_quietly(_column_names, self.file(ctx), ctx))
        if self.several:
            return complete_list(names, incomplete)
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    def file(self, ctx: click.Context) -> str | None:
        """The first word that is a file."""
        given = [ctx.params.get(name) for name in self.sources]
        words = [word for value in given for word in (value if isinstance(value, tuple) else (value,))]
        # An option that waits for its value keeps click from sorting the arguments: they are all in args.
        words += ctx.args if self.words else []
        return next((word for word in words if isinstance(word, str) and Path(word).is_file()), None)


class Conditions(ColumnList):
    """--where: the columns that can be asked for, and after = the values of one."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, blank, last = incomplete.rpartition(" ")
        offers = _quietly(_condition_parts, self.file(ctx), last)
        return [CompletionItem(before + blank + offer) for offer in offers if offer.startswith(last)]


MOST_VALUES = 50  # of a column that are offered


def _quietly(find: Callable[..., Iterable[str]], path: str | None, *more: Any) -> list[str]:
    """What is found in a file; nothing where there is none, or it is broken: the command will say that."""
    if path is None:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(dict.fromkeys(find(path, *more)))
    except Exception:
        return []


def _column_names(path: str, ctx: click.Context) -> list[str]:
    from embedcache.tables.formats import FORMATS
    from embedcache.tables.read import suffixes

    if suffixes(Path(path))[1] in FORMATS:
        from embedcache.tables.rows import column_names

        reading = {name: ctx.params.get(name) for name in ("separator", "sheet")}
        return column_names(path, encoding=ctx.params.get("encoding") or "utf-8", **reading)
    from embedcache.cache import open_cache

    with open_cache(path) as cache:
        return [*cache.label_names, *cache.column_names]


def _condition_parts(path: str, typed: str) -> list[str]:
    from embedcache.cache import open_cache
    from embedcache.cache.where import column_values, condition_columns

    with open_cache(path) as cache:
        columns = condition_columns(cache)
        column, equals, _ = typed.partition("=")
        if not equals or column not in columns:
            return columns
        return [f"{column}={value}" for value in column_values(cache, column, MOST_VALUES)]


FILES = frozenset("inputs shards cache output input file index model folder from_scratch".split())
FOLDERS = frozenset(("run",))
COLUMNS = frozenset("label labels group weight split split_column color id keep text columns".split())


def add_completion(command: click.Command) -> None:
    """What to complete, by the names of options and arguments whose type says nothing of it."""
    arguments = [param.name for param in command.params if isinstance(param, click.Argument) and param.name]
    tables = [param.name for param in command.params if param.name in ("file", "input")]
    for param in command.params:
        plain, name = param.type is click.STRING, param.name or ""
        option = isinstance(param, click.Option)
        if plain and name in FILES | FOLDERS:
            param.type = Files("dir" if name in FOLDERS else "file")
        elif plain and name == "text" and tables and option:
            param.type = ColumnList(False, tables, words=False)
        elif name in COLUMNS and (plain or type(param.type) is CommaList) and option:
            param.type = ColumnList(not plain, arguments, words=True)
        elif plain and name == "where":
            param.type = Conditions(False, arguments, words=True)
