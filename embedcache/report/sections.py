"""The sections of a label column: data, baselines, leaderboard, curves, mistakes. evaluation_sections.py has more."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedcache.common.label_names import visible
from embedcache.common.screen import number, plural
from embedcache.heads.arrays import json_number
from embedcache.heads.kinds import kind_of
from embedcache.report import plots
from embedcache.report.audit_section import audit_section
from embedcache.report.blocks import (
    Cards,
    Chapter,
    Facts,
    Figure,
    FigureRow,
    Grid,
    Mistakes,
    Notes,
    Paragraph,
    Section,
    count,
    seconds,
)
from embedcache.report.contents import ColumnContents, ReportContents
from embedcache.report.evaluation_sections import evaluation_sections
from embedcache.report.mistakes import mistake_item
from embedcache.report.names import same_in_all, setting, swept
from embedcache.report.reading import read_facts
from embedcache.runs.scores import headlines, main_score
from embedcache.runs.scores import title as title_of
from embedcache.runs.settings_shown import SHOWN
from embedcache.runs.wording import CONSTANT, baseline_name, worth_saying
from embedcache.runs.wording import in_words as comparison

TOP = 20  # heads of the leaderboard
SPREADS = 12
MISTAKES = 20  # of a side
COUNTED = 40  # classes whose rows are counted
DRAWN = 8  # heads from which on their scores are drawn
FAR = 10  # times the middle half of the scores: what is further below them is not drawn
EPOCHS = 30  # rows of the table behind the learning curves


def name_of(key: str) -> str:
    """test_macro_f1 -> test macro F1."""
    side, _, rest = key.partition("_")
    return f"{side} {title_of(rest)}"


def make_parts(contents: ReportContents) -> list[Chapter]:
    """One part for each label column."""
    several = len(contents.columns) > 1
    parts = []
    for place, column in enumerate(contents.columns.values(), 1):
        make = _Column(column, contents, f"c{place}-" if several else "")
        sections = make.sections()
        if contents.audit is not None and contents.audit["label"] == column.report.label:
            sections.append(audit_section(contents.audit, make.prefix))
        parts.append(Chapter(f"Column {column.report.label}" if several else None, f"c{place}", sections))
    return parts


class _Column:
    """Makes the sections of one label column; prefix: of the ids."""

    def __init__(self, column: ColumnContents, contents: ReportContents, prefix: str) -> None:
        self.column, self.contents, self.prefix = column, contents, prefix
        self.report, self.info = column.report, column.info
        self.main = main_score(self.report.kind)
        self.folds = self.report.split.get("folds")
        self.side = "test" if self.report.evaluation["test"] else "val"
        self.rows = {"test": "test rows", "val": "rows out of fold" if self.folds else "validation rows"}

    def sections(self) -> list[Section]:
        made = [
            Section("At a glance", "glance", self.glance()),
            Section("Data", "data", self.data()),
            Section("Beside the baselines", "baselines", self.baselines()),
            Section("Leaderboard", "leaderboard", self.leaderboard()),
            Section("Learning curves", "curves", self.curves()),
            *evaluation_sections(self.report, self.info, self.rows, self.prefix),
            Section(kind_of(self.report.kind).mistakes, "mistakes", self.mistakes()),
        ]
        for section in made:
            section.id = self.prefix + section.id
        return [section for section in made if section.blocks]

    def glance(self) -> list[Any]:
        best, key = self.report.best, f"{self.side}_{self.main}"
        interval = best.get(f"{key}_interval")
        rows = (self.report.evaluation[self.side] or {}).get("rows")
        on = f"{count(rows)} {self.rows[self.side]}" if rows else self.rows[self.side]
        if best.get("test_groups") and self.side == "test":
            on += f" of {plural(best['test_groups'], 'group')}"
        between = f"95% interval {interval[0]:.3f} to {interval[1]:.3f}; {on}" if interval else on
        cards = [(f"{name_of(key).capitalize()}, {best['name']}", number(best.get(key), ".3f"), between)]
        f1 = best.get(f"{self.side}_macro_f1_interval")
        if f1:
            between = f"95% interval {f1[0]:.3f} to {f1[1]:.3f}"
            name = name_of(f"{self.side}_macro_f1")
            cards.append((name[0].upper() + name[1:], number(best[f"{self.side}_macro_f1"], ".3f"), between))
        for name, scores in self.report.baselines.items():
            what = baseline_name(name)
            cards.append(
                (what[0].upper() + what[1:], number(scores.get(key), ".3f"), f"the same {self.rows[self.side]}")
            )
        heads = len(self.column.leaderboard)
        cards.append(("Heads trained", count(heads), f"in {seconds(self.info.get('train_seconds'))}"))
        notes = [Notes(self.report.notes)] if self.report.notes else []
        return [Cards(cards), Paragraph(self._verdict(key, interval)), *notes]

    def _verdict(self, key: str, interval: list[float] | None) -> str:
        """Whether the head beats what it must beat, and whether these rows can tell."""
        if self.report.best.get(key) is None:
            return "There are no rows on which the head could be scored: neither validation nor test rows."
        seen = "" if self.side == "test" else " These rows also chose the head, so the number flatters it."
        if self.side == "val" and self.folds:
            seen = " Each row is scored by the head that did not train on it; they also chose the settings."
        ones = worth_saying(self.report.best, self.report.comparisons)
        if self.report.best.get("compared_by") is None:
            return f"{self._before(key, interval)}.{seen}"
        if not ones:
            return f"There is no baseline to compare with.{seen}"
        said = "; it is ".join(comparison(one) for one in ones)
        return f"On the very same rows, the chosen head is {said}.{seen}"

    def _before(self, key: str, interval: list[float] | None) -> str:
        """Of a run that did not compare its rows in pairs."""
        ours = self.report.best[key]
        second = next((name for name in self.report.baselines if name.startswith("tfidf")), None)
        theirs = None if second is None else self.report.baselines[second].get(key)
        if theirs is None:
            return "There is no TF-IDF baseline to compare with"
        than = "better than" if ours > theirs else "worse than" if ours < theirs else "just as good as"
        by = f"{abs(ours - theirs):.3f} " if ours != theirs else ""
        name = baseline_name(str(second))
        said = f"By {title_of(self.main)}, the chosen head is {by}{than} {name} on the very same rows"
        if interval and interval[0] <= theirs <= interval[1]:
            said += ". That is within the 95% interval: these rows cannot tell the two apart"
        return said

    def data(self) -> list[Any]:
        split, info, report = self.report.split, self.info, self.report
        kind = kind_of(report.kind)
        pairs = [("Label column", report.label), ("Task", report.kind)]
        pairs += [(kind.outputs.capitalize(), count(len(report.classes)))] if kind.has_classes else []
        pairs += [
            ("Vectors", f"{info['pooling']} pooling, layer {info['layer']}, {info['dim']:,} wide, {info['dtype']}")
        ]
        pairs += [("Split", f"{self._split()}; seed {split.get('seed', '-')}")]
        special = {
            "duplicates": "Duplicates, kept on one side",
            "conflicts": "Texts with more than one label",
            "unlabelled": "Left out, without a label",
            "left_out": "Left out, text also in a group on another side",
        }
        pairs += read_facts(info.get("reading"))
        pairs += [(text, count(split[key])) for key, text in special.items() if split.get(key) or key == "duplicates"]
        return [Facts(pairs), *self._targets()]

    def _split(self) -> str:
        split = self.report.split
        names = {"train": "training", "val": "validation", "test": "test"}
        sides = ", ".join(f"{split[side]:,} {name}" for side, name in names.items() if split.get(side))
        folds = f", the training rows in {len(self.folds)} folds" if self.folds else ""
        group = f", groups by {split['group']} kept together" if split.get("group") else ""
        return f"{sides} rows{folds}{group}"

    def _targets(self) -> list[Any]:
        """Rows of each class and side."""
        targets = {side: one for side, one in self.info.get("targets", {}).items() if one.get("rows")}
        if not targets:
            return []
        kind = kind_of(self.report.kind)
        if not kind.has_classes:
            keys = ("rows", "mean", "std", "min", "median", "max")
            rows = [
                [side, count(one["rows"]), *(f"{one[key]:.6g}" for key in keys[1:])] for side, one in targets.items()
            ]
            return [Grid("The values", ("side", *keys), rows)]
        classes = self.report.classes
        counts = {side: [*one["counts"], *[0] * (len(classes) - len(one["counts"]))] for side, one in targets.items()}
        order = sorted(range(len(classes)), key=lambda c: -counts["train"][c])[:COUNTED]
        total = max(1, targets["train"]["rows"])
        rows = [
            [visible(classes[c]), *(count(counts[side][c]) for side in targets), f"{counts['train'][c] / total:.1%}"]
            for c in order
        ]
        which = f"; the {COUNTED} commonest of {len(classes):,}" if len(classes) > COUNTED else ""
        title = kind.output
        return [Grid(f"Rows of each {title}{which}", (title, *targets, "share of train"), rows)]

    def baselines(self) -> list[Any]:

        keys = [f"{side}_{name}" for side in ("val", "test") for name in headlines(self.report.kind)]
        scored = {f"{self.report.best['name']}, chosen": self.report.best}
        scored |= {baseline_name(name): scores for name, scores in self.report.baselines.items()}
        keys = [key for key in keys if any(one.get(key) is not None for one in scored.values())]
        if not keys:
            return []
        rows = [[name, *(number(one.get(key)) for key in keys)] for name, one in scored.items()]
        key = f"{self.side}_{self.main}"
        drawn = [
            (name if i else "chosen head", one[key], one.get(f"{key}_interval"))
            for i, (name, one) in enumerate(scored.items())
            if one.get(key) is not None
        ]
        tables = [Grid("The chosen head and the baselines, on the same rows", ("", *map(name_of, keys)), rows)]
        if self.report.comparisons:
            titles = ("less", "score", "difference", "95% interval", "p", "")
            which = f"The chosen head less each baseline, {self.rows[self.side]} in pairs"
            tables.append(Grid(which, titles, list(map(self._compared, self.report.comparisons)), folded=True))
        if not drawn:
            return [*tables]
        said = ", ".join(f"{name} {value:.3f}" for name, value, _ in drawn)
        band = (
            "The band is the 95% interval of the head's score." if drawn[0][2] else "The chosen head and the baselines."
        )
        svg = plots.compared(f"{self.prefix}compared", name_of(key), drawn)
        return [Figure(svg, f"{name_of(key)}: {said}", band), *tables]

    def _compared(self, one: dict[str, Any]) -> list[Any]:
        low, high = one["interval"] or (None, None)
        between = "-" if low is None else f"{low:+.3f} to {high:+.3f}"
        p = "-" if one["p"] is None else "< 0.001" if one["p"] < 0.001 else f"{one['p']:.3f}"
        noise = "within noise" if one["within_noise"] else ""
        return [
            baseline_name(one["with"]),
            title_of(one["metric"]),
            f"{one['difference']:+.3f}",
            between,
            p,
            noise,
        ]

    def leaderboard(self) -> list[Any]:
        board = self.column.leaderboard
        blocks: list[Any] = []
        values = np.array([row[f"val_{self.main}"] for row in board if row.get(f"val_{self.main}") is not None], float)
        if len(values) >= DRAWN:
            blocks.append(self._distribution(values))
        rows = board[:TOP]
        keys, scores = swept(board)[0], [key for key in self.shown() if any(row.get(key) is not None for row in rows)]
        body = []
        for row in rows:
            epoch = f"{row['best_epoch']:.3g}" if row["status"] == "ok" else row["status"]
            settings = (setting(key, row) for key in keys)
            body.append([row["rank"], row["name"], *settings, epoch, *(number(row.get(key)) for key in scores)])
        titles = ("rank", "head", *(SHOWN[key].label for key in keys), "epoch", *map(name_of, scores))
        which = f"The first {TOP} of {len(board):,} heads" if len(board) > TOP else "Every head"
        by = title_of(self.report.best.get("chosen_by") or "loss")
        blocks.append(Grid(f"{which}, by validation {by}", titles, body, words=(1,)))
        shared = same_in_all(board)
        if shared:
            blocks.append(Paragraph(f"The same in all of these: {shared}."))
        return [*blocks, *self._spread(), *self._fold_scores()]

    def shown(self) -> list[str]:
        """The scores of the leaderboard's table."""
        names = dict.fromkeys(["loss", *headlines(self.report.kind)])
        return [*(f"val_{name}" for name in names), "val_ece"]

    def _distribution(self, values: np.ndarray) -> Figure:
        key = f"val_{self.main}"
        marks = {"chosen": self.report.best[key]}
        marks |= {
            baseline_name(name): one.get(key) for name, one in self.report.baselines.items() if name not in CONSTANT
        }
        marks = {name: float(value) for name, value in marks.items() if value is not None}
        low, middle, high = np.quantile(values, [0, 0.5, 1])
        said = f"{name_of(key)} of {len(values):,} heads: from {low:.3f} to {high:.3f}, median {middle:.3f}"
        low, high = np.quantile(values, [0.25, 0.75])
        drawn = values[values >= low - FAR * (high - low)]
        if len(drawn) < len(values):  # one head of an R² of -1,000 would leave no room for the others
            said += f" ({plural(len(values) - len(drawn), 'head')} far below the others not drawn)"
        svg = plots.distribution(f"{self.prefix}distribution", name_of(key), drawn, marks)
        return Figure(svg, said, f"{said}.")

    def _spread(self) -> list[Any]:
        """What the seed alone changes."""
        spreads = self.report.spread[:SPREADS]
        if not spreads:
            return []
        settings = [one["settings"] for one in spreads]
        keys = swept(settings)[0]
        numbers = ("mean", "std", "min", "max")
        rows = [
            [
                i,
                *(setting(key, one["settings"]) for key in keys),
                len(one["heads"]),
                *(number(one[name]) for name in numbers),
            ]
            for i, one in enumerate(spreads, 1)
        ]
        titles = ("setting", *(SHOWN[key].label for key in keys), "seeds", "mean", "std", "lowest", "highest")
        which = (
            f"; the first {SPREADS} of {len(self.report.spread):,} settings"
            if len(self.report.spread) > SPREADS
            else ""
        )
        caption = f"What the seed alone changes: validation {title_of(spreads[0]['score'])}{which}"
        name = f"validation {title_of(spreads[0]['score'])}"
        svg = plots.spread(f"{self.prefix}spread", name, [(one["min"], one["mean"], one["max"]) for one in spreads])
        said = "; ".join(f"setting {i}: {one['min']:.3f} to {one['max']:.3f}" for i, one in enumerate(spreads, 1))
        figure = Figure(svg, f"Spread over the seeds. {said}", "From the worst seed to the best; the dot is the mean.")
        table = Grid(caption, titles, rows, words=(), folded=len(rows) > 1)
        return [figure, table] if len(rows) > 1 else [table]

    def _fold_scores(self) -> list[Any]:
        """The chosen settings, fold by fold."""
        if not self.folds:
            return []
        rows = []
        for fold, sides in enumerate(self.folds):
            head = self.info["heads"][f"{self.report.best['name']}/fold-{fold}"]
            kept, history = head["best_epoch"], head["history"]
            scores = [history[key][kept - 1] if kept else None for key in ("val_loss", f"val_{self.main}")]
            rows.append([fold + 1, *(count(sides[side]) for side in ("train", "val")), kept, *map(number, scores)])
        titles = ("fold", "training rows", "validation rows", "epoch", "val loss", f"val {title_of(self.main)}")
        return [Grid(f"The settings of {self.report.best['name']}, fold by fold", titles, rows, (), folded=True)]

    def curves(self) -> list[Any]:
        curves = self.column.curves
        if not curves or not curves["train_loss"].shape[1]:
            return []
        loss = {"train": curves["train_loss"][0], "validation": curves["val_loss"][0]}
        loss = {name: values for name, values in loss.items() if np.isfinite(values).any()}
        shown = "val_loss" if "validation" in loss else "train_loss"
        pictures = [self._curve("loss", loss, curves[shown][1:], "validation" if shown == "val_loss" else "training")]
        key = f"val_{self.main}"
        scored = np.isfinite(curves[key][0]).any()
        if scored:
            line = {"validation": curves[key][0]}
            pictures.append(self._curve(title_of(self.main), line, curves[key][1:], "validation"))
        columns = {"train loss": "train_loss", "val loss": "val_loss", name_of(key): key}
        columns = {name: one for name, one in columns.items() if np.isfinite(curves[one][0]).any()}
        epochs = np.flatnonzero(np.isfinite(curves["train_loss"][0]))
        step = -(-len(epochs) // EPOCHS)
        rows = [
            [int(epoch) + 1, *(number(json_number(curves[name][0, epoch])) for name in columns.values())]
            for epoch in epochs[::step]
        ]
        caption = f"{self.report.best['name']}, epoch by epoch" + (f", every {step} epochs" if step > 1 else "")
        return [FigureRow(pictures), Grid(caption, ("epoch", *columns), rows, words=(), folded=True)]

    def _curve(self, what: str, lines: dict[str, np.ndarray], others: np.ndarray, side: str) -> Figure:
        name, others = self.report.best["name"], others[np.isfinite(others).any(axis=1)]
        last = np.flatnonzero(np.isfinite(lines["train" if "train" in lines else "validation"])).max(initial=0)
        epochs = np.arange(1, lines[next(iter(lines))].shape[0] + 1)
        svg = plots.learning_curves(f"{self.prefix}{what}", what, epochs, {f"{k}": v for k, v in lines.items()}, others)
        ends = ", ".join(f"{k} {v[0]:.3f} at first, {v[last]:.3f} at last" for k, v in lines.items())
        rest = f"; grey: the {side} {what} of {plural(len(others), 'other head')}" if len(others) else ""
        folds = ", mean over the folds" if self.folds else ""
        return Figure(svg, f"{what} over {last + 1} epochs, {name}: {ends}", f"{name}{folds}: {what} by epoch{rest}.")

    def mistakes(self) -> list[Any]:
        kept = self.column.mistakes
        if "mistakes" not in self.info:
            return [
                Paragraph(
                    "This run did not keep its mistakes: an older embedcache made it. Train it again to see them."
                )
            ]
        blocks: list[Any] = []
        for side in ["test", "val"] if self.folds else [self.side]:
            items = kept.get(side, [])[:MISTAKES]
            if side in kept:
                blocks.append(Paragraph(self._mistakes_are(side, len(items))))
            if items:
                blocks.append(Mistakes([mistake_item(self.report.kind, one) for one in items]))
        if self.contents.notes:
            blocks.insert(0, Notes(self.contents.notes))
        if self.contents.texts and any(kept.values()):
            blocks.insert(0, Notes([self.contents.texts + "; row numbers stand for the texts that are not here"]))
        return blocks

    def _mistakes_are(self, side: str, n: int) -> str:
        if not n:
            return f"None of the {self.rows[side]} is wrong."
        if not kind_of(self.report.kind).has_classes:
            return f"The {n} largest errors among the {self.rows[side]}, each text once:"
        how = "the head that did not train on it" if side == "val" and self.folds else "the chosen head"
        return (
            f"The {n} wrong {self.rows[side]} of which {how} was surest, each text once. Some may be wrongly labelled."
        )
