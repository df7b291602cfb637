"""Several processes at one cache, and clocks that are wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import textwrap

import numpy as np
import pytest

from embedcache.cache import open_cache, verify
from embedcache.extraction.job import extract
from tests.conftest import make_reviews, write_csv
from tests.faults.test_signals import is_locked, wait_for

ROWS = 6000


def test_two_writers_and_readers_at_once(extract_command, tmp_path):
    """The second writer is told; readers see an incomplete file, never a damaged one."""
    path = tmp_path / "cache.h5"
    first = extract_command(ROWS, "--json")
    wait_for(first, lambda: is_locked(tmp_path / ".cache.h5.lock"))
    first.send_signal(signal.SIGSTOP)  # so that it holds the file as long as the second needs
    code, _, stderr = extract_command(ROWS).finish()
    assert code == 1 and "another extract is writing" in stderr and stderr.count("\n") == 1, stderr
    first.send_signal(signal.SIGCONT)
    seen = set()
    while first.poll() is None:
        if path.exists():
            report = verify(path)
            assert report.ok, report
            seen.add(bool(report.incomplete))
            with open_cache(path) as cache:
                absent = cache.absent_blocks("embeddings/cls").repeat(1024)[:ROWS]
                found = cache.embeddings(allow_incomplete=True)[~absent]
                assert found.any(axis=1).all()
    code, stdout, stderr = first.finish()
    assert code == 0 and json.loads(stdout)["encoded"] == ROWS, stderr
    assert True in seen and verify(path).ok and not list(tmp_path.glob(".*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_writers_at_once(extract_command, tmp_path):
    """Started together, some with fewer rows: whoever comes last decides, and nothing is mixed."""
    for _ in range(4):
        processes = [extract_command(rows) for rows in (ROWS, ROWS, 3000, 1200)]
        for process in processes:
            code, _, stderr = process.finish(300)
            assert code == 0 or "another extract is writing" in stderr, stderr
        assert verify(tmp_path / "cache.h5").ok and not list(tmp_path.glob(".*"))
    assert extract_command(ROWS).finish()[0] == 0
    with open_cache(tmp_path / "cache.h5") as cache:
        assert list(cache.texts) == [text for text, _ in make_reviews(ROWS)] and cache.complete


def test_a_fork_while_a_cache_is_open(tiny_bert, tmp_path):
    """No HDF5 handle and no lock is shared: parent and children read the same, one may end without the other."""
    table = write_csv(tmp_path / "table.csv", make_reviews(300))
    extract(table, tmp_path / "cache.h5", model=tiny_bert, device="cpu")
    with open_cache(tmp_path / "cache.h5") as cache:
        x = np.array(cache.embeddings())
        children = []
        for i in range(3):
            child = os.fork()
            if child == 0:
                same = np.array_equal(cache.embeddings(), x) and cache.texts[i] == make_reviews(3)[i][0]
                cache.close()
                os._exit(0 if same and verify(tmp_path / "cache.h5").ok else 1)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        assert np.array_equal(cache.embeddings(), x)


def test_a_fork_while_a_cache_is_written(tiny_bert, tmp_path):
    table = write_csv(tmp_path / "table.csv", make_reviews(2500))
    children = []

    def progress(done, total, count):
        if len(children) < 3:
            child = os.fork()
            if child == 0:
                os._exit(0)
            children.append(child)

    extract(table, tmp_path / "cache.h5", model=tiny_bert, device="cpu", progress=progress)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert verify(tmp_path / "cache.h5").ok and not list(tmp_path.glob(".*"))


CLOCK = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <time.h>
    #include <sys/time.h>
    static time_t shown = 4102444800;                       /* the year 2100, and a day earlier at every look */
    int clock_gettime(clockid_t id, struct timespec *now) {
        static int (*real)(clockid_t, struct timespec *);
        if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
        int status = real(id, now);
        if (id == CLOCK_REALTIME) now->tv_sec = shown -= 86400;
        return status;
    }
    int gettimeofday(struct timeval *now, void *zone) { now->tv_sec = shown -= 86400; now->tv_usec = 0; return 0; }
    time_t time(time_t *now) { shown -= 86400; if (now) *now = shown; return shown; }
"""


def test_a_clock_that_goes_backwards(extract_command, tmp_path):
    """Under a clock in the next century that loses a day with every look at it."""
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(textwrap.dedent(CLOCK))
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    code, stdout, stderr = extract_command(1500, "--json", environment={"LD_PRELOAD": str(library)}).finish()
    assert code == 0, stderr
    report = json.loads(stdout)
    assert report["encoded"] == 1500 and 0 < report["seconds"] < 600 and report["rows_per_second"] > 0
    assert verify(tmp_path / "cache.h5").ok


@pytest.mark.parametrize("stamp", [0, 4_102_444_800, -86_400])
def test_times_of_files_mean_nothing(tiny_bert, tmp_path, stamp):
    """Files from 1970, 2100 or before: what is in them counts."""
    table, path = write_csv(tmp_path / "table.csv", make_reviews(1500)), tmp_path / "cache.h5"
    extract(table, path, model=tiny_bert, device="cpu")
    os.utime(path, (stamp, stamp))
    os.utime(table, (stamp, stamp))
    assert extract(table, path, model=tiny_bert, device="cpu").encoded == 0
    os.utime(write_csv(table, make_reviews(1510)), (stamp, stamp))
    assert extract(table, path, model=tiny_bert, device="cpu").encoded == 10
