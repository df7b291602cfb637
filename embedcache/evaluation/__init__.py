"""Runs on rows with known labels: scores, intervals, comparisons.

gold: the rows and their labels, from a table or a cache. targets: these labels in a head's codes. trained: which of the
texts a run has learnt from. baselines: what each run must beat. curves: other thresholds. report: what is found, as
data. job: the door. page: the same as one HTML file.
"""

from __future__ import annotations

from embedcache.evaluation.job import evaluate
from embedcache.evaluation.report import EvaluationReport, RunScores, Score

__all__ = ["EvaluationReport", "RunScores", "Score", "evaluate"]
