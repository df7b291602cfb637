"""What /metrics says of what was asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedcache.serve import asked
from tests.conftest import make_reviews
from tests.serve.serving import make_client


def metrics(client: Any) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_texts_that_are_unlike_the_cache_are_seen(
    shown: Path, open_service: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "FIRST", 40)
    monkeypatch.setattr(asked, "AGAIN", 40)
    monkeypatch.setattr(asked, "KEPT", 60)
    service = open_service(shown / "reviews.h5", shown / "run")
    client = make_client(service)
    alike = [text for text, _ in make_reviews(150)[:60]]
    client.post("/predict", json={"texts": alike[:39] + alike[:10]})
    assert metrics(client)["embedcache_drift_texts"] == 0, "too few different ones"
    client.post("/predict", json={"texts": alike[39:]})
    service.asked.close()
    found = metrics(client)
    assert found["embedcache_drift_texts"] == 60 and found["embedcache_drift_auc_low"] <= 0.5
    every = [value for name, value in found.items() if name.startswith("embedcache_predictions_total")]
    assert sum(every) == 70
    shares = [value for name, value in found.items() if name.startswith("embedcache_drift_label_share")]
    assert len(shares) == 2 and math.isclose(sum(shares), 1), "of the classes that validation rows have"
    client.post("/predict", json={"texts": [f"horror horror {i} horror !!!" for i in range(60)]})
    service.asked.close()
    found = metrics(client)
    assert found["embedcache_drift_texts"] == 60, "the last ones"
    assert found["embedcache_drift_auc_low"] > 0.8 and found["embedcache_drift_auc_high"] <= 1
