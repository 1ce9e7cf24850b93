"""The summary is Markdown that a parser reads back: gates, scores, classes, images; short, whatever there is."""

from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt

from smn_cli.evaluation.compare import compare
from smn_cli.reports.summary import MAX_IMAGES, markdown_summary
from tests.reports.small_evaluations import ADAPTED, BASE, LABELS, evaluation, scores, with_controls


def tables(text: str) -> list[list[list[str]]]:
    """All tables as rows of shown cells."""
    found: list[list[list[str]]] = []
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for before, token in pairwise(tokens):
        if before.type == "table_open":
            found.append([])
        if before.type == "tr_open":
            found[-1].append([])
        if before.type in ("th_open", "td_open"):
            found[-1][-1].append("".join(child.content for child in token.children or []))
    return found


def test_verdict_and_gates_come_first(tmp_path: Path) -> None:
    text = markdown_summary(evaluation(tmp_path, bounds=(0.5, 0.95)))
    assert text.splitlines()[0] == "## smn eval: the adapted network is better than its base; 1 of 2 gates passed"
    assert tables(text)[0] == [
        ["gate", "found", ""],
        ["knn.top1>=0.5", "0.9000", "passed"],
        ["knn.top1>=0.95", "0.9000", "FAILED"],
    ]


def test_scores_classes_and_images_have_their_rows(tmp_path: Path) -> None:
    made = evaluation(tmp_path)
    scored, classes, images = tables(markdown_summary(made))
    assert [row[:4] for row in scored[1:]] == [[name, "0.6000", "0.9000", "+0.3000"] for name in made.details["mine"]]
    assert [row[:2] for row in classes[1:]] == [["ash", "10"], ["<b>birch</b> | *x*", "10"], ["cedar", "10"]]
    assert classes[1][2:4] == ["0.600 (0.313 .. 0.832)", "0.900 (0.596 .. 0.982)"]
    worse = made.details["mine"]["knn.top1"].worse
    assert worse is not None
    assert images[1:] == [[each.path, each.label, each.adapted] for each in worse]
    assert len(worse) == 2


def test_a_row_without_gain_is_as_long_as_the_others(tmp_path: Path) -> None:
    comparison = with_controls(compare(scores(BASE), scores(ADAPTED)))
    _, controls, *_ = tables(markdown_summary(evaluation(tmp_path, comparisons={"mine": comparison})))
    text = markdown_summary(evaluation(tmp_path, comparisons={"mine": comparison}))
    lines = [line for line in text.splitlines() if "of its own stages" in line]
    assert [row[0] for row in controls[1:]] == [
        "knn.top1 centred", "linear.top1 centred", "knn.top1 of its own stages", "linear.top1 of its own stages",
    ]  # fmt: skip
    assert [line.count("|") for line in lines] == [7, 7]


def test_a_base_alone_has_scores_and_several_networks_have_their_names(tmp_path: Path) -> None:
    alone = markdown_summary(evaluation(tmp_path, comparisons={"": compare(scores(BASE), None)}))
    assert alone.startswith("## smn eval: scores of a base alone\n")
    assert tables(alone) == [[["top-1 accuracy", "base"], ["knn.top1", "0.6000"], ["linear.top1", "0.6000"]]]
    both = {"one": compare(scores(BASE), scores(ADAPTED)), "two_": compare(scores(BASE), scores(BASE))}
    text = markdown_summary(evaluation(tmp_path, comparisons=both))
    assert text.startswith("## smn eval: adapter one is better than its base\n")
    assert "### two\\_\n" in text
    assert "**Adapter two\\_ is not distinguishable from its base.**" in text


def test_many_images_are_cut_and_counted(tmp_path: Path) -> None:
    lost = compare(scores(LABELS), scores((LABELS + 1) % 3))
    text = markdown_summary(evaluation(tmp_path, comparisons={"mine": lost}))
    assert f"Images that became wrong, the first {MAX_IMAGES} of 30:" in text
    assert len(tables(text)[-1]) == 1 + MAX_IMAGES
