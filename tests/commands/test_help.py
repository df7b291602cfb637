"""Every command's help: what it does, an example that starts with its own name, and no line too wide for 80 columns."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from embedcache.cli import main

COMMANDS = sorted(main.commands)


def help_of(name: str) -> str:
    # The context's width is click's own way to say how wide the terminal is.
    result = CliRunner().invoke(main, [name, "--help"], terminal_width=80)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_there_is_an_example(name: str) -> None:
    lines = [line.strip() for line in help_of(name).splitlines()]
    assert any(f"embedcache {name}" in line for line in lines if not line.startswith("Usage"))


@pytest.mark.parametrize("name", COMMANDS)
def test_it_fits_a_terminal(name: str) -> None:
    wide = [line for line in help_of(name).splitlines() if len(line) > 80]
    assert not wide


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_has_a_whole_line_for_it(name: str) -> None:
    listing = CliRunner().invoke(main, ["--help"], terminal_width=80).stdout
    line = next(line for line in listing.splitlines() if line.split()[:1] == [name])
    assert not line.endswith("...") and len(line) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_there_is_json(name: str) -> None:
    assert "--json" in help_of(name)
