"""Prometheus metrics, the log of requests, and the last line of defence: no request ends in a stack trace."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from embedcache.serve.security import refuse

if TYPE_CHECKING:
    from prometheus_client import Metric
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from embedcache.serve.asked import AskedTexts
    from embedcache.serve.service import Service

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
JOBS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one server; ``registry`` holds them."""

    def __init__(self, service: Service) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("embedcache_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "embedcache_request_seconds", "Time to answer.", ["route"], buckets=SECONDS, registry=registry
        )
        self.in_flight = Gauge("embedcache_requests_in_flight", "Requests not answered yet.", registry=registry)
        self.batches = Histogram(
            "embedcache_batch_jobs", "Requests done together.", ["work"], buckets=JOBS, registry=registry
        )
        self.waiting = Gauge("embedcache_waiting_jobs", "Requests in a queue.", ["work"], registry=registry)
        Gauge("embedcache_cache_rows", "Rows of the cache.", registry=registry).set(service.cache.rows)
        for work in ("encoding", "searching"):
            self.waiting.labels(work).set_function(partial(_waiting, service, work))
        if service.asked is not None:
            self._add_asked(service.asked)
        service.tell_batch = lambda work, jobs: self.batches.labels(work).observe(jobs)

    def _add_asked(self, asked: AskedTexts) -> None:
        labels = Counter("embedcache_predictions", "Texts by label.", ["column", "label"], registry=self.registry)
        asked.tell = lambda column, label, texts: labels.labels(column, label).inc(texts)
        self.registry.register(AskedMetrics(asked))


class AskedMetrics(Collector):
    """How what was asked compares with the cache, as it is when the metrics are read."""

    def __init__(self, asked: AskedTexts) -> None:
        self.asked = asked

    def collect(self) -> Iterator[Metric]:
        last = self.asked.last
        name = "embedcache_drift"
        yield GaugeMetricFamily(f"{name}_texts", "Asked texts that were compared last.", last.texts if last else 0)
        if last is None:
            return
        about = "How well a head tells asked texts from the cache's rows: AUC"
        yield GaugeMetricFamily(f"{name}_auc", f"{about}.", last.auc)
        yield GaugeMetricFamily(f"{name}_auc_low", f"{about}, lower end of the 95% interval.", last.low)
        yield GaugeMetricFamily(f"{name}_auc_high", f"{about}, upper end of the 95% interval.", last.high)
        shares = GaugeMetricFamily(f"{name}_label_share", "Estimated among asked texts.", labels=["column", "label"])
        for column, every in last.shares.items():
            for label, share in every.items():
                shares.add_metric([column, label], share)
        yield shares


def _waiting(service: Service, work: str) -> float:
    return service.waiting[work]


class Record:
    """ASGI middleware: counts and times every request, logs it by route alone, catches what nobody expected."""

    def __init__(self, app: ASGIApp, metrics: Metrics, log: Callable[[str], None], verbose: bool) -> None:
        self.app, self.metrics, self.log, self.verbose = app, metrics, log, verbose

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        start = time.perf_counter()
        with self.metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, watched_send)
            except Exception as error:
                self.log(f"Error: {scope['method']} {_route(scope)} failed: {_where(error)}")
                if not status:
                    detail = "an unexpected error; the server's log has a line about it"
                    await refuse(scope, receive, watched_send, 500, detail)
        seconds, route = time.perf_counter() - start, _route(scope)
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        if self.verbose:
            self.log(f"{scope['method']} {route} {status} {1000 * seconds:.1f} ms")


def _route(scope: Scope) -> str:
    """The route's template: a path may hold anything."""
    route: Any = scope.get("route")
    return getattr(route, "path", None) or ("/static" if scope["path"].startswith("/static/") else "other")


def _where(error: Exception) -> str:
    """Kind and place, without the message, which may hold a text."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
