"""README.md of a run: a model card as Hugging Face has them, of what the run knows and nothing else.

Front matter goes through a YAML library, so any name is safe there; names from the data stand as code, in one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from embedcache.common.display import shorten
from embedcache.common.encoder_schema import imported_name
from embedcache.common.label_names import visible
from embedcache.common.reading import percent
from embedcache.encoder.poolings import MODEL
from embedcache.encoder.prescription import in_words as of_model
from embedcache.heads.kinds import Kind, kind_of
from embedcache.report.card_code import code_of, packages_of, use_of
from embedcache.runs.folder import Run, require_keys
from embedcache.runs.intervals import JACKKNIFE
from embedcache.runs.scores import SCORES as KNOWN
from embedcache.runs.scores import headlines, main_score
from embedcache.runs.scores import title as title_of
from embedcache.runs.wording import baseline_name, in_words, worth_saying

# Of an exported model's card: those that have an interval.
SCORES = {f"test_{name}": title_of(name) for name in JACKKNIFE}
LABELS_SHOWN = 20
NEEDED = (
    "label", "encoder", "best", "split", "settings", "embedcache", "created", "recipe", "engine", "train_seconds",
    "baselines", "cache", "pooling", "layer", "dtype",
)  # fmt: skip
SHARED, TAGS = {"library_name": "embedcache", "pipeline_tag": "text-classification"}, ["embedcache", "frozen-encoder"]
ROUNDING = """
The vectors of the training were computed in {}, these are computed in float32: probabilities differ in the last digits.
"""
CALIBRATED = """
Logits divided by {:.4f}, the temperature that was fitted on the validation rows, give calibrated probabilities
(`Classifier.load(".", calibrated=True)`).
"""


def code_span(text: Any, length: int = 100) -> str:
    """A text of the data's as Markdown code, in one line, in a table too."""
    line = shorten(str(text), length).replace("`", "'").replace("|", "\\|").strip()
    return f"`{line or ' '}`"


def encoder_name(source: str) -> str:
    """The source's name; of a folder, which means nothing elsewhere, its last part."""
    path = Path(source)
    return path.name if path.is_absolute() else source


def base_source(info: dict[str, Any]) -> str:
    """Where the encoder of a run comes from; of a tuned one its base, as the run itself is its folder."""
    return str(info["tuned"]["base"] if "tuned" in info else info["encoder"]["source"])


def label_list(labels: Sequence[Any]) -> str:
    """The first twenty as code, and how many more."""
    hidden = len(labels) - LABELS_SHOWN
    more = f" and {hidden:,} more" if hidden > 0 else ""
    return ", ".join(code_span(visible(label)) for label in labels[:LABELS_SHOWN]) + more


def make_cards(run: Run) -> list[tuple[Path, str]]:
    """(place, text) of the card in every folder of a run: one a label column, and one that lists them if several."""
    require_keys(run, *NEEDED)
    cards = [(one.path / "README.md", make_card(one)) for one in run.columns.values()]
    if len(run.columns) < 2:
        return cards
    return [(run.path / "README.md", _overview(run)), *cards]


def make_card(run: Run) -> str:
    """The card of one label column. Raises KeyError, TypeError or ValueError where run.json is incomplete."""
    info, kind = run.info, kind_of(run.best.kind)
    about = info["encoder"]
    temperature = info["best"].get("temperature")
    template = resources.files("embedcache.report").joinpath("card.md").read_text("utf-8")
    name = encoder_name(base_source(info))
    purpose = kind.purpose.format(n=len(run.classes))
    title = f"{code_span(info['label'], 60)} of a text"
    identity = about["identity"]
    head = "a linear head" if not run.best.spec.hidden else f"a head of {run.best.spec.hidden:,} hidden units"
    return template.format(
        front=_front_matter(run, name),
        title=title[0].upper() + title[1:],
        what=_what(info, name, f"{vectors_in_words(info)}", f"{head}", purpose),
        embedcache=info["embedcache"],
        created=info["created"],
        purpose=purpose,
        labels=f"{kind.outputs.capitalize()}: {label_list(run.classes)}."
        if kind.has_classes
        else f"The number is that of the column {code_span(info['label'])}.",
        data=_data(info, kind),
        training=_training(info),
        evaluation=_evaluation(info, kind),
        limitations="\n".join(f"- {line}" for line in _limitations(info, kind)),
        use=use_of(info, name),
        packages=packages_of(info),
        code=code_of(run, name),
        rounding=ROUNDING.format(dtype) if (dtype := identity.get("compute_dtype", "float32")) != "float32" else "",
        temperature=CALIBRATED.format(temperature) if temperature else "",
    )


