"""The site: it builds without a warning, fetches nothing, and its figures are those that were measured."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.guide_pages import DOCS, sentences_of

ROOT = DOCS.parent
OWN_PAGES = [
    "index.md",
    "method.md",
    "glossary.md",
    "results.md",
    "api.md",
    *sorted(f"guides/{p.name}" for p in DOCS.glob("*/*.md")),
]
_NUMBER = re.compile(r"[+-]?\d*\.?\d[\d,]*(?:\.\d+)?x?")


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path: Path) -> None:
    for module in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        try:
            missing = find_spec(module) is None
        except ModuleNotFoundError:
            missing = True
        if missing:
            pytest.skip(f"{module} is not installed: pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr
    pages = {path: path.read_text() for path in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "api.html", "results.html"} <= {path.name for path in pages}
    fetched = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")
    assert [(path.name, found[0]) for path, text in pages.items() if (found := fetched.search(text))] == []
    assert (tmp_path / "site" / "repository" / "benchmarks" / "results" / "native.jsonl").is_file()
    assert '<code><span class="whole">--start</span> RUN&#124;FILE</code>' in pages[tmp_path / "site" / "cli.html"]
    assert "Learn a mask for a timm model" in pages[tmp_path / "site" / "api.html"]


def test_every_page_is_in_the_navigation_once() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2].partition("\nnot_in_nav")[0]
    named = re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)
    assert sorted(named) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def _plain(figure: str) -> str:
    """Without a comma after it, and .5 for 0.5, which is shorter in a table."""
    return re.sub(r"^0(?=\.)", "", figure.rstrip(","))


def test_every_figure_of_the_results_stands_in_the_benchmarks() -> None:
    tables = [line for line in (DOCS / "results.md").read_text().splitlines() if line.startswith("| ")]
    cells = [re.sub(r"\]\([^)]*\)", "]", cell) for line in tables for cell in line.split("|")[1:-2]]
    figures = {_plain(figure) for cell in cells for figure in _NUMBER.findall(cell)}
    measured = {_plain(figure) for figure in _NUMBER.findall((DOCS / "benchmarks.md").read_text())}
    assert len(figures) > 100
    assert figures - measured == set()


@pytest.mark.parametrize("page", OWN_PAGES)
def test_sentences_are_short(page: str) -> None:
    lengths = [len(sentence.split()) for sentence in sentences_of(page)]
    assert sum(lengths) / len(lengths) < 18
    assert max(lengths) <= 40
