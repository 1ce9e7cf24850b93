"""Picture and page of few labels stand alone, show every network and number, and are the same twice."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from smn_cli.errors import printable
from smn_cli.evaluation.low_shot import LabelSubsets, LowShotRow, LowShotScores, tabulate
from smn_cli.reports.evaluation_page import evaluation_page
from smn_cli.reports.low_shot import STYLES, low_shot_figure, write_plot
from tests.reports.small_evaluations import evaluation

LABELS = [0, 0, 1, 1, 2, 2, 3, 3]
METRICS = ("knn.top1", "linear.top1")


@pytest.fixture
def rows() -> list[LowShotRow]:
    """Two fractions, two adapters; the smaller fraction lacks two classes."""
    generator = torch.Generator().manual_seed(0)
    subsets = [LabelSubsets(1.0, (tuple(range(8)),)), LabelSubsets(0.25, ((0, 2), (4, 6), (1, 7)))]

    def scores() -> list[LowShotScores]:
        return [
            LowShotScores(
                {"knn": {"k": 2}, "linear": {"C": 1.0}},
                {name: torch.rand(len(subset.positions), 40, generator=generator) < 0.6 for name in METRICS},
            )
            for subset in subsets
        ]

    return tabulate(subsets, LABELS, scores(), {"<mine>": scores(), "theirs": scores()})


def test_every_panel_has_a_line_a_network_through_its_means(rows: list[LowShotRow]) -> None:
    figure = low_shot_figure(rows)
    assert [axes.get_title() for axes in figure.axes] == list(METRICS)
    for axes, metric in zip(figure.axes, METRICS, strict=True):
        assert [line.get_label() for line in axes.lines] == ["base", "<mine>", "theirs"]
        expected = [[row.num_images, row.adapted["<mine>"].metrics[metric]] for row in rows]
        assert np.asarray(axes.lines[1].get_xydata()).tolist() == expected
        assert axes.get_xscale() == "log"
        assert [text.get_text() for text in axes.get_xticklabels()] == ["2\n25 %", "8\n100 %"]


@pytest.mark.parametrize("name", ["$x^$", "$", "_hidden", "<img src=x onerror=alert(1)>", "a\nb", "a\udc80", "--><b>"])
def test_the_name_of_a_file_is_text_in_the_picture(name: str, rows: list[LowShotRow], tmp_path: Path) -> None:
    renamed = [replace(row, adapted={name: row.adapted["<mine>"]}, gains={}) for row in rows]
    write_plot(renamed, tmp_path / "p.png")
    write_plot(renamed, tmp_path / "p.svg")
    drawn = ElementTree.parse(tmp_path / "p.svg").getroot()
    words = [(each.text or "").strip() for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert printable(name) in words
    assert not {"img", "b"} & {each.tag.rpartition("}")[2] for each in drawn.iter() if isinstance(each.tag, str)}


def test_lines_differ_without_colour() -> None:
    assert len({(line, marker) for _, line, marker in STYLES}) == len(STYLES)


def test_files_are_the_same_twice_and_load_nothing_from_anywhere(rows: list[LowShotRow], tmp_path: Path) -> None:
    names = ("p.png", "p.svg", "r.html")
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        write_plot(rows, folder / "p.png")
        write_plot(rows, folder / "p.svg")
        (folder / "r.html").write_bytes(evaluation_page(evaluation(tmp_path / "images", rows=rows)))
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)
    with Image.open(tmp_path / "one" / "p.png") as image:
        assert image.width > 1000
    page = (tmp_path / "one" / "r.html").read_text()
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)\"", page)
    assert [address for address in addresses if not address.startswith(("data:", "#"))] == []
    assert "<script" not in page


def test_the_page_has_every_number_and_what_is_missing(rows: list[LowShotRow], tmp_path: Path) -> None:
    page = evaluation_page(evaluation(tmp_path, rows=rows)).decode()
    assert "<mine>" not in page
    for row in rows:
        for name, scores in row.adapted.items():
            for metric, value in scores.metrics.items():
                gain = row.gains[name][metric]
                assert f">{value:.4f}</td>" in page
                assert f">{gain.low:+.4f} .. {gain.high:+.4f}</td>" in page
    assert "Classes without an image at 0.25 of the labels: up to 2." in page
    assert re.search(r"<svg class=\"picture\" role=\"img\" aria-label=\"Accuracy of every network", page)
