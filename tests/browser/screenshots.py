"""`python -m tests.browser.screenshots`: what the console looks like, into docs/images."""

from __future__ import annotations

import random
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from playwright.sync_api import Page, expect

from inspection.times import stamp
from tests.browser.shop import CHROMIUM, TOKEN, chromium, shop, visit, visits

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
#: File, page, width and height, and whether it is dark.
SHOTS: Final = (
    ("live", "?level=warning", 1280, 460, False),
    ("requests", "requests", 1280, 600, False),
    ("trace", "trace?id=slow-reviews", 1280, 720, False),
    ("upstreams", "upstreams", 1280, 720, False),
    ("errors", "errors", 1280, 600, False),
    ("latency", "latency", 1280, 800, False),
    ("pages", "pages", 1280, 720, False),
    ("about", "about", 1280, 720, False),
    ("upstreams-dark", "upstreams", 1280, 720, True),
    ("trace-phone", "trace?id=slow-reviews", 375, 720, False),
)
_MOST_BYTES: Final = 150 * 1024
_TIMES: Final = 36
_APART: Final = timedelta(seconds=95)


def main() -> None:
    """Let customers come, look at every page, and keep a picture of each."""
    if CHROMIUM is None:
        sys.exit("This needs chromium.")
    IMAGES.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=60_000)
    with tempfile.TemporaryDirectory() as folder, shop(Path(folder)) as base, chromium() as browser:
        visits(base, rounds=6)
        _repeat(Path(folder))
        visit(base, "home/7?fault=reviews:503", "slow-reviews")
        for name, path, width, height, dark in SHOTS:
            context = browser.new_context(
                viewport={"width": width, "height": height},
                base_url=base,
                color_scheme="dark" if dark else "light",
                reduced_motion="reduce",
            )
            page = context.new_page()
            page.set_default_timeout(60_000)
            page.goto(f"/ops/door?token={TOKEN}")
            page.goto(f"/ops/{path}")
            _settle(page, name)
            image = IMAGES / f"console-{name}.png"
            page.screenshot(path=image)
            context.close()
            size = image.stat().st_size
            print(f"{image.name}: {size // 1024} KiB{'' if size < _MOST_BYTES else ', too large'}")  # noqa: T201


def _repeat(folder: Path) -> None:
    """Write what was logged once more for many an earlier moment, sometimes more of it and sometimes less."""
    lines = [line for path in folder.glob("*.ndjson") for line in map(msgspec.json.decode, path.open("rb"))]
    traces = sorted({line["trace_id"] for line in lines if line["event"] == "request.finished"})
    chance = random.Random(7)
    with (folder / "gateway-1.ndjson").open("wb") as file:
        for nth in range(_TIMES, 0, -1):
            share = chance.uniform(0.3, 1.0)
            kept = {trace for trace in traces if chance.random() < share}
            for line in lines:
                if line.get("trace_id") in kept:
                    then = datetime.fromisoformat(line["timestamp"]) - nth * _APART
                    took = line.get("duration_ms", 0.0) * chance.uniform(0.7, 1.6)
                    file.write(msgspec.json.encode({**line, "timestamp": stamp(then), "duration_ms": took}) + b"\n")


def _settle(page: Page, name: str) -> None:
    """Wait for what a page fetches after it has come."""
    if name == "live":
        expect(page.locator("#lines li").first).to_be_visible()
    if name == "latency":
        expect(page.locator("#count-chart canvas")).to_be_visible()
    if name == "about":
        expect(page.get_by_text("Looking whether it is whole")).to_be_hidden()


if __name__ == "__main__":
    main()
