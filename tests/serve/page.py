"""What a browser shows of the page, as the tests ask for it."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: apt-get install chromium")
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}

# The contrast of every text that a selector finds with the ground below it, as WCAG has it.
CONTRAST = """(selector) => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((one) => one / 255)
    .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, i) => sum + one * [0.2126, 0.7152, 0.0722][i], 0);
  return [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility() && one.innerText)
    .map((node) => {
    let ground = node;
    while (ground && parse(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(parse(getComputedStyle(ground).backgroundColor))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}"""


def texts(page: Any) -> list[str]:
    """Of the results, in their order."""
    page.wait_for_selector("#results li")
    return page.locator("#results .text").all_text_contents()


def ready(page: Any) -> None:
    page.wait_for_selector("#stage[data-ready=true][data-drawn]")


def screen_places(page: Any, service: Any) -> np.ndarray:
    """Where each point is on the screen, [N, 2], while the whole map is shown."""
    box = page.locator("#points").bounding_box()
    points = service.map.points.astype(np.float64)
    wide, tall = np.abs(points).max(axis=0)
    scale = 0.94 * min(box["width"] / (2 * wide), box["height"] / (2 * tall))
    centre = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    return centre + points * [scale, -scale]


def lonely(places: np.ndarray) -> int:
    """The row whose nearest other point is farthest."""
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return int(np.argmax(apart.min(axis=1)))


def drawn(page: Any) -> list[list[int]]:
    """Colors on the map's canvas, as the screen has them."""
    from io import BytesIO

    from matplotlib.image import imread

    image = imread(BytesIO(page.locator("#points").screenshot()), format="png")[::2, ::2, :3]
    return np.unique((image.reshape(-1, 3) * 255).round().astype(int), axis=0).tolist()
