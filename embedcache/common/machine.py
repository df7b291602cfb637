"""What this process may use of the machine: cores and memory, the limits of its control group counted."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from embedcache.errors import EmbedcacheError

CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60  # bytes; version 1 writes a number near 2**63 where there is no limit
# Each is how many threads a library starts, read when that library is loaded. Apache Arrow reads OpenMP's, too.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the processor time that its control group allows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, -int(-quota // 1)))


def cpu_quota(root: Path = CGROUPS) -> float | None:
    """How many cores' time the cgroup allows (v2 or v1); None without a limit."""
    try:
        limit, period = (root / "cpu.max").read_text("utf-8").split()
    except (OSError, ValueError):
        try:
            limit, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text("utf-8") for name in ("quota", "period"))
        except OSError:
            return None
    return None if limit.strip() in ("max", "-1") else int(limit) / int(period)


def cap_threads() -> list[str]:
    """Lower what asks libraries for more threads than there are cores; returns a line for each change.

    Thousands of OpenMP threads on two cores wait for each other for hours. Call it before NumPy, torch or FAISS load.
    """
    cores, notes = usable_cores(), []
    for name in THREAD_VARIABLES:
        first, comma, nested = os.environ.get(name, "").partition(",")  # OpenMP's may be a list, one number a level
        if first.strip().isdecimal() and int(first) > cores:
            notes.append(f"{name}={first.strip()} is lowered to {cores}: this process may use no more cores")
            os.environ[name] = str(cores) + comma + nested
    quota = cpu_quota()
    if quota is not None and cores < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))  # libraries see all cores, and none of the quota
    return notes


def cap_loaded_threads() -> None:
    """The same for libraries that are loaded already, as in a Python session."""
    from threadpoolctl import threadpool_info, threadpool_limits

    cores = usable_cores()
    if any(pool["num_threads"] > cores for pool in threadpool_info()):
        threadpool_limits(cores)  # stays until somebody sets another number


def memory_limit(root: Path = CGROUPS) -> int | None:
    """Bytes that the cgroup allows (v2 or v1); None without a limit."""
    limits = [_limit(folder / name) for folder, name, _ in _groups(root)]
    return min((limit for limit in limits if limit is not None), default=None)


def memory_free(root: Path = CGROUPS, process: Path = Path("/proc")) -> float:
    """Bytes that can still be had without swapping or being killed; infinite where the system does not say.

    The least of: what the machine has available, what this process's control group and those around it may still
    take (files' pages in memory can go, so they count as free), and what ``ulimit -v`` leaves.
    """
    free = [_machine_free(process), _address_space_free(process)]
    for folder, limit_name, use_name in _groups(root):
        limit = _limit(folder / limit_name)
        if limit is not None:
            with suppress(OSError, ValueError):
                use = int((folder / use_name).read_text("utf-8"))
                free.append(float(max(0, limit - use + _file_pages(folder / "memory.stat"))))
    return min(free)


def check_memory(needed: float, what: str, advice: str) -> None:
    """Raise before the system kills the process.

    Args:
        needed: Bytes, estimated.
        what: What needs them, such as "2,000 heads".
        advice: What to do instead.

    Raises:
        EmbedcacheError: Fewer bytes are free.
    """
    free = memory_free()
    if needed > free:
        raise EmbedcacheError(f"{what} need about {size(needed)} of memory, {size(free)} are free: {advice}")


def size(count: float) -> str:
    """Bytes for people: "12.4 GB", "340 MB", "8 kB"."""
    if count >= 1e9:
        return f"{count / 1e9:,.1f} GB"
    return f"{count / 1e6:,.0f} MB" if count >= 1e6 else f"{count / 1e3:,.0f} kB"


def _groups(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Folders of this process's control group and of those around it, and the names of their files."""
    own = _own_groups()
    versions = (
        (root, own.get("", ""), "memory.max", "memory.current"),
        (root / "memory", own.get("memory", ""), "memory.limit_in_bytes", "memory.usage_in_bytes"),
    )
    for base, path, limit, use in versions:
        folders = [base]
        for part in Path(path.lstrip("/")).parts:
            folders.append(folders[-1] / part)
        # In a container the path may be that of the host, while its own group is mounted as the root.
        yield from ((folder, limit, use) for folder in folders if (folder / limit).exists())


def _own_groups() -> dict[str, str]:
    """Controller -> path, as /proc/self/cgroup has it; "" is version 2."""
    found = {}
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text("utf-8", "replace").splitlines():
            _, controllers, path = line.split(":", 2)
            found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _limit(path: Path) -> int | None:
    try:
        text = path.read_text("utf-8").strip()
        return None if text == "max" or int(text) >= UNLIMITED else int(text)
    except (OSError, ValueError):
        return None


def _file_pages(stat: Path) -> int:
    """Bytes of files' pages that the group's use counts, of all groups in it."""
    fields = dict(line.split() for line in stat.read_text("utf-8").splitlines())
    prefix = "total_" if "total_inactive_file" in fields else ""
    return sum(int(fields.get(prefix + name, 0)) for name in ("inactive_file", "active_file"))


def _machine_free(process: Path) -> float:
    with suppress(OSError, ValueError):
        for line in (process / "meminfo").read_text("utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return float("inf")


def _address_space_free(process: Path) -> float:
    if sys.platform == "win32":
        return float("inf")
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return float("inf")
    with suppress(OSError, ValueError):
        pages = int((process / "self" / "statm").read_text("utf-8").split()[0])
        return float(max(0, soft - pages * resource.getpagesize()))
    return float("inf")
