"""Defaults for the options of every command, from embedcache.toml.

    [extract]
    model = "sentence-transformers/all-MiniLM-L6-v2"
    pooling = ["auto", "mean"]

They become click's default_map: the command line and EMBEDCACHE_<COMMAND>_<OPTION> come before them. Everything in the
file is checked, whatever command runs, so that no mistake is found months later.
"""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path
from typing import Any

import click

from embedcache.commands.common import Commands

FILE = "embedcache.toml"
MOST_BYTES = 1 << 20
# A file that merely lies in the folder may be another person's: it must not run code that comes with a model, join a
# cluster (whose members run what they are sent), or open a server to the network.
NEVER = {
    "trust_remote_code": "it runs code that comes with a model: give --trust-remote-code on the command line",
    "token": "a secret belongs in EMBEDCACHE_TOKEN",
}
NAMED_ONLY = {
    "ray": "a cluster runs what it is sent: name this file with --config, or give --ray",
    "host": "it may open the server to the network: name this file with --config, or give --host",
}


class ConfiguredCommands(Commands):
    """A group with an option --config, whose commands show the defaults of that file in place of their own."""

    def before(self, ctx: click.Context) -> None:
        load_config(ctx, ctx.params.get("config"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        given = (ctx.default_map or {}).get(cmd_name)
        if command is None or not given:
            return command
        shown = copy.copy(command)
        shown.params = [_showing(param) if param.name in given else param for param in command.params]
        return shown


def _showing(param: click.Parameter) -> click.Parameter:
    """A copy that shows its default, and has no other in its help."""
    shown = copy.copy(param)
    if isinstance(shown, click.Option):
        shown.show_default, shown.help = True, re.sub(r"\s*\[default:.*?\]", "", shown.help or "")
    return shown


def load_config(ctx: click.Context, named: str | None) -> None:
    """Make the file's tables the default_map of ctx, the group's context. Raises click.UsageError, in one line.

    named: a file that was asked for; None takes embedcache.toml of the current folder, where there is one.
    """
    path = Path(FILE if named is None else named)
    if named is None and not path.is_file():
        return
    defaults: dict[str, dict[str, Any]] = {}
    group = ctx.command
    assert isinstance(group, click.Group)
    for table, options in _read(path).items():
        command = group.commands.get(table.replace("_", "-"))
        if command is None or not isinstance(options, dict):
            what = f"[{table}]" if isinstance(options, dict) else table
            raise click.UsageError(f"{path}: unknown table {what}; choose from {_list(group.commands, '[{}]')}")
        where = {key: f"{path}: [{table}] {key}" for key in options}
        known = _by_key(command)
        found: dict[str, Any] = {}
        for key, value in options.items():
            option = known.get(key.replace("_", "-"))
            if option is None or option.name is None:
                raise click.UsageError(
                    f"{where[key]}: {command.name} has no such option; choose from {_list(known, '{}')}"
                )
            refused = NEVER.get(option.name) or (NAMED_ONLY.get(option.name) if named is None else None)
            if refused:
                raise click.UsageError(f"{where[key]} cannot be set in a file: {refused}")
            found[option.name] = _value(option, value, where[key], ctx)
        defaults[str(command.name)] = found
    ctx.default_map = defaults


def _read(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise click.UsageError(f"{path} is larger than {MOST_BYTES >> 20} MB: it holds a few lines of defaults")
        return tomllib.loads(data.decode("utf-8"))
    except RecursionError:
        raise click.UsageError(f"{path} is nested too deeply to be read") from None
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError, a number of thousands of digits
        raise click.UsageError(f"{path} is not TOML: {' '.join(str(error).split())[:200]}") from None
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror or error}; --config names the file") from None


def _by_key(command: click.Command) -> dict[str, click.Option]:
    """Long names without their dashes; -k by its letter."""
    options = [param for param in command.params if isinstance(param, click.Option)]
    long = {name[2:]: one for one in options for name in one.opts if name.startswith("--")}
    return long | {one.opts[0][1:]: one for one in options if not one.opts[0].startswith("--") and len(one.opts) == 1}


def _value(option: click.Option, value: Any, where: str, ctx: click.Context) -> Any:
    """As the command line would have it: text, which click converts and checks; flags are true or false."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise click.UsageError(f"{where} = {value!r}: write true or false")
        return value
    several = value if isinstance(value, list) else [value]
    if not several or not all(isinstance(one, (str, int, float)) and not isinstance(one, bool) for one in several):
        raise click.UsageError(f"{where}: write a text, a number or a list of these")
    texts = [one if isinstance(one, str) else repr(one) for one in several]
    given: Any = tuple(texts) if option.multiple else ",".join(texts)
    try:
        option.type_cast_value(ctx, given)
    except click.BadParameter as error:
        raise click.UsageError(f"{where}: {error.message}") from None
    return given


def _list(names: Any, form: str) -> str:
    return ", ".join(form.format(name) for name in sorted(names))
