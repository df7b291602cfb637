"""The sections that a run has once, for all its label columns: time, recipe, versions."""

from __future__ import annotations

from typing import Any

from embedcache.common.screen import plural
from embedcache.report.audit_section import audit_section
from embedcache.report.blocks import Facts, Grid, Paragraph, Section, count, seconds
from embedcache.report.contents import ReportContents


def make_ending(contents: ReportContents) -> list[Section]:
    """How long everything took, the recipe, and what it was made with."""
    info = contents.info
    names = {
        "reading": "reading the cache, splitting the rows",
        "training": "training the heads",
        "evaluation": "scoring the heads, calibration",
        "baselines": "the baselines",
    }
    total = info.get("seconds")
    rows = [[names.get(name, name), seconds(value)] for name, value in info.get("times", {}).items()]
    if not rows and info.get("train_seconds") is not None:
        rows = [["training the heads", seconds(info["train_seconds"])]]
    rows += [["everything", seconds(total)]] if total is not None else []
    rate = info.get("head_rows_per_second")
    speed = f"{plural(contents.heads, 'head')} in {seconds(info.get('train_seconds'))}"
    speed += f", {rate:,.0f} training rows a second summed over the heads" if rate else ""
    times = [
        Paragraph(f"{speed}, with {info.get('engine', '-')}."),
        Grid("Wall-clock time", ("", "time"), rows, folded=True),
    ]
    audit = contents.audit
    apart = [audit] if audit is not None and audit["label"] not in contents.columns else []
    return [
        *(audit_section(one, "") for one in apart),
        Section("Time", "time", times),
        Section("Recipe", "recipe", [Facts(_recipe(info))]),
        Section("Made with", "versions", [Facts(_made_with(info))]),
    ]


def _recipe(info: dict[str, Any]) -> list[tuple[str, str]]:
    def said(value: Any) -> str:
        return ", ".join(map(said, value)) if isinstance(value, list) else "-" if value is None else str(value)

    pairs = [("Recipe", str(info.get("recipe", "-")))]
    pairs += [(str(name).replace("_", " "), said(value)) for name, value in info.get("settings", {}).items()]
    pairs += [(str(name).replace("_", " "), said(value)) for name, value in info.get("options", {}).items()]
    return [pair for pair in pairs if pair[1] != "-"]


def _made_with(info: dict[str, Any]) -> list[tuple[str, str]]:
    cache, encoder = info.get("cache", {}), info.get("encoder", {})
    identity = encoder.get("identity", {})
    length, dtype = identity.get("max_length", "-"), identity.get("compute_dtype", "-")
    made = f"{identity.get('architecture', '-')}, cut at {length} tokens, computed in {dtype}"
    made = "its vectors were imported" if "imported" in identity else made
    versions = {"embedcache": info.get("embedcache", "-"), **info.get("versions", {})}
    return [
        ("Run", f"trained {info.get('created', '-')}"),
        (
            "Cache",
            f"{cache.get('path', '-')}, {count(cache.get('rows'))} rows, fingerprint {cache.get('fingerprint', '-')}",
        ),
        ("Encoder", f"{encoder.get('source', '-')} ({made})"),
        ("Stored as", str(encoder.get("store", "-"))),
        ("Engine", str(info.get("engine", "-"))),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
