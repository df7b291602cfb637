"""The command line as a process of its own, which is what signals, locks and full disks happen to."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_reviews, write_csv

ROOT = Path(__file__).resolve().parents[2]


class Command(subprocess.Popen):
    """`embedcache ARGUMENTS` in another process, by ``script`` instead where there is one; ``finish`` waits for it."""

    def __init__(
        self,
        *arguments: Any,
        script: Path | None = None,
        environment: dict[str, str] | None = None,
        within: Sequence[str] = (),
        **options: Any,
    ) -> None:
        """``within``: what goes before the command on the line."""
        line = [*within, sys.executable, *([str(script)] if script else ["-m", "embedcache"]), *map(str, arguments)]
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})}
        super().__init__(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables, **options)

    def finish(self, timeout: float = 280) -> tuple[int, str, str]:
        try:
            stdout, stderr = self.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()  # it would go on beside every test that follows
            raise
        return self.returncode, stdout, stderr


@pytest.fixture
def extract_command(tiny_bert: Path, tmp_path: Path) -> Callable[..., Command]:
    """Starts an extract of n reviews into cache.h5 of this test's folder."""

    def start(rows: int, *more: Any, cache: Path | None = None, **options: Any) -> Command:
        table = tmp_path / f"table-{rows}.csv"
        if not table.exists():
            write_csv(table, make_reviews(rows))
        output = cache or tmp_path / "cache.h5"
        arguments = ["extract", table, "-o", output, "--model", tiny_bert, "--device", "cpu", *more]
        return Command(*arguments, **options)

    return start


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A tmpfs at ``folder``; the test is skipped where mounting is not permitted."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs with these options is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Callable[..., AbstractContextManager[Path]]:
    return lambda *options: mounted(tmp_path / "mounted", *options)


@contextmanager
def control_group(limit: int) -> Iterator[list[str]]:
    """The beginning of a command line that runs the rest in a memory control group of ``limit`` bytes, without swap.

    The test is skipped where none can be made (it takes Linux, and root).
    """
    name = f"embedcache-test-{os.getpid()}-{secrets.token_hex(4)}"
    kinds = (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
        (Path("/sys/fs/cgroup/unified"), "memory.max"),
    )
    for root, file in kinds:
        group = root / name
        try:
            group.mkdir()
            (group / file).write_text(str(limit), encoding="utf-8")
        except OSError:
            if group.exists():
                group.rmdir()
            continue
        try:
            yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
        finally:
            for _ in range(100):
                try:
                    group.rmdir()
                    break
                except OSError:  # the kernel is still letting go of a process that has ended
                    time.sleep(0.05)
        return
    pytest.skip("no right to make a memory control group")