def _what(info: dict[str, Any], name: str, vectors: str, head: str, purpose: str) -> str:
    if imported_name(info["encoder"]) is not None:
        return (
            f"Vectors of {code_span(name)}, which were imported, and {head}, trained on them to {purpose}. The encoder "
            "is not in this folder."
        )
    if "tuned" not in info:
        return (
            f"The frozen encoder {code_span(name)} ({vectors}) and {head}, trained on its vectors to {purpose}. The "
            "encoder is not in this folder."
        )
    tuned = info["tuned"]
    return (
        f"The encoder {code_span(name)} ({vectors}) and {head}, trained together to {purpose}: {tuned['parameters']:,} "
        f"numbers of its layers {tuned['layers'][0]} to {tuned['layers'][-1]} ({tuned['train']}), which are in "
        "`tuned.safetensors`. The rest of the encoder is not in this folder."
    )


def vectors_in_words(info: dict[str, Any]) -> str:
    """What the head reads."""
    prompt = info["encoder"]["identity"].get("prompt")
    after = f", after the prompt {code_span(prompt)}" if prompt else ""
    if imported_name(info["encoder"]) is not None:
        return "vectors that were imported"
    if info["pooling"] == MODEL:
        return f"the vector that its authors prescribe: {of_model(info['encoder'][MODEL])}{after}"
    return f"{info['pooling']} pooling of layer {info['layer']}{after}"


def _front_matter(run: Run, encoder: str) -> str:

    info, main = run.info, main_score(run.best.kind)
    best = info["best"]
    tags = [tag for tag in TAGS if tag != "frozen-encoder" or "tuned" not in info]
    document: dict[str, Any] = {**SHARED, "tags": [*tags, run.best.kind]}
    if not Path(base_source(info)).is_absolute() and imported_name(info["encoder"]) is None:
        document["base_model"] = encoder
    sides = [side for side in ("test", "val") if best.get(f"{side}_{main}") is not None]
    if sides:
        dataset = Path(str(info["cache"]["path"])).stem
        keys = [name for name in headlines(run.best.kind) if best.get(f"{sides[0]}_{name}") is not None]
        result = {
            "task": {"type": "text-classification", "name": shorten(str(info["label"]))},
            "dataset": {
                "type": re.sub(r"[^A-Za-z0-9._-]+", "-", dataset).strip("-.") or "dataset",
                "name": shorten(dataset),
                "split": {"test": "test", "val": "validation"}[sides[0]],
            },
            "metrics": [
                {"type": KNOWN[name].hub, "value": round(best[f"{sides[0]}_{name}"], 6), "name": title_of(name)}
                for name in keys
            ],
        }
        document["model-index"] = [{"name": shorten(run.path.resolve().name), "results": [result]}]
    return _front(document)


