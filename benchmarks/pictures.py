"""The pictures of the page and of the report in docs/images, made with the real commands and a real browser.

python -m benchmarks.pictures [FOLDER]     needs chromium on the path; FOLDER keeps cache and run between calls
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT

IMAGES = ROOT / "docs" / "images"
QUERY = "A tender, funny film that stays with you for days."
PAGE = {"width": 1280, "height": 860}
WIDE, PHONE, HEIGHT, GAP = 900, 390, 1240, 20  # of the report's picture, in pixels
BEHIND = (128, 138, 145)
COLOURS = 128  # of the palette that the files are saved with


def main() -> None:
    from demo import fetch

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        cache, run = folder / "reviews.h5", folder / "heads"
        if not cache.exists():
            extract = ["--model", fetch.encoder(), "--keep", "movie", "--pooling", "cls,mean"]
            embedcache("extract", fetch.all_reviews(), "-o", cache, *extract)
        if not run.exists():
            sweep = ["--hidden", "0,64,512", "--lr", "1e-4,1e-3", "--dropout", "0.1,0.3", "--seed", "0,1,2,3"]
            embedcache("train-head", cache, "-o", run, "--pooling", "mean", "--group", "movie", *sweep)
        embedcache("report", run, "-o", run / "report.html")
        with browser() as chromium:
            save(picture_of_report(chromium, run / "report.html"), "report.png")
            with serving(cache, run) as url:
                save(picture_of_page(chromium, url), "serve.png")


def embedcache(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "embedcache", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        sys.exit("Error: no chromium on the path: apt-get install chromium")
    sandbox = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=[*sandbox, "--enable-unsafe-swiftshader"])
        yield chromium
        chromium.close()


@contextmanager
def serving(cache: Path, run: Path) -> Iterator[str]:
    """The URL of a server, which is stopped afterwards."""
    command = [sys.executable, "-m", "embedcache", "serve", str(cache), "--run", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            for line in server.stdout or ():
                if found := re.search(r"http://\S+", line):
                    yield found[0]
                    break
            else:
                sys.exit("Error: the server did not start")
        finally:
            server.terminate()


def picture_of_page(chromium: Any, url: str) -> Any:
    """A text, its label, the most similar reviews and the map."""
    page = chromium.new_page(viewport=PAGE)
    page.goto(url)
    page.wait_for_selector("#stage[data-ready=true][data-drawn]", timeout=300_000)
    page.fill("#query", QUERY)
    page.click("#send")
    page.wait_for_selector("#results li")
    page.wait_for_timeout(1_500)  # the map's rings
    return opened(page.screenshot())


def picture_of_report(chromium: Any, report: Path) -> Any:
    """Its beginning, light on a wide screen, beside two of its sections, dark on a phone."""
    from PIL import Image

    page = chromium.new_page(viewport={"width": WIDE, "height": HEIGHT})
    page.goto(report.resolve().as_uri())
    whole = Image.new("RGB", (WIDE + GAP + PHONE, HEIGHT), BEHIND)
    whole.paste(opened(page.screenshot()), (0, 0))
    phone = chromium.new_page(viewport={"width": PHONE, "height": (HEIGHT - GAP) // 2}, color_scheme="dark")
    phone.goto(report.resolve().as_uri())
    for place, section in enumerate(("curves", "mistakes")):
        phone.evaluate("(id) => document.getElementById(id).scrollIntoView()", section)
        whole.paste(opened(phone.screenshot()), (WIDE + GAP, place * (HEIGHT + GAP) // 2))
    return whole


def opened(png: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(png)).convert("RGB")


def save(picture: Any, name: str) -> None:
    """As a small file: a palette without dithering is enough for text and lines."""
    from PIL import Image

    small = picture.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(IMAGES / name, optimize=True)
    print(f"{IMAGES / name}: {(IMAGES / name).stat().st_size / 1024:,.0f} kB")


if __name__ == "__main__":
    main()
