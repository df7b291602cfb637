"""What a cached matrix tells of its own rows: likely label errors, duplicates, outliers."""

from __future__ import annotations

from embedcache.audit.job import audit_cache
from embedcache.audit.report import AuditReport

__all__ = ["AuditReport", "audit_cache"]
