"""Real disks that are full, may not be written, or lose the file: one line, and nothing that existed is harmed."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile

import pytest

from embedcache.cache import open_cache, verify
from embedcache.errors import EmbedcacheError
from embedcache.extraction.job import extract
from tests.conftest import document, fails, make_reviews, write_csv


@pytest.fixture
def table(tmp_path):
    return write_csv(tmp_path / "table.csv", make_reviews(4000))


@pytest.mark.parametrize("size", [32, 64, 100, 200, 300, 400, 500, 600])
def test_a_disk_of_so_many_kb(tiny_bert, tmp_path, table, tmpfs, size):
    with tmpfs(f"size={size}k") as folder:
        with pytest.raises(EmbedcacheError, match=r"not enough space|cannot write"):
            extract(table, folder / "cache.h5", model=tiny_bert, device="cpu")
        assert list(folder.iterdir()) == []


def test_an_append_that_does_not_fit_leaves_the_old_cache(tiny_bert, tmp_path, table, tmpfs):
    small = write_csv(tmp_path / "small.csv", make_reviews(1500))
    with tmpfs("size=1400k") as folder:
        path = folder / "cache.h5"
        extract(small, path, model=tiny_bert, device="cpu")
        before = path.read_bytes()
        with pytest.raises(EmbedcacheError, match=r"not enough space|cannot write"):
            extract(table, path, model=tiny_bert, device="cpu")
        assert path.read_bytes() == before and list(folder.iterdir()) == [path]
        subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)
        assert extract(table, path, model=tiny_bert, device="cpu").encoded == 2500
        assert verify(path).ok


@pytest.mark.parametrize("size", [64, 150, 250, 500, 900])
def test_a_disk_of_so_many_kb_for_token_states(tiny_bert, tmp_path, tmpfs, size):
    """Of 300 texts: 100 kB of cache and 700 of states."""
    small, more = (write_csv(tmp_path / f"{n}.csv", make_reviews(n)) for n in (300, 330))
    options = {"model": tiny_bert, "device": "cpu", "tokens": 1}
    with tmpfs(f"size={size}k") as folder:
        path = folder / "cache.h5"
        if size < 900:
            with pytest.raises(EmbedcacheError, match=r"not enough space|cannot write"):
                extract(small, path, **options)
            assert list(folder.iterdir()) == []
            return
        extract(small, path, **options)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(EmbedcacheError, match=r"not enough space|cannot write"):
            extract(more, path, **options)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)
        assert extract(more, path, **options).token_states["encoded"] == 30
        assert verify(path).ok


@pytest.mark.parametrize("inodes", [2, 3, 4])
def test_no_room_for_another_name(tiny_bert, table, tmpfs, inodes):
    with tmpfs(f"nr_inodes={inodes}") as folder:
        try:
            extract(table, folder / "cache.h5", model=tiny_bert, device="cpu")
        except (EmbedcacheError, OSError):  # the command line makes one line of both
            assert list(folder.iterdir()) == []
        else:
            assert verify(folder / "cache.h5").ok


def test_a_quota(extract_command, tmp_path):
    """A limit on the size of files, as a user's quota would be: said before anything is encoded."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    code, _, stderr = extract_command(4000, preexec_fn=limit).finish()
    assert code == 1 and stderr.startswith("Error: ") and stderr.count("\n") == 1, stderr
    assert "not enough space" in stderr or "cannot write" in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["table-4000.csv"]


def test_a_file_system_that_is_read_only(tiny_bert, tmp_path, table, tmpfs):
    with tmpfs("size=8m") as folder:
        path = folder / "cache.h5"
        extract(write_csv(tmp_path / "small.csv", make_reviews(50)), path, model=tiny_bert, device="cpu")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        for cache in (path, folder / "new.h5"):
            with pytest.raises(EmbedcacheError, match=r"cannot write in .*Read-only file system"):
                extract(table, cache, model=tiny_bert, device="cpu")
        assert verify(path).ok  # readers write nothing
        with open_cache(path) as cache:
            assert cache.embeddings().shape == (50, 32)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only(tiny_bert, tmp_path, table):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(EmbedcacheError, match="cannot write in"):
            extract(table, tmp_path / "c.h5", model=tiny_bert)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("how", ["removed", "replaced", "folder"])
def test_the_file_goes_away_while_it_is_written(extract_command, tmp_path, how):
    from tests.faults.test_signals import some_saved, wait_for

    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "cache.h5"
    process = extract_command(8000, cache=path)
    wait_for(process, lambda: some_saved(path))
    if how == "removed":
        path.unlink()
    elif how == "folder":
        shutil.rmtree(path.parent)
    else:
        (tmp_path / "other").write_text("somebody else's")
        (tmp_path / "other").replace(path)
    code, _, stderr = process.finish()
    assert code == 1 and "removed or replaced while it was written" in stderr and stderr.count("\n") == 1, stderr
    if how == "replaced":
        assert path.read_text() == "somebody else's" and len(list(path.parent.iterdir())) == 1


def kept_heads(folder):
    return sorted(folder.glob("embedcache-*.unfinished.safetensors"))


def test_heads_that_a_full_disk_does_not_take_are_kept(made, tmp_path, tmpfs, monkeypatch):
    """Among temporary files; with room, --resume writes the run without training again."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    train = ["train-head", made / "reviews.h5", "--hidden", 512, "--seed", "0,1,2,3", "--epochs", 2]
    with tmpfs("size=100k") as disk:
        line = fails(*train, "-o", disk / "run")
        assert "No space left on device; nothing was changed; the 4 trained heads are kept in" in line
        assert "--resume writes the run" in line and list(disk.iterdir()) == []
        (path,) = kept_heads(tmp_path / "tmp")
        assert str(path) in line
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        report = document(*train, "-o", disk / "run", "--resume")
        assert report["kept"] == 4 and [one.name for one in disk.iterdir()] == ["run"]
        assert kept_heads(tmp_path / "tmp") == []


def test_heads_that_fit_beside_the_run_are_kept_there(made, tmp_path, tmpfs):
    """The run itself has every head twice over, and tables."""
    train = ["train-head", made / "reviews.h5", "--hidden", 512, "--seed", "0,1,2,3", "--epochs", 2]
    with tmpfs("size=330k") as disk:
        line = fails(*train, "-o", disk / "run")
        assert str(disk / ".run.unfinished.safetensors") in line
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert document(*train, "-o", disk / "run", "--resume")["kept"] == 4
        assert [one.name for one in disk.iterdir()] == ["run"]


def test_no_place_at_all_for_the_heads(made, tmp_path, tmpfs, monkeypatch):
    with tmpfs("size=100k") as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        line = fails("train-head", made / "reviews.h5", "--hidden", 512, "--seed", "0,1,2,3", "-o", disk / "run")
        assert line.count("No space left on device") == 2 and "the trained heads are lost" in line
        assert list(disk.iterdir()) == []


@pytest.mark.parametrize("size", [8, 40, 80])
@pytest.mark.parametrize("to", ["torch", "onnx", "sentence-transformers"])
def test_an_export_says_that_the_disk_is_full(made, tmpfs, to, size):
    """Not torch, whose writer would end the process; before or while it writes."""
    with tmpfs(f"size={size}k") as disk:
        line = fails("export", made / "run", "--to", to, "-o", disk / "out")
        assert f"cannot write {disk / 'out'}: no space left on its disk" in line and "make room" in line
        assert list(disk.iterdir()) == []
