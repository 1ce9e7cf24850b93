"""The page of an evaluation stands alone, keeps text as text, and shows classes, confusion and images."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from smn_cli.evaluation.compare import compare
from smn_cli.reports import evaluation_page as module
from smn_cli.reports.evaluation_page import evaluation_page
from tests.reports.browsers import CHROMIUM, WHY_NOT, framed, look_at
from tests.reports.small_evaluations import ADAPTED, BASE, LABELS, evaluation, scores

VOID = {"meta", "img", "br", "wbr", "line", "circle"}


class Reader(HTMLParser):
    """Collects tables and images, and refuses tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "img":
            self.images.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data.strip()


def test_the_page_is_well_formed_and_loads_and_runs_nothing(tmp_path: Path) -> None:
    page = evaluation_page(evaluation(tmp_path, bounds=(0.5, 0.95))).decode()
    reader = Reader(page)
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)\"", page)
    assert {address.partition(",")[0] for address in addresses} == {"data:image/jpeg;base64"}
    assert not {"script", "link", "b"} & reader.tags
    assert "prefers-color-scheme: dark" in page
    assert "url(" not in page


def test_verdict_gates_and_scores_stand_first(tmp_path: Path) -> None:
    page = evaluation_page(evaluation(tmp_path, bounds=(0.5, 0.95))).decode()
    assert '<p class="verdict alarm">The adapted network is better than its base; 1 of 2 gates passed.</p>' in page
    rows = Reader(page).rows
    assert rows[1:3] == [["knn.top1>=0.5", "0.9000", "passed"], ["knn.top1>=0.95", "0.9000", "FAILED"]]
    assert rows[5][:4] == ["linear.top1", "0.6000", "0.9000", "+0.3000"]


def test_classes_confusion_and_matrices_have_their_numbers(tmp_path: Path) -> None:
    rows = Reader(evaluation_page(evaluation(tmp_path)).decode()).rows
    birch = "<b>birch</b> | *x*"
    assert [birch, "10", "0.600 (0.313 .. 0.832)", "0.900 (0.596 .. 0.982)"] in [row[:4] for row in rows]
    assert [birch, "cedar", "4", "1"] in rows
    assert ["cedar", "4", "", "6"] in rows  # of the base
    assert ["cedar", "1", "", "9"] in rows


def test_names_of_classes_break_between_their_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.reports.small_evaluations.CLASSES", ["white_<i>ash</i>_tree", "birch", "cedar"])
    page = evaluation_page(evaluation(tmp_path)).decode()
    assert page.count('class="side">white_<wbr>&lt;i&gt;ash&lt;/i&gt;_<wbr>tree</th>') > 4
    assert "<i>" not in page
    assert "white_<i>ash</i>_tree" in {row[0] for row in Reader(page).rows}


def test_images_that_changed_are_shown_with_what_they_are(tmp_path: Path) -> None:
    made = evaluation(tmp_path)
    reader = Reader(evaluation_page(made).decode())
    details = made.details["mine"]["knn.top1"]
    assert details.better is not None
    assert details.worse is not None
    shown = [each.path for each in (*details.better, *details.worse)]
    assert (len(details.better), len(details.worse)) == (11, 2)
    assert [image["alt"] for image in reader.images] == shown * 2  # for both metrics


def test_more_images_than_can_be_shown_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IMAGES", 3)
    page = evaluation_page(evaluation(tmp_path)).decode()
    assert "Images that became right: 11" in page
    assert "The first 3 of them; all are in the JSON." in page
    assert len(Reader(page).images) == 2 * (3 + 2)


def test_of_many_classes_there_is_no_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "<caption" in evaluation_page(evaluation(tmp_path)).decode()
    monkeypatch.setattr(module, "MAX_MATRIX", 2)
    assert "<caption" not in evaluation_page(evaluation(tmp_path)).decode()


def test_a_base_alone_and_a_perfect_network_have_a_page(tmp_path: Path) -> None:
    alone = Reader(evaluation_page(evaluation(tmp_path, comparisons={"": compare(scores(BASE), None)})).decode())
    assert alone.images == []
    perfect = evaluation(tmp_path, comparisons={"mine": compare(scores(LABELS), scores(LABELS))})
    assert "What is taken for what" not in evaluation_page(perfect).decode()


def test_a_class_that_the_labels_do_not_have_is_told(tmp_path: Path) -> None:
    unknown = compare(scores(BASE), scores(torch.where(LABELS == 2, -1, ADAPTED)))
    page = evaluation_page(evaluation(tmp_path, comparisons={"mine": unknown})).decode()
    assert ["cedar", "another class", "0", "10"] in Reader(page).rows


def test_names_that_are_no_text_or_steer_a_terminal_are_shown_escaped(tmp_path: Path) -> None:
    page = evaluation_page(evaluation(tmp_path, facts={"labels": "a\udcff\x1b[31mb\u202e"})).decode()
    assert r"a\udcff\x1b[31mb\u202e</td>" in page


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)
def test_a_browser_has_no_complaint_and_a_phone_need_not_scroll_sideways(tmp_path: Path) -> None:
    page = evaluation_page(evaluation(tmp_path, bounds=(0.5, 0.95))).decode()
    frame, script = framed(page, "[page.documentElement.scrollWidth, page.images[0].naturalWidth]")
    seen = look_at(frame, tmp_path, script)
    assert seen.console == []
    assert seen.answer == [390, 72]
