"""Connect to a Ray cluster, or start one on this machine; quietly, with errors in one line."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
from collections.abc import Sequence
from typing import Any

from embedcache.common.machine import usable_cores
from embedcache.common.reaper import Reaper
from embedcache.errors import EmbedcacheError

CORES = 16  # the most for one actor on a CPU, unless --workers sets the number of actors


class Cluster:
    """A connection to Ray. ``close`` ends it, unless it existed before.

    Processes that are started here end with this one, even if it is killed. Ray itself would leave some of them behind.

    Attributes:
        cores: of each node that has any.
        gpus: of all nodes together.
    """

    def __init__(self, address: str, workers: int | None) -> None:
        """Connect.

        Args:
            address: "local" starts a cluster here; "auto" or HOST:PORT connects to one.
            workers: the number of actors, which a cluster started here must have cores for.

        Raises:
            EmbedcacheError: Ray is not installed, or nothing answers at the address.
        """
        local = address == "local"
        _check_address(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if local:  # despite its name, on Linux this keeps all ports on the loopback address
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        try:
            self.ray: Any = importlib.import_module("ray")
        except ImportError:
            raise EmbedcacheError("--ray and --workers need Ray: pip install 'embedcache[ray]'") from None
        self._mine = not self.ray.is_initialized()
        self._reaper: Reaper | None = None
        if self._mine:
            before = signal.getsignal(signal.SIGTERM)
            if local:
                self._reaper = Reaper()
                with self._reaper:
                    self._connect(address, max(usable_cores(), workers or 1))
            else:
                self._connect(address, None)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray installs its own handler, which would end silently
            _silence()
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        self.cores = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
        self.gpus = int(sum(node.get("GPU", 0) for node in nodes))

    def _connect(self, address: str, cores: int | None, tries: int = 2) -> None:
        """``cores``: for a cluster to start here, which may need a second try on a busy machine; None: connect only."""
        local: dict[str, Any] = {"num_cpus": cores, "include_dashboard": False} if cores else {}
        try:
            self.ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
        except Exception as error:  # Ray raises many types here, bare Exception among them
            self.ray.shutdown()
            if cores and tries > 1:
                return self._connect(address, cores, tries - 1)
            reason = " ".join(str(error).split())[:200]
            if not cores:
                raise _no_cluster(address, reason) from None
            raise EmbedcacheError(f"Ray does not start here ({reason}): see /tmp/ray/session_latest/logs") from None

    def close(self) -> None:
        """End the connection, and a cluster that was started here."""
        if self._mine:
            self.ray.shutdown()
        if self._reaper is not None:
            self._reaper.close()


def _check_address(address: str) -> None:
    """Check that the address answers. Ray itself would try for minutes, and print."""
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise EmbedcacheError(
            f"Ray address {address!r}: use local, auto, or HOST:PORT of the cluster's head (not ray://, run on a node)"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, reason: str) -> EmbedcacheError:
    return EmbedcacheError(
        f"no Ray cluster answers at {address} ({reason}): start one with ray start --head, or use --ray local"
    )


def _silence() -> None:
    """Stop Ray from printing on stdout, which is for JSON, that a worker died. It has no setting for that."""
    module: Any = importlib.import_module("ray._private.worker")
    if hasattr(module, "print_to_stdstream"):
        module.print_to_stdstream = lambda *_, **__: None


def cores_for(nodes: Sequence[int], workers: int | None) -> tuple[int, int]:
    """(number of workers, cores of each) on CPUs, from the cores of each node.

    Each worker gets as many cores as still let all workers run at once. If even one each is too many, some must wait.
    """
    if workers is None:
        workers = sum(-(-cores // CORES) for cores in nodes)
    for cores in range(max(nodes), 1, -1):
        if sum(node // cores for node in nodes) >= workers:
            return workers, cores
    return workers, 1
