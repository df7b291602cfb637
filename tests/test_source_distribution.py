"""What is published as source."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = {".cpp", ".h", ".cu", ".cuh", ".inc"}


def test_it_has_the_code_of_every_processor(tmp_path: Path) -> None:
    """Whatever machine it is made on: wheels for all the others are built from it."""
    for name in ("csrc", "embedcache"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run([sys.executable, "setup.py", "--quiet", "sdist"], cwd=tmp_path, check=True, capture_output=True)
    (made,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(made) as archive:
        packed = {Path(name).relative_to(Path(name).parts[0]).as_posix() for name in archive.getnames()}
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*") if path.suffix in CODE}
    assert any("neon" in name for name in code) and any("avx" in name for name in code)
    assert code <= packed, code - packed