def _data(info: dict[str, Any], kind: Kind) -> str:
    split, targets = info["split"], info.get("targets", {})
    sides = (("train", "training"), ("val", "validation"), ("test", "test"))
    rows = ", ".join(f"{split[side]:,} {name}" for side, name in sides if split.get(side))
    folds = (
        f"; {len(split['folds'])} folds of the training rows in place of validation rows" if split.get("folds") else ""
    )
    group = f"; rows with one {code_span(split['group'])} on one side" if split.get("group") else ""
    said = (
        f"Column {code_span(info['label'])} of a cache of {info['cache']['rows']:,} rows: {rows} rows{folds}{group}. "
    )
    said += "Equal texts never stand on two sides"
    said += f" ({split['duplicates']:,} duplicates). " if split.get("duplicates") else ". "
    if split.get("unlabelled"):
        said += f"{split['unlabelled']:,} rows without a label were left out. "
    counts = targets.get("train", {}).get("counts")
    if not counts or not kind.has_classes:
        return said.strip()
    classes = info["classes"]
    order = sorted(range(len(counts)), key=lambda c: -counts[c])[:LABELS_SHOWN]
    which = f" (the {LABELS_SHOWN} commonest of {len(classes):,})" if len(classes) > LABELS_SHOWN else ""
    lines = [[code_span(visible(classes[c])), f"{counts[c]:,}"] for c in order]
    return f"{said.strip()}\n\nTraining rows of each{which}:\n\n{_table(('', 'rows'), lines)}"


def _training(info: dict[str, Any]) -> str:
    best, settings = info["best"], info["settings"]
    made = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in best["hyperparameters"].items())
    trained = len({name.split("/fold-")[0] for name in info["heads"]})
    said = f"{trained:,} heads were trained in {info['train_seconds']:.1f} s with {info['engine']}"
    said += f" (recipe {info['recipe']}, batches of {settings['batch_size']}, up to {settings['epochs']} epochs"
    said += ", features standardized). " if settings.get("standardize") else "). "
    by = best.get("chosen_by", "loss")
    score = f"validation {title_of(by)}"
    best_score = (
        f"{'lowest' if by == 'loss' else 'highest'} {score}"
        if not info["split"].get("folds")
        else (f"{'lowest' if by == 'loss' else 'highest'} mean {score} over the folds")
    )
    chosen = (
        f"The {best_score} chose this one" if best.get("val_loss") is not None else "The lowest training loss chose it"
    )
    again = "; then it was trained again on all folds" if info["split"].get("folds") else ""
    return f"{said}{chosen}{again}: {made}. Its weights are those of epoch {best['best_epoch']}."


def _evaluation(info: dict[str, Any], kind: Kind) -> str:
    main = kind.main
    best, evaluation = info["best"], info.get("evaluation") or {}
    scored = {"this head": best} | {baseline_name(name, long=True): one for name, one in info["baselines"].items()}
    keys = [f"{side}_{name}" for side in ("val", "test") for name in headlines(kind.name)]
    keys = [key for key in keys if any(one.get(key) is not None for one in scored.values())]
    if not keys:
        return "There were neither validation nor test rows: how good it is was not measured."
    titles = ["", *(f"{key.split('_')[0]} {title_of(key.split('_', 1)[1])}" for key in keys)]
    lines = [
        [name, *("-" if one.get(key) is None else f"{one[key]:.4f}" for key in keys)] for name, one in scored.items()
    ]
    interval = best.get(f"test_{main}_interval")
    said = ""
    if interval:
        rows = (evaluation.get("test") or {}).get("rows")
        groups = f" of {best['test_groups']:,} groups" if best.get("test_groups") else ""
        of = f" ({rows:,} rows{groups})" if rows else ""
        said = f"\n\nThe 95% interval of the test {title_of(main)}{of} is {interval[0]:.3f} to {interval[1]:.3f}"
        f1 = best.get("test_macro_f1_interval")
        said += f", of the macro F1 {f1[0]:.3f} to {f1[1]:.3f}." if f1 else "."
    for one in worth_saying(best, info.get("comparisons", [])):
        said += f" It is {in_words(one, long=True)}."
    found = evaluation.get("test") or evaluation.get("val")
    if not found or not kind.has_classes:
        return _table(titles, lines) + said
    calibration = found["calibration"]["ece"]
    said += f"{' ' if said else chr(10) * 2}Expected calibration error: {calibration:.3f}"
    scaled = found.get("calibration_scaled")
    said += f", {scaled['ece']:.3f} with the temperature." if scaled else "."
    some = sorted(found["per_class"], key=lambda one: -one["support"])[:LABELS_SHOWN]
    per_class = [
        [
            code_span(visible(one["label"])),
            *(f"{one[key]:.3f}" for key in ("precision", "recall", "f1")),
            str(one["support"]),
        ]
        for one in some
    ]
    return f"{_table(titles, lines)}{said}\n\n{_table(('', 'precision', 'recall', 'F1', 'rows'), per_class)}"


