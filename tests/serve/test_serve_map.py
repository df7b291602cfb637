"""The map while the server runs, and the groups by which its points are coloured."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.serve import map as live
from embedcache.serve.map import LiveMap
from embedcache.serve.map_colors import color_groups
from embedcache.serve.projection import default_map_path, make_map, save_map
from tests.conftest import make_cache
from tests.serve.serving import make_client


def never(*_: object) -> None:
    """Computes a map for ever, in the other process."""
    threading.Event().wait()


def made(path: Path, labels: list[Any]) -> Path:
    vectors = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)
    return make_cache(path / "made.h5", [f"text {i}" for i in range(len(labels))], vectors, {"label": labels})


def test_the_map_is_computed_once_and_kept(copy: Path) -> None:
    problems: list[str] = []
    with open_cache(copy / "reviews.h5") as cache:
        first = LiveMap(cache, "cls", -1)
        assert first.status == "computing"
        first.start(problems.append)
        first.wait()
        assert (first.status, problems) == ("ready", [])
        np.testing.assert_array_equal(first.points, make_map(cache))
        assert default_map_path(copy / "reviews.h5").exists()
        second = LiveMap(cache, "cls", -1)
        second.start(problems.append)
        assert second.status == "ready", "at once"
        np.testing.assert_array_equal(second.points, first.points)


def test_a_map_that_cannot_be_kept_is_shown(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "default_map_path", lambda path: copy / "missing" / "x.map.safetensors")
    problems: list[str] = []
    with open_cache(copy / "reviews.h5") as cache:
        one = LiveMap(cache, "cls", -1)
        one.start(problems.append)
        one.wait()
    assert one.status == "ready" and one.points is not None
    assert len(problems) == 1 and "computed again next time" in problems[0]


def test_a_map_that_fails_says_why(copy: Path) -> None:
    problems: list[str] = []
    with open_cache(copy / "reviews.h5") as cache:
        one = LiveMap(cache, "mean", -1)  # which is not stored
        one.start = one._compute  # type: ignore[assignment, method-assign]
        one.start(default_map_path(cache.path), problems.append)  # type: ignore[call-arg]
    assert one.status == "failed" and problems and "mean" in one.problem


def test_closing_gives_it_up(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems: list[str] = []
    monkeypatch.setattr(live, "_make", never)
    with open_cache(copy / "reviews.h5") as cache:
        one = LiveMap(cache, "cls", -1)
        one.start(problems.append)
        one.close()
    assert problems == [] and one.status == "computing" and one._process.exitcode == -signal.SIGTERM


def test_over_http(copy: Path, open_service: Any) -> None:
    service = open_service(copy / "reviews.h5")
    client = make_client(service)
    assert client.get("/map").json()["status"] == "computing"
    waiting = client.get("/map/points")
    assert waiting.status_code == 503 and waiting.headers["Retry-After"] and "computed" in waiting.json()["detail"]
    with open_cache(copy / "reviews.h5") as cache:
        save_map(default_map_path(cache.path), make_map(cache), cache)
    service.map.start(print)
    about = client.get("/map").json()
    assert about["status"] == "ready" and about["rows"] == 162
    points = np.frombuffer(client.get("/map/points").content, "<f4").reshape(-1, 2)
    np.testing.assert_array_equal(points, service.map.points)
    groups = np.frombuffer(client.get("/map/groups/label").content, np.uint8)
    named = [about["groups"]["label"][place]["name"] for place in groups]
    assert named[:2] == ["negative", "positive"] and named[-1] == "<b>odd</b>"


def test_few_classes_have_a_group_each(tmp_path: Path) -> None:
    with open_cache(made(tmp_path, ["b", "a", None, "b"])) as cache:
        groups, places = color_groups(cache, "label")
    assert [(group.name, group.rows, group.role) for group in groups] == [
        ("a", 1, "class"), ("b", 2, "class"), ("no label", 1, "none"),
    ]  # fmt: skip
    assert places.tolist() == [1, 0, 2, 1]


def test_of_many_classes_the_most_frequent(tmp_path: Path) -> None:
    labels = [f"c{i}" for i in range(12) for _ in range(i + 1)] + [None]
    with open_cache(made(tmp_path, labels)) as cache:
        groups, places = color_groups(cache, "label")
    assert {group.name for group in groups if group.role == "class"} == {f"c{i}" for i in range(4, 12)}
    assert groups[-2].name == "4 others" and groups[-2].rows == 1 + 2 + 3 + 4
    assert groups[-1].role == "none" and places[-1] == len(groups) - 1
    for label, place in zip(labels[:-1], places, strict=False):
        assert groups[place].name in (label, "4 others")


def test_many_numbers_are_a_scale(tmp_path: Path) -> None:
    values = [str(i / 2) for i in range(40)]
    with open_cache(made(tmp_path, [*values, None])) as cache:
        groups, places = color_groups(cache, "label")
    assert [group.role for group in groups] == ["bin"] * 7 + ["none"]
    assert places[:-1].tolist() == sorted(places[:-1].tolist()) and sum(group.rows for group in groups) == 41
    for value, place in zip(values, places, strict=False):
        low, high = map(float, groups[place].name.split(" to "))
        assert low - 0.01 <= float(value) <= high + 0.01


def test_lists(tmp_path: Path) -> None:
    with open_cache(made(tmp_path, [["a"], ["a", "b"], [], None, ["b"]])) as cache:
        groups, places = color_groups(cache, "label")
    assert [groups[place].name for place in places] == ["a", "several labels", "empty list", "no label", "b"]
    assert [group.rows for group in groups] == [1, 1, 1, 1, 1]
