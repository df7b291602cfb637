"""The tables of benchmarks/prediction's JSON, as Markdown; write.py puts them into docs/trust.md and docs/drift.md."""

from __future__ import annotations

from statistics import mean
from typing import Any


def reject_table(report: dict[str, Any]) -> str:
    """reject.py: what was promised and what became of it, then the share of rows from elsewhere that get a label."""
    others = list(report["elsewhere"])
    lines = [
        f"{report['rows']:,} film reviews, {len(report['runs'])} splits by film. Means over the splits; inside: in how "
        "many the figure of the test rows lay in the promised 95% interval; explained: in how many both samples "
        "together explain the difference.",
        "",
        "| `--reject` | rows with a label: promised, test | inside, explained | of these right: promised, test "
        "| inside, explained |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for limit, one in report["summary"].items():
        cells = []
        for name in ("kept", "accuracy"):
            about = one[name]
            cells += [
                f"{about['promised']:.1%}, {about['test']:.1%}",
                f"{about['inside']:.0%}, {about['agrees']:.0%}",
            ]
        lines.append(f"| {limit} | {' | '.join(cells)} |")
    lines += [
        "",
        "Rows from elsewhere that get a label all the same:",
        "",
        "| `--reject` | " + " | ".join(f"{name} ({rows:,})" for name, rows in report["elsewhere"].items()) + " |",
        f"| --- |{' ---: |' * len(others)}",
    ]
    for limit, one in report["summary"].items():
        kept = [f"{one['elsewhere'][name]['kept']:.1%}" for name in others]
        lines.append(f"| {limit} | {' | '.join(kept)} |")
    return "\n".join(lines) + "\n"


def explain_table(report: dict[str, Any]) -> str:
    """explain.py: what deletion changes, and the rate."""
    change, flips, cpu = report["mean_change"], report["label_changes"], report["machine"]["cpu"].split(" (")[0]
    return (
        f"MiniLM, {report['texts']} test reviews: deleting the (at most) {report['words']} words that carry the label "
        f"moves its probability by {change['named']:.3f} on average, as many random others by {change['random']:.3f}; "
        f"more in {report['named_changes_more']:.1%} of the {report['compared']} texts that have so many words. "
        f"Another label is then predicted for {flips['named']:.0%} and {flips['random']:.0%} of them.\n\n"
        f"The {report['texts']} texts are {report['encodings']:,} encodings: "
        f"{report['texts_per_second']:.0f} texts a second on the two cores of an {cpu} (load average "
        f"{report['load_average']:.0f}; {report['texts_per_processor_second']:.1f} a second of processor time). The "
        f"encoder's rate is the bound, {report['encodings'] / report['seconds']:.0f} encodings a second there: a "
        f"hundred such texts are {100 * report['encodings'] / report['texts']:,.0f} encodings.\n"
    )


def explain_words_table(report: dict[str, Any]) -> str:
    """explain.py --tried: what a search of some words finds, and the rate."""
    change, full = report["mean_change"], report["full"]
    return (
        f"By {report['tried']} words of each, {report['texts']} test reviews: deleting the (at most) {report['words']} "
        f"named words moves the probability by {change['named']:.3f}, as many random others by {change['random']:.3f}; "
        f"more in {report['named_changes_more']:.1%} of {report['compared']} texts. Of {full['texts']} texts it names "
        f"{full['words_found']:.0%} of the first {report['words']} words of a full search, and its words have "
        f"{full['effect_share']:.0%} of the effect of those. {report['texts_per_second']:.0f} texts a second on two "
        f"cores (load average {report['load_average']:.0f}).\n"
    )


def drift_table(report: dict[str, Any]) -> str:
    """drift.py: alarms among rows of one table, what is found of another, and estimated shares."""
    same, shares = report["alike"], report["shares"]
    lines = [
        f"Reviews beside reviews, {same['rows']:,} rows on each side: {same['alarms']} alarms in {same['draws']} draws "
        f"(mean AUC {mean(same['aucs']):.3f}). Two hundred reviews beside two hundred rows from elsewhere:",
        "",
        "| | found | mean AUC | lowest |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, one in report["elsewhere"].items():
        lines.append(f"| {name} | {one['found']} of {one['draws']} | {one['mean_auc']:.3f} | {one['lowest_auc']:.3f} |")
    lines += [
        "",
        "A thousand reviews of which a known share is fresh, beside 4,000 with their own share; means of "
        f"{sum(one['true'] == shares[0]['true'] for one in shares)} draws:",
        "",
        "| true share | estimated | in the 95% interval |",
        "| ---: | ---: | ---: |",
    ]
    for true in sorted({one["true"] for one in shares}):
        some = [one for one in shares if one["true"] == true]
        estimate, inside = mean(one["estimate"] for one in some), sum(one["inside"] for one in some)
        lines.append(f"| {true:.0%} | {estimate:.1%} | {inside} of {len(some)} |")
    lines += [
        "",
        "Many classes, two thirds of the rows old: the share of the new rows that would have to change its class until "
        f"the estimated shares were the true ones, means of {len(next(iter(report['classes'].values()))) // 2} draws. "
        '"Shifted": of each class a random part is left out.',
        "",
        "| | classes | new rows | estimated shares | the old shares | in their 95% intervals |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, draws in report["classes"].items():
        for shifted in (False, True):
            some = [one for one in draws if one["shifted"] == shifted]
            rows, off, old = (mean(one[key] for one in some) for key in ("rows", "estimate", "old"))
            inside = mean(one["inside"] / one["classes"] for one in some)
            title = f"{name}, shifted" if shifted else name
            lines.append(f"| {title} | {some[0]['classes']} | {rows:,.0f} | {off:.1%} | {old:.1%} | {inside:.0%} |")
    return "\n".join(lines) + "\n"
