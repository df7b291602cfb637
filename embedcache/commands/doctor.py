"""doctor: the command that looks at the machine."""

from __future__ import annotations

import sys

import click

from embedcache.commands.common import emit, json_option
from embedcache.common.screen import one_line


@click.command(short_help="Show what this machine has, and test it.")
@json_option
def doctor(as_json: bool) -> None:
    """Show what this machine has for embedcache, and run the whole pipeline on a toy encoder in a temporary folder.

    Exit code 1 if something that is needed does not work; for what is only missing, doctor says what to do.

    \b
      embedcache doctor
      embedcache doctor --json        to attach to a bug report
    """
    from embedcache.doctor import diagnose

    diagnosis = diagnose()
    if as_json:
        emit(diagnosis.to_dict())
    else:
        width = max(len(check.name) for check in diagnosis.checks)
        for check in diagnosis.checks:
            advice = f" ({check.advice})" if check.advice else ""
            click.echo(f"{check.status:8}{check.name:{width}}  {one_line(check.found + advice)}")
        failed = sum(check.status == "failed" for check in diagnosis.checks)
        end = "Everything needed works" if diagnosis.healthy else f"Failed: {failed}"
        click.echo(f"{end}; {diagnosis.seconds:.1f} s.")
    if not diagnosis.healthy:
        sys.exit(1)
