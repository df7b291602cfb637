"""embedcache: embed labelled texts once, train hundreds of heads in seconds, search the neighbours."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# What type checkers and editors see; at run time a name is looked up when it is first used (PEP 562), so that importing
# embedcache costs neither torch nor transformers. tests/test_public_names.py keeps the three lists together.
if TYPE_CHECKING:
    from embedcache import ops
    from embedcache.active_learning.job import NextReport, next_rows
    from embedcache.audit import AuditReport
    from embedcache.audit import audit_cache as audit
    from embedcache.cache import Cache, VerifyReport, open_cache, verify
    from embedcache.common.labels import Labels, LabelWarning
    from embedcache.drift import DriftReport
    from embedcache.drift import compare_rows as drift
    from embedcache.errors import EmbedcacheError
    from embedcache.evaluation import EvaluationReport, evaluate
    from embedcache.export import ExportReport
    from embedcache.export import export_run as export
    from embedcache.extraction.job import ExtractReport, extract
    from embedcache.extraction.merge import MergeReport, merge
    from embedcache.finetune import TuneReport
    from embedcache.finetune.job import finetune
    from embedcache.heads.engine import EngineWarning
    from embedcache.heads.head import TrainedHead
    from embedcache.heads.search_cv import FusedHeadSearchCV
    from embedcache.heads.sklearn import FusedHeadClassifier, FusedHeadRegressor
    from embedcache.heads.spec import HeadSpec, head_grid
    from embedcache.heads.train import BankResult, train_heads
    from embedcache.index import Neighbours, SearchIndex
    from embedcache.index.job import IndexReport
    from embedcache.index.job import index_cache as index
    from embedcache.labelling import LabelEntry, LabelJournal, Overlay
    from embedcache.labelling.corrected import LabelsReport, labels
    from embedcache.labelling.relabel import RelabelReport, relabel
    from embedcache.ladder import LadderReport
    from embedcache.ladder.job import ladder
    from embedcache.prediction.classifier import Classifier, Prediction, Predictions
    from embedcache.prediction.job import FileReport, predict_file
    from embedcache.pretraining.job import AdaptReport, adapt
    from embedcache.prompting.job import ZeroShotReport, zero_shot
    from embedcache.report import ReportFile
    from embedcache.report import write_report as report
    from embedcache.report.train_run import RunReport, train_run
    from embedcache.runs.folder import Run, load_heads, load_run
    from embedcache.search.file import SearchFileReport, search_file
    from embedcache.search.job import SearchReport
    from embedcache.search.job import search_cache as search
    from embedcache.search.searcher import Answer, Found, Query, Searcher
    from embedcache.serve.job import label_cache
    from embedcache.serve.job import serve_cache as serve
    from embedcache.vector_store.job import CachedEncoder, cached
    from embedcache.vectors.job import import_vectors
    from embedcache.vectors.write import VectorsReport, write_vectors

# Public name -> the module that holds it; one that is such a module itself can be called (common/callable_module.py).
_HOME = {
    "AdaptReport": "embedcache.pretraining.job",
    "Answer": "embedcache.search.searcher",
    "AuditReport": "embedcache.audit",
    "BankResult": "embedcache.heads.train",
    "Cache": "embedcache.cache",
    "CachedEncoder": "embedcache.vector_store.job",
    "Classifier": "embedcache.prediction.classifier",
    "EmbedcacheError": "embedcache.errors",
    "EngineWarning": "embedcache.heads.engine",
    "DriftReport": "embedcache.drift",
    "EvaluationReport": "embedcache.evaluation",
    "ExportReport": "embedcache.export",
    "ExtractReport": "embedcache.extraction.job",
    "FileReport": "embedcache.prediction.job",
    "Found": "embedcache.search.searcher",
    "FusedHeadClassifier": "embedcache.heads.sklearn",
    "FusedHeadRegressor": "embedcache.heads.sklearn",
    "FusedHeadSearchCV": "embedcache.heads.search_cv",
    "HeadSpec": "embedcache.heads.spec",
    "IndexReport": "embedcache.index.job",
    "LabelEntry": "embedcache.labelling",
    "LabelJournal": "embedcache.labelling",
    "LabelWarning": "embedcache.common.labels",
    "Labels": "embedcache.common.labels",
    "LabelsReport": "embedcache.labelling.corrected",
    "LadderReport": "embedcache.ladder",
    "MergeReport": "embedcache.extraction.merge",
    "Neighbours": "embedcache.index",
    "NextReport": "embedcache.active_learning.job",
    "Overlay": "embedcache.labelling",
    "Prediction": "embedcache.prediction.classifier",
    "Predictions": "embedcache.prediction.classifier",
    "Query": "embedcache.search.searcher",
    "RelabelReport": "embedcache.labelling.relabel",
    "ReportFile": "embedcache.report",
    "Run": "embedcache.runs.folder",
    "RunReport": "embedcache.report.train_run",
    "SearchFileReport": "embedcache.search.file",
    "SearchIndex": "embedcache.index",
    "SearchReport": "embedcache.search.job",
    "Searcher": "embedcache.search.searcher",
    "TrainedHead": "embedcache.heads.head",
    "TuneReport": "embedcache.finetune",
    "VectorsReport": "embedcache.vectors.write",
    "VerifyReport": "embedcache.cache",
    "ZeroShotReport": "embedcache.prompting.job",
    "adapt": "embedcache.pretraining.job",
    "audit": "embedcache.audit",
    "drift": "embedcache.drift",
    "cached": "embedcache.vector_store.job",
    "evaluate": "embedcache.evaluation",
    "export": "embedcache.export",
    "extract": "embedcache.extraction.job",
    "finetune": "embedcache.finetune",
    "head_grid": "embedcache.heads.spec",
    "import_vectors": "embedcache.vectors.job",
    "index": "embedcache.index",
    "label_cache": "embedcache.serve.job",
    "labels": "embedcache.labelling.corrected",
    "ladder": "embedcache.ladder",
    "load_heads": "embedcache.runs.folder",
    "load_run": "embedcache.runs.folder",
    "merge": "embedcache.extraction.merge",
    "next_rows": "embedcache.active_learning.job",
    "open_cache": "embedcache.cache",
    "ops": "embedcache.ops",  # a module that needs torch
    "predict_file": "embedcache.prediction.job",
    "relabel": "embedcache.labelling.relabel",
    "report": "embedcache.report",
    "search": "embedcache.search",
    "search_file": "embedcache.search.file",
    "serve": "embedcache.serve",
    "train_heads": "embedcache.heads.train",
    "train_run": "embedcache.report.train_run",
    "verify": "embedcache.cache",
    "write_vectors": "embedcache.vectors.write",
    "zero_shot": "embedcache.prompting.job",
}

__all__ = [
    "AdaptReport",
    "Answer",
    "AuditReport",
    "BankResult",
    "Cache",
    "CachedEncoder",
    "Classifier",
    "DriftReport",
    "EmbedcacheError",
    "EngineWarning",
    "EvaluationReport",
    "ExportReport",
    "ExtractReport",
    "FileReport",
    "Found",
    "FusedHeadClassifier",
    "FusedHeadRegressor",
    "FusedHeadSearchCV",
    "HeadSpec",
    "IndexReport",
    "LabelEntry",
    "LabelJournal",
    "LabelWarning",
    "Labels",
    "LabelsReport",
    "LadderReport",
    "MergeReport",
    "Neighbours",
    "NextReport",
    "Overlay",
    "Prediction",
    "Predictions",
    "Query",
    "RelabelReport",
    "ReportFile",
    "Run",
    "RunReport",
    "SearchFileReport",
    "SearchIndex",
    "SearchReport",
    "Searcher",
    "TrainedHead",
    "TuneReport",
    "VectorsReport",
    "VerifyReport",
    "ZeroShotReport",
    "__version__",
    "adapt",
    "audit",
    "cached",
    "drift",
    "evaluate",
    "export",
    "extract",
    "finetune",
    "head_grid",
    "import_vectors",
    "index",
    "label_cache",
    "labels",
    "ladder",
    "load_heads",
    "load_run",
    "merge",
    "next_rows",
    "open_cache",
    "ops",
    "predict_file",
    "relabel",
    "report",
    "search",
    "search_file",
    "serve",
    "train_heads",
    "train_run",
    "verify",
    "write_vectors",
    "zero_shot",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'embedcache' has no attribute {name!r}")
    module = importlib.import_module(home)
    found = module if home == f"{__name__}.{name}" else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
