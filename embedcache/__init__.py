"""embedcache: embed labelled texts once, train hundreds of heads in seconds, search the neighbours."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that holds it. Importing embedcache costs neither torch nor transformers: a name is
# looked up when it is first used (PEP 562).
_HOME = {
    "EmbedcacheError": "embedcache.errors",
    "extract": "embedcache.extract",
    "ExtractReport": "embedcache.extract",
    "merge": "embedcache.merging",
    "MergeReport": "embedcache.merging",
    "open_cache": "embedcache.cache",
    "HeadSpec": "embedcache.heads.spec",
    "head_grid": "embedcache.heads.spec",
    "train_heads": "embedcache.heads.train",
    "Classifier": "embedcache.classifier",
    "SearchIndex": "embedcache.index",
    "Query": "embedcache.search",
    "Searcher": "embedcache.search",
    "audit_cache": "embedcache.audit",
    "AuditReport": "embedcache.audit",
    "export_run": "embedcache.export",
    "ExportReport": "embedcache.export",
}
__all__ = ["__version__", "ops", *_HOME]


def __getattr__(name: str) -> Any:
    if name == "ops":  # a module that needs torch
        return importlib.import_module("embedcache.ops")
    if name not in _HOME:
        raise AttributeError(f"module 'embedcache' has no attribute {name!r}")
    home = importlib.import_module(_HOME[name])
    # All its names: the import has bound the module embedcache.extract where the function of that name belongs.
    globals().update({public: getattr(home, public) for public, place in _HOME.items() if place == _HOME[name]})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted(__all__)
