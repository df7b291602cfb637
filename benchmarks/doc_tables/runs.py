"""The table of benchmarks/runs/small.py's JSON, as Markdown; write.py puts it into docs/recipes.md."""

from __future__ import annotations

from typing import Any

NAMES = {
    "reviews": "critics' snippets, two classes, other films",
    "tweets": "tweets, two authors",
    "topics": "newsgroups, five topics",
    "newsgroups": "newsgroups, twenty",
    "reuters": "Reuters, eight unequal classes",
    "drugs": "drug reviews, three unequal classes",
    "friends": "lines of six characters",
    "hierarchy": "newsgroups, several labels (macro F1)",
    "retweets": "retweets, a number (R²)",
    "useful": "drug reviews, how useful, a number (R²)",
}


def small_table(report: dict[str, Any]) -> str:
    """One row for each data set, pooling and number of rows; means over the draws."""
    lines = [
        "| data, vectors | rows | default | over scikit-learn (95%) | scikit-learn | TF-IDF | commonest | 07bcc49 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    last = ""
    for line in sorted(report["summary"], key=_place):
        name, pooling, rows = line["case"].split(", ")
        if "over vectors" not in line:
            continue
        title = f"{NAMES[name]}, {pooling}"
        mean, low, high = line["over vectors"]
        scores = [f"{line[who]:.3f}" if who in line else "-" for who in ("vectors", "tfidf", "majority", "before")]
        lines.append(
            f"| {'' if title == last else title} | {int(rows):,} | **{line['default']:.3f}** "
            f"| {mean:+.3f} ({low:+.3f} to {high:+.3f}) | {' | '.join(scores)} |"
        )
        last = title
    return "\n".join(lines) + "\n"


def _place(line: dict[str, Any]) -> tuple[int, str, int]:
    name, pooling, rows = line["case"].split(", ")
    return list(NAMES).index(name), "" if pooling == "mean" else pooling, int(rows)
