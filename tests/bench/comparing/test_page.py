"""The figures stand between the page's marks, with the pictures beside them, and the rest of the page stays."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench.comparing import page
from bench.comparing.pictures import pictures
from bench.comparing.rows import Row
from tests.bench.comparing.measured import of, widths

EMPTY = "# Before\n\n<!-- figures: written by bench/compare.py -->\n<!-- end of figures -->\n\n# After\n"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "performance.md").write_text(EMPTY)
    return tmp_path


def test_tables_and_pictures_of_what_was_measured_are_written(docs: Path) -> None:
    page.write(of(*widths()), docs)
    text = (docs / "performance.md").read_text()

    assert text.startswith("# Before\n")
    assert text.endswith("# After\n")
    assert "| Tributary | 150 | 350 | 1,050 | 3,250 | 50 | +100 | 1.000 |" in text
    assert [file.name for file in (docs / "images").iterdir()] == ["performance-growth-width.svg"]


def test_figures_take_the_place_of_those_before(docs: Path) -> None:
    page.write(of(*widths()), docs)
    page.write(of(Row(server="Tributary", work="5 KB merged", cpu_us=300.0, ratio_to_floor=1.25)), docs)
    text = (docs / "performance.md").read_text()

    assert text.count("## Targets") == 1
    assert "| Tributary | 300 | 1.25 |" in text
    assert [file.name for file in (docs / "images").iterdir()] == ["performance-comparison.svg"]


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="figures: written by"):
        page.filled("# A page\n", of())


def test_every_picture_says_where_when_and_with_what_it_was_measured() -> None:
    drawn = pictures(of(*widths(), Row(server="Tributary", work="5 KB merged", cpu_us=300.0)))
    captions = {
        name: " ".join(
            text for node in ET.fromstring(svg).iter() if node.get("class") == "caption" for text in node.itertext()
        )
        for name, svg in drawn.items()
    }

    assert captions.keys() == {"comparison", "growth-width"}
    for caption in captions.values():
        assert all(part in caption for part in ("a processor", "2026-01-01 10:00 UTC", "aiohttp 3.14.5", "abc1234"))


def test_bars_are_as_long_as_what_they_stand_for() -> None:
    rows = [
        Row(server=server, work="5 KB merged", cpu_us=cost) for server, cost in (("Tributary", 300.0), ("a", 600.0))
    ]
    drawn = ET.fromstring(pictures(of(*rows))["comparison"])
    ours, theirs = (float(bar.get("width", "")) for bar in drawn.iter() if bar.tag.endswith("rect") and bar.get("x"))

    assert theirs == pytest.approx(2 * ours, abs=0.1)


def test_points_that_are_on_a_straight_line_are_on_the_one_that_is_drawn() -> None:
    drawn = ET.fromstring(pictures(of(*widths()))["growth-width"])
    (line,) = (node.get("points", "") for node in drawn.iter() if node.tag.endswith("polyline"))
    along = [tuple(map(float, place.split(","))) for place in line.split()]
    dots = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in drawn.iter() if dot.tag.endswith("circle")]
    (left, low), (right, high) = along[0], along[-1]

    for x, y in dots[:-1]:  # the last is the legend's
        assert y == pytest.approx(low + (high - low) * (x - left) / (right - left), abs=0.3)


def test_what_a_line_falls_to_below_nothing_is_not_drawn() -> None:
    drawn = pictures(of(*widths(start=-80.0)))["growth-width"]
    (line,) = re.findall(r'<polyline[^>]* points="([^"]*)"', drawn)

    assert max(float(place.split(",")[1]) for place in line.split()) <= 282
