"""What users named stays what it is, and nothing more."""

import pytest
from markdown_it import MarkdownIt

from smn_cli.errors import printable
from smn_cli.reports.text import markdown, sentence


@pytest.mark.parametrize(
    "text",
    [
        "a|b",
        "*a* __b__ ~~c~~",
        "<img src=x onerror=alert(1)>",
        "[a](http://b) ![c](d)",
        "`a` \\| \\",
        "&lt; $x$",
        "a_b-c",
    ],
)
def test_markdown_shows_the_text_itself_in_a_cell(text: str) -> None:
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = page.parse(f"| t | u |\n| --- | --- |\n| {markdown(text)} | x |\n")
    cells = [token for token, after in zip(tokens[1:], tokens, strict=False) if after.type == "td_open"]
    assert len(cells) == 2
    shown = "".join(child.content for child in cells[0].children or [])
    assert shown == text
    assert {child.type for child in cells[0].children or []} <= {"text", "text_special"}


def test_what_is_no_text_is_shown_escaped() -> None:
    assert printable("a\nb\x1b[0m\udc80é") == r"a\nb\x1b[0m\udc80é"


def test_a_sentence_begins_and_ends() -> None:
    assert (sentence("it is so"), sentence("")) == ("It is so.", "")
