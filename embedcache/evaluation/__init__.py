"""Runs on rows with known labels: scores, intervals, comparisons.

Files, in the order in which to read them:

    job         The door: runs and rows with gold labels in, scores with intervals out
    gold        What a run is held against: the rows of a table or a cache, with their gold labels and groups
    trained     Which texts and groups a run has learned from
    targets     Gold labels and a head's outputs in the same codes
    baselines   What a run must beat on new rows: its baselines, trained again on the run's own training rows
    curves      What another threshold would give: precision and recall of a class
    report      What evaluate found, as data
    page        An evaluation as one HTML file that needs no network: the report's blocks, the numbers of ``report``
"""

from __future__ import annotations

from embedcache.evaluation.job import evaluate
from embedcache.evaluation.report import EvaluationReport, RunScores, ScoreValue

__all__ = ["EvaluationReport", "RunScores", "ScoreValue", "evaluate"]