def _limitations(info: dict[str, Any], kind: Kind) -> Iterable[str]:
    max_length = info["encoder"]["identity"].get("max_length", 0)
    if task := info["encoder"]["identity"].get("task"):
        yield (
            f"The encoder has its adapter for the task {code_span(task)} merged into its weights. The code above loads "
            "it without: merge it first (peft's `merge_and_unload`)."
        )
    if info["encoder"]["identity"].get("chunk"):
        yield (
            f"Texts of more than {max_length:,} tokens are read in chunks of that length, and have the mean of their "
            "vectors (of unit length where the vectors are). The code above reads their start alone."
        )
    elif imported_name(info["encoder"]) is not None:
        yield (
            "The vectors were imported: how they were made, and of how much of a text, their maker alone knows. Texts "
            "cannot be given, vectors of the same encoder can."
        )
    else:
        yield f"Texts are cut to {max_length:,} tokens; the rest is not read{_lost(info.get('reading'))}."
    if kind.exclusive:
        yield "Every text gets one of the classes, also a text that belongs to none of them."
    if not info["split"].get("test"):
        yield "There were no test rows: the scores are of rows that also chose the head, and flatter it."
    yield "The scores hold for texts like those of the split; other sources, times and languages were not measured."
    yield "What the encoder's licence and its own card say holds here too."
    for note in info.get("notes", []):
        yield f"{shorten(str(note), 400).replace('<', '&lt;').replace('`', chr(39))}."


def _lost(reading: dict[str, Any] | None) -> str:
    """How much that was of the cache's texts; runs of older versions do not say."""
    if not reading or not reading["counted"]:
        return ""
    if not reading["truncated"]:
        return " (no text of the cache was longer)"
    cut = f"{reading['truncated']:,} of the {reading['texts']:,} texts of the cache were longer"
    return f" ({cut}, which lost {percent(reading['lost_share'])} of all tokens)"


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    head = f"| {' | '.join(titles)} |\n|---|{'---:|' * (len(titles) - 1)}"
    return "\n".join([head, *(f"| {' | '.join(line)} |" for line in lines)])


def _front(document: dict[str, Any]) -> str:
    import yaml

    return f"---\n{yaml.safe_dump(document, allow_unicode=True, sort_keys=False, width=100)}---\n"


def _overview(run: Run) -> str:
    """Of several label columns: their scores, and where each one's card is."""
    lines = []
    for name, one in run.columns.items():
        main, best = main_score(one.best.kind), one.info["best"]
        sides = [side for side in ("test", "val") if best.get(f"{side}_{main}") is not None]
        found = f"{sides[0]} {title_of(main)} {best[f'{sides[0]}_{main}']:.4f}" if sides else "-"
        lines.append([code_span(name), one.best.kind, found, code_span(f"{one.path.name}/README.md", 1000)])
    source = code_span(encoder_name(base_source(run.info)))
    return (
        f"{_front({**SHARED, 'tags': TAGS})}\n# Heads for {len(run.columns)} label columns\n\n"
        f"On the vectors of the frozen encoder {source}, made by embedcache {run.info['embedcache']} on "
        f"{run.info['created']}. Each column has a folder of its own, with a card.\n\n"
        f"{_table(('column', 'task', 'score', 'card'), lines)}\n"
    )
