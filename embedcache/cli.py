"""The command line. Heavy packages are imported inside the commands that need them."""

from __future__ import annotations

import click

from embedcache import __version__
from embedcache.commands import (
    adapt,
    audit,
    completion,
    doctor,
    drift,
    evaluate,
    export,
    extract,
    finetune,
    import_vectors,
    index,
    info,
    label,
    labels,
    ladder,
    merge,
    next_rows,
    predict,
    report,
    search,
    serve,
    train_head,
    zero_shot,
)
from embedcache.commands.config import ConfiguredCommands

SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    "auto_envvar_prefix": "EMBEDCACHE",
}


@click.group(cls=ConfiguredCommands, context_settings=SETTINGS)
@click.option(
    "--config", type=completion.Files(), metavar="FILE", help="Defaults for options.  [default: embedcache.toml here]"
)
@click.version_option(__version__, prog_name="embedcache")
def main(config: str | None) -> None:
    """Embed labelled texts once, train hundreds of heads in seconds, search the neighbours."""


for command in (
    extract.extract,
    import_vectors.import_command,
    merge.merge,
    adapt.adapt,
    info.info,
    info.verify,
    train_head.train_head,
    finetune.finetune,
    predict.predict,
    zero_shot.zero_shot,
    ladder.ladder,
    evaluate.evaluate,
    drift.drift,
    export.export,
    report.report,
    index.index,
    search.search,
    import_vectors.vectors,
    audit.audit,
    next_rows.next_rows,
    labels.labels,
    labels.relabel,
    doctor.doctor,
    serve.serve,
    label.label,
    completion.completion,
):
    completion.add_completion(command)
    main.add_command(command)


if __name__ == "__main__":
    main()
