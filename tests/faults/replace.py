"""Write one run (or an export's folder) over and over, each time another one: python replace.py KIND FOLDER EXCHANGE.

KIND: run, columns or export. EXCHANGE 0: as on a file system that cannot swap two names. Prints a line a turn.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from embedcache.common import whole_folder
from embedcache.export import place
from embedcache.runs.write_folder import write_run
from tests.runs.test_run_folder import make_contents, write_all


def write(kind: str, folder: Path, note: str) -> None:
    if kind == "run":
        write_run(folder, make_contents(note=note, label="label"))
    elif kind == "columns":
        write_all(folder, "a", "b", note=note)
    else:
        with place.staged(folder) as part:
            for name in (place.ABOUT, "a", "b", "c"):
                (part / name).write_text(note)


def main() -> None:
    kind, folder, swap = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "1"
    if not swap:
        whole_folder.exchange = lambda a, b: False
    for turn in itertools.count():
        write(kind, folder, str(turn))
        print(turn, flush=True)


if __name__ == "__main__":
    main()
