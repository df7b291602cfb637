"""A server that is killed while people label: no acknowledged label is lost, none is there twice."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedcache.cache import open_cache
from embedcache.labelling import LabelJournal
from tests.serve.test_serve_command import command


class Person:
    """Labels rows one after the other until the server is gone; what was not answered is sent again to the next one."""

    def __init__(self, who: str) -> None:
        self.who, self.acknowledged, self.pending, self.count = who, [], None, 0  # type: ignore[var-annotated]

    def work(self, url: str, killed: threading.Event) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            while not killed.is_set():
                if self.pending is None:
                    self.count += 1
                    row, label = self.count % 160, ("negative", "positive")[self.count % 2]
                    self.pending = {"id": f"{self.who} {self.count}", "row": row, "label": label, "who": self.who}
                try:
                    answer = client.post("labelling/labels", json={"labels": [self.pending]})
                except httpx.HTTPError:
                    return
                assert answer.status_code == 200, answer.text
                self.acknowledged.append(self.pending)
                self.pending = None


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_while_two_people_label(copy: Path, kills: int) -> None:
    people = [Person("ada"), Person("bob")]
    for number in range(kills):
        with command(copy / "reviews.h5", "--run", copy / "run", name="label") as (process, about):
            killed = threading.Event()
            threads = [threading.Thread(target=one.work, args=(about["url"], killed)) for one in people]
            already = len(people[0].acknowledged)
            for thread in threads:
                thread.start()
            while len(people[0].acknowledged) < already + 5 + 7 * (number % 5):
                threads[0].join(0.01)
                assert process.poll() is None
            process.kill()
            killed.set()
            for thread in threads:
                thread.join()
    entries = LabelJournal.beside(copy / "reviews.h5").read()
    ids = [entry.id for entry in entries]
    assert len(set(ids)) == len(ids), "none twice"
    by_id: dict[str, Any] = {entry.id: entry for entry in entries}
    with open_cache(copy / "reviews.h5") as cache:
        for one in (one for person in people for one in person.acknowledged):
            entry = by_id[one["id"]]
            assert (entry.after, entry.who) == (one["label"], one["who"])
            assert entry.row_hash == cache.hashes[one["row"]].tobytes().hex()
    extra = set(ids) - {one["id"] for person in people for one in person.acknowledged}
    assert extra <= {person.pending["id"] for person in people if person.pending}, "but those that were on their way"
    assert {entry.who for entry in entries} == {"ada", "bob"}
