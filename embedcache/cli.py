"""The command line. Heavy packages are imported inside the commands that need them."""

from __future__ import annotations

import os

import click

from embedcache import __version__
from embedcache.commands import audit, caches, doctor, heads, report, search, serve
from embedcache.commands.common import Commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="embedcache")
def main() -> None:
    """Embed labelled texts once, train hundreds of heads in seconds, search the neighbours."""
    # Read when torch loads. Waiting threads that spin cost PyTorch most of its speed where others use the cores too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


for command in (
    caches.extract,
    caches.merge,
    caches.info,
    caches.verify,
    heads.train_head,
    heads.predict,
    heads.export,
    report.report,
    search.search,
    audit.audit,
    doctor.doctor,
    serve.serve,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
