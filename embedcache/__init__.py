"""embedcache: embed labelled texts once, train hundreds of heads in seconds, search the neighbours."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# What type checkers and editors see; at run time a name is looked up when it is first used (PEP 562), so that importing
# embedcache costs neither torch nor transformers. tests/test_public_names.py keeps the three lists together.
if TYPE_CHECKING:
    from embedcache import ops
    from embedcache.audit import AuditReport, audit_cache
    from embedcache.cache import Cache, VerifyReport, open_cache, verify
    from embedcache.classifier import Classifier, Prediction, Predictions
    from embedcache.common.labels import Labels, LabelWarning
    from embedcache.errors import EmbedcacheError
    from embedcache.evaluation import EvaluationReport, evaluate
    from embedcache.export import ExportReport, export_run
    from embedcache.extract import ExtractReport, extract
    from embedcache.heads.run import Run, load_heads, load_run
    from embedcache.heads.search_cv import FusedHeadSearchCV
    from embedcache.heads.sklearn import FusedHeadClassifier, FusedHeadRegressor
    from embedcache.heads.spec import HeadSpec, head_grid
    from embedcache.heads.train import BankResult, EngineWarning, train_heads
    from embedcache.heads.trained import TrainedHead
    from embedcache.index import Neighbours, SearchIndex
    from embedcache.index.making import IndexReport
    from embedcache.index.making import index_cache as index
    from embedcache.merging import MergeReport, merge
    from embedcache.predict import FileReport, predict_file
    from embedcache.report import ReportFile
    from embedcache.report import write_report as report
    from embedcache.search import Answer, Found, Query, Searcher
    from embedcache.searching import SearchReport
    from embedcache.searching import search_cache as search
    from embedcache.searching_file import SearchFileReport, search_file
    from embedcache.serve.main import serve_cache as serve
    from embedcache.training_run import RunReport, train_run

# Public name -> the module that holds it; one that is such a module itself can be called (common/callable_module.py).
_HOME = {
    "Answer": "embedcache.search",
    "AuditReport": "embedcache.audit",
    "BankResult": "embedcache.heads.train",
    "Cache": "embedcache.cache",
    "Classifier": "embedcache.classifier",
    "EmbedcacheError": "embedcache.errors",
    "EngineWarning": "embedcache.heads.train",
    "EvaluationReport": "embedcache.evaluation",
    "ExportReport": "embedcache.export",
    "ExtractReport": "embedcache.extract",
    "FileReport": "embedcache.predict",
    "Found": "embedcache.search",
    "FusedHeadClassifier": "embedcache.heads.sklearn",
    "FusedHeadRegressor": "embedcache.heads.sklearn",
    "FusedHeadSearchCV": "embedcache.heads.search_cv",
    "HeadSpec": "embedcache.heads.spec",
    "IndexReport": "embedcache.index.making",
    "LabelWarning": "embedcache.common.labels",
    "Labels": "embedcache.common.labels",
    "MergeReport": "embedcache.merging",
    "Neighbours": "embedcache.index",
    "Prediction": "embedcache.classifier",
    "Predictions": "embedcache.classifier",
    "Query": "embedcache.search",
    "ReportFile": "embedcache.report",
    "Run": "embedcache.heads.run",
    "RunReport": "embedcache.training_run",
    "SearchFileReport": "embedcache.searching_file",
    "SearchIndex": "embedcache.index",
    "SearchReport": "embedcache.searching",
    "Searcher": "embedcache.search",
    "TrainedHead": "embedcache.heads.trained",
    "VerifyReport": "embedcache.cache",
    "audit_cache": "embedcache.audit",
    "evaluate": "embedcache.evaluation",
    "export_run": "embedcache.export",
    "extract": "embedcache.extract",
    "head_grid": "embedcache.heads.spec",
    "index": "embedcache.index",
    "load_heads": "embedcache.heads.run",
    "load_run": "embedcache.heads.run",
    "merge": "embedcache.merging",
    "open_cache": "embedcache.cache",
    "ops": "embedcache.ops",  # a module that needs torch
    "predict_file": "embedcache.predict",
    "report": "embedcache.report",
    "search": "embedcache.search",
    "search_file": "embedcache.searching_file",
    "serve": "embedcache.serve",
    "train_heads": "embedcache.heads.train",
    "train_run": "embedcache.training_run",
    "verify": "embedcache.cache",
}

__all__ = [
    "Answer",
    "AuditReport",
    "BankResult",
    "Cache",
    "Classifier",
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
    "LabelWarning",
    "Labels",
    "MergeReport",
    "Neighbours",
    "Prediction",
    "Predictions",
    "Query",
    "ReportFile",
    "Run",
    "RunReport",
    "SearchFileReport",
    "SearchIndex",
    "SearchReport",
    "Searcher",
    "TrainedHead",
    "VerifyReport",
    "__version__",
    "audit_cache",
    "evaluate",
    "export_run",
    "extract",
    "head_grid",
    "index",
    "load_heads",
    "load_run",
    "merge",
    "open_cache",
    "ops",
    "predict_file",
    "report",
    "search",
    "search_file",
    "serve",
    "train_heads",
    "train_run",
    "verify",
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
