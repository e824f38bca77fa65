"""What docs/performance.md and its pictures say is what the result files say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from bench.comparing import page, results
from bench.comparing.pictures import pictures

DOCS: Final = Path(__file__).parent.parent.parent / "docs"


def test_the_page_has_the_figures_of_the_result_files() -> None:
    text = (DOCS / "performance.md").read_text()

    assert page.filled(text, results.read()) == text, "python bench/compare.py --draw"


def test_the_pictures_show_the_figures_of_the_result_files() -> None:
    there = {file.name: file.read_text() for file in (DOCS / "images").glob("performance-*.svg")}

    assert there == {f"performance-{name}.svg": drawn for name, drawn in pictures(results.read()).items()}


def test_every_picture_is_on_the_page() -> None:
    shown = re.findall(r"\(images/(performance-\S+\.svg)\)", (DOCS / "performance.md").read_text())

    assert sorted(shown) == sorted(file.name for file in (DOCS / "images").glob("performance-*.svg"))
