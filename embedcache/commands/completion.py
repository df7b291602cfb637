"""completion: what a shell reads to complete embedcache's commands; and what completes files and columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from embedcache.commands.common import emit, json_option
from embedcache.options import CommaList, complete_list

INSTALL = {
    "bash": 'eval "$(embedcache completion bash)"    # in ~/.bashrc',
    "zsh": 'eval "$(embedcache completion zsh)"    # in ~/.zshrc, after compinit',
    "fish": "embedcache completion fish > ~/.config/fish/completions/embedcache.fish",
}


@click.command(short_help="Print what makes a shell complete commands.")
@click.argument("shell", type=click.Choice(list(INSTALL)))
@json_option
@click.pass_context
def completion(ctx: click.Context, as_json: bool, shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, choices, files, and the columns of a cache.

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


class Columns(CommaList):
    """The columns of the cache that is on the line already: one, or several with commas."""

    def __init__(self, several: bool) -> None:
        super().__init__()
        self.several = several
        self.name = self.name if several else "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(value, param, ctx) if self.several else value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from embedcache.cache import open_cache

        # An option that waits for its value keeps click from sorting the arguments: they are all in args.
        words = [ctx.params.get("cache"), *ctx.args]
        path = next((word for word in words if isinstance(word, str) and Path(word).is_file()), None)
        if path is None:
            return []
        try:
            with open_cache(path) as cache:
                names = tuple(dict.fromkeys([*cache.labels_names, *cache.column_names]))
        except Exception:  # whatever is wrong with the file, the command will say it
            return []
        if self.several:
            return complete_list(names, incomplete)
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


FILES = frozenset("inputs shards cache output input file index model folder".split())
FOLDERS = frozenset(("run",))
COLUMNS = frozenset(("label", "labels", "group", "split", "color"))


def add_completion(command: click.Command) -> None:
    """What to complete, by the names of options and arguments whose type says nothing of it."""
    for param in command.params:
        plain, name = param.type is click.STRING, param.name or ""
        if plain and name in FILES | FOLDERS:
            param.type = Files("dir" if name in FOLDERS else "file")
        elif name in COLUMNS and (plain or type(param.type) is CommaList) and "cache" in _names(command):
            param.type = Columns(several=not plain)


def _names(command: click.Command) -> set[str | None]:
    return {param.name for param in command.params if isinstance(param, click.Argument)}
