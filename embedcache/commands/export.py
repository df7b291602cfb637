"""export: the command that writes a run as one model."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import (
    emit,
    json_option,
    trust_option,
)


@click.command(short_help="Write RUN's encoder and best head as one model.")
@click.argument("run")
@click.option(
    "--to", required=True, type=click.Choice(["torch", "onnx", "sentence-transformers", "transformers", "peft"])
)
@click.option("-o", "--output", required=True, metavar="OUT", help="The folder to create.")
@click.option("--model", help="The encoder's folder, where it has moved.")
@click.option("--overwrite", is_flag=True, help="Replace an existing export.")
@trust_option
@json_option
def export(as_json: bool, run: str, **options: Any) -> None:
    """Write the encoder and the best head of RUN as one model that works without embedcache.

    \b
      torch                   model.pt2, for torch.export.load
      onnx                    model.onnx, for ONNX Runtime and others
      sentence-transformers   a folder that SentenceTransformer(OUT) opens
      transformers            one for AutoModelForSequenceClassification, where
                              its classifier can compute this head
      peft                    the same as an adapter beside its base, of a run
                              of finetune --train lora

    What is written is opened again and compared; OUT/README.md has the few lines that use it.

    \b
      embedcache export RUN --to onnx -o classifier
      embedcache export RUN --to sentence-transformers -o classifier
    """
    from embedcache.commands.show.run import export as show_export
    from embedcache.export import export_run

    report = export_run(run, **options)
    if as_json:
        emit(report.to_dict())
    else:
        show_export(report)
