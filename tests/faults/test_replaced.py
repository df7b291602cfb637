"""A run or an export that is replaced while others read it, while others write it, and while the writer is killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedcache.common.whole_folder import exchange, folder_lock
from embedcache.errors import EmbedcacheError
from embedcache.export import place
from embedcache.runs.folder import load_heads, load_run, with_run
from embedcache.runs.write_folder import check_target, write_run
from tests.conftest import document, fails
from tests.faults.conftest import Command
from tests.faults.replace import write
from tests.runs.test_run_folder import make_contents, names

SCRIPT = Path(__file__).with_name("replace.py")
MAKES_SWAPS = [pytest.param(1, id="exchange"), pytest.param(0, id="two renames")]


@contextmanager
def replacing(kind: str, folder: Path, swap: int) -> Iterator[subprocess.Popen[str]]:
    """Another process writes the folder over and over; it is killed at the end."""
    command = [sys.executable, str(SCRIPT), kind, str(folder), str(swap)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline(), "it never began"
            yield process
        finally:
            process.kill()


def look(seconds: float, read) -> tuple[int, set[str]]:
    """(how often, what was seen); whatever is raised ends it."""
    looks, seen, end = 0, set(), time.monotonic() + seconds
    while time.monotonic() < end or (len(seen) < 3 and looks < 5000):
        seen.add(read())
        looks += 1
    return looks, seen


@pytest.mark.parametrize("seconds", [0.5, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("swap", MAKES_SWAPS)
def test_a_run_is_always_there_and_whole(tmp_path: Path, swap: int, seconds: float) -> None:
    run = tmp_path / "run"

    def read() -> str:
        heads = load_heads(run)
        assert list(heads) == ["head-000", "head-001"]
        return load_run(run).info["note"]

    with replacing("run", run, swap):
        looks, seen = look(seconds, read)
    print(looks, "looks,", len(seen), "runs")
    assert len(seen) > 2


@pytest.mark.parametrize("swap", MAKES_SWAPS)
def test_columns_are_never_of_two_runs(tmp_path: Path, swap: int) -> None:
    def read() -> str:
        run = with_run(tmp_path / "run", lambda run: run)
        (note,) = {one.info["note"] for one in run.columns.values()}
        return note

    with replacing("columns", tmp_path / "run", swap):
        assert len(look(0.5, read)[1]) > 2


def test_an_export_is_always_there(tmp_path: Path) -> None:
    if not swaps(tmp_path):
        pytest.skip("this file system cannot swap two names")
    with replacing("export", tmp_path / "out", 1):
        _, seen = look(0.5, lambda: (tmp_path / "out").stat().st_ctime_ns)
    assert len(seen) > 2
    notes = {(tmp_path / "out" / name).read_text() for name in names(tmp_path / "out")}
    assert len(notes) == 1 and len(names(tmp_path / "out")) == 4


def swaps(folder: Path) -> bool:
    for name in "ab":
        (folder / name).mkdir()
    try:
        return exchange(folder / "a", folder / "b")
    finally:
        for name in "ab":
            (folder / name).rmdir()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", [2, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("swap", MAKES_SWAPS)
@pytest.mark.parametrize("kind", ["run", "columns", "export"])
def test_a_killed_writer_leaves_the_old_one_or_the_new_one(tmp_path: Path, kind: str, swap: int, kills: int) -> None:
    """And the user's other files in a run; a reader alone puts right what must be."""
    rng, folder = random.Random(kills), tmp_path / "run"
    write(kind, folder, "first")
    if kind != "export":
        (folder / "notes.txt").write_text("mine")
    for _ in range(kills):
        with replacing(kind, folder, swap):
            time.sleep(rng.uniform(0, 0.3))
        if kind == "export":
            if swap and swaps(tmp_path):
                assert names(folder) == ["a", "b", "c", place.ABOUT]
            write(kind, folder, "again")
            assert {(folder / name).read_text() for name in names(folder)} == {"again"}
        else:
            run = load_run(folder)
            assert len({one.info["note"] for one in run.columns.values()}) == 1
            assert check_target(folder)
            assert (folder / "notes.txt").read_text() == "mine"
    write(kind, folder, "last")
    assert [name for name in names(tmp_path) if name != "run"] == []


def test_a_lock_of_a_killed_writer_holds_nobody(tmp_path: Path) -> None:
    with replacing("run", tmp_path / "run", 1):
        time.sleep(0.1)
    (tmp_path / ".run.lock").touch()
    write_run(tmp_path / "run", make_contents(note="next"))
    assert names(tmp_path) == ["run"] and load_run(tmp_path / "run").info["note"] == "next"


def test_the_second_writer_is_told_who_writes(tmp_path: Path) -> None:
    """With folders above it that are not there yet; they go again where nothing came of it."""
    run = tmp_path / "new" / "folder" / "run"
    code = f"""if True:
        import sys
        from embedcache.common.whole_folder import folder_lock
        with folder_lock({str(run)!r}):
            print("held", flush=True)
            sys.stdin.read()"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(
            EmbedcacheError, match=rf"process {holder.pid} is writing {run}; wait until it ends, or name"
        ):
            write_run(run, make_contents())
        holder.communicate("")
    assert names(tmp_path) == []
    with folder_lock(run), folder_lock(run):  # whoever has it goes on
        write_run(run, make_contents())
    assert names(run.parent) == ["run"]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("rounds", [1, pytest.param(25, marks=pytest.mark.slow)])
def test_three_trainings_into_one_run(made: Path, tmp_path: Path, rounds: int) -> None:
    """One at least is done; each of the others is, too, or is told before it trains. The run is whole."""
    run = tmp_path / "run"
    for turn in range(rounds):
        arguments = ["train-head", made / "reviews.h5", "-o", run, "--hidden", 8, "--epochs", 3, "--seed", turn]
        outcomes = [command.finish() for command in [Command(*arguments) for _ in range(3)]]
        told = [stderr for code, _, stderr in outcomes if code]
        assert len(told) < 3, outcomes
        for line in told:
            assert f"is writing {run}; wait until it ends, or name another place with -o" in line, line
            assert line.startswith("Error: process ") and line.count("\n") == 1
        load_run(run)
        assert names(tmp_path) == ["run"]


def test_report_and_export_wait_for_nobody(made: Path, tmp_path: Path) -> None:
    """Into a run that is being written there is no report; beside it there is. An export has a lock of its own."""
    import shutil

    run = Path(shutil.copytree(made / "run", tmp_path / "run"))
    code = f"""if True:
        import sys
        from embedcache.common.whole_folder import folder_lock
        with folder_lock({str(run)!r}), folder_lock({str(tmp_path / "out")!r}):
            print("held", flush=True)
            sys.stdin.read()"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert f"process {holder.pid} is writing {run}" in fails("report", run)
        document("report", run, "-o", tmp_path / "report.html")
        line = fails("export", run, "--to", "sentence-transformers", "-o", tmp_path / "out")
        assert f"process {holder.pid} is writing {tmp_path / 'out'}" in line
        holder.communicate("")
    assert json.loads((run / "run.json").read_text("utf-8"))["format"] == "embedcache-run"
    document("report", run)
