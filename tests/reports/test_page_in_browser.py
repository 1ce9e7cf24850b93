"""report.html in a browser: no error, nothing fetched, every picture told, the map answers; also without scripts."""

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.conftest import quietly
from tests.conftest import CONVNET, write_images
from tests.reports.browsers import CHROMIUM, WHY_NOT, framed, look_at

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)]

UNTOLD = """[...document.querySelectorAll("img, svg")].filter((each) => !each.closest("[hidden]")
  && !(each.getAttribute("alt") || each.getAttribute("aria-label") || each.id === "" && each.closest(".window")))
  .map((each) => each.outerHTML.slice(0, 80))"""
FETCHED = (
    'performance.getEntriesByType("resource").map((each) => each.name).filter((name) => !name.startsWith("data:"))'
)
TOUCH = """(() => {
  const [before, after] = document.querySelectorAll("#maps svg"), words = document.querySelector("#peek output");
  const place = after.querySelectorAll("circle")[3].getBoundingClientRect();
  const at = { clientX: place.x + place.width / 2, clientY: place.y + place.height / 2, bubbles: true };
  after.dispatchEvent(new PointerEvent("pointermove", at));
  const marked = () => [before, after].map((map) =>
    [...map.querySelectorAll("circle")].findIndex((each) => each.classList.contains("at")));
  const touched = { words: words.textContent, marked: marked() };
  const sheet = document.querySelector("#peek img");
  touched.visible = getComputedStyle(sheet).visibility;
  touched.move = sheet.style.transform;
  document.getElementById("maps").dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  return { ...touched, next: marked() };
})()"""


@pytest.fixture(scope="module")
def page(weights_file: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a small run with enough images for a map."""
    root = tmp_path_factory.mktemp("page")
    write_images(root / "images", 48)
    shape = ("--size", 32, "--teacher-size", 32, "--batch-size", 8, "--steps", 6, "--lr-scores", 0.3)
    quietly("adapt", root / "images", "--arch", CONVNET, "--weights", weights_file(CONVNET), "--out", root / "run",
            "--keep", "last", *shape)  # fmt: skip
    return (root / "run" / "report.html").read_text()


def names_on_map(page: str) -> list[str]:
    """Of the first map's points, in order."""
    first = page[page.index('id="maps"') : page.index("</svg>", page.index('id="maps"'))]
    return [html.unescape(name) for name in re.findall("<title>(.*?)</title>", first)]


def test_no_error_nothing_fetched_and_every_picture_has_words(page: str, tmp_path: Path) -> None:
    seen = look_at(page, tmp_path, f"[{UNTOLD}, {FETCHED}]")
    assert seen.console == []
    assert seen.answer == [[], []]


def test_the_map_answers_to_the_mouse_and_to_keys(page: str, tmp_path: Path) -> None:
    names = names_on_map(page)
    assert len(set(names)) == 9
    found = look_at(page, tmp_path, TOUCH).answer
    touched = names.index(found["words"])
    assert found["marked"] == [touched, touched]
    assert touched == 3
    assert found["visible"] == "visible"
    assert found["move"] == "scale(2) translate(0px, -64px)"  # the fourth of three in a row
    assert found["next"] == [4, 4]


def test_without_scripts_maps_and_names_are_there(page: str, tmp_path: Path) -> None:
    script = """[...page.querySelectorAll("#maps figure:first-of-type title")].map((each) => each.textContent)
      .concat(getComputedStyle(page.getElementById("peek")).display)"""
    frame, asked = framed(page, script, sandbox='sandbox="allow-same-origin"')
    found = look_at(frame, tmp_path, asked).answer
    assert found == [*names_on_map(page), "none"]


def test_nothing_is_wider_than_a_phone(page: str, tmp_path: Path) -> None:
    frame, script = framed(page, "[page.documentElement.scrollWidth, page.documentElement.clientWidth]")
    assert look_at(frame, tmp_path, script).answer == [390, 390]
