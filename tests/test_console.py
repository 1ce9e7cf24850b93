"""What a terminal shows: whole words, whole numbers; what a file gets: lines without control codes."""

import re

import pytest

from smn_cli.console import Output

_CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eighty columns."""
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "80", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)


def lines(text: str) -> list[str]:
    return re.split(r"[\r\n]+", _CODES.sub("", text))


@pytest.mark.usefixtures("terminal")
def test_a_long_line_breaks_between_words_and_goes_on_set_in(capsys: pytest.CaptureFixture[str]) -> None:
    Output().talk("  prototypes 10: " + "one for 15 images, " * 6 + "a-long-hyphenated-word")
    first, *others = lines(capsys.readouterr().err.rstrip("\n"))
    assert first.startswith("  prototypes 10: one")
    assert others
    assert all(line.startswith("    ") and line[4] != " " and len(line) <= 80 for line in others)
    assert others[-1].endswith("a-long-hyphenated-word")


@pytest.mark.usefixtures("terminal")
def test_the_numbers_of_a_wide_table_stay_whole(capsys: pytest.CaptureFixture[str]) -> None:
    row = ["knn.top1@20 of the base at its own size", "0.6000", "0.4900", "-0.1100", "-0.1900 .. -0.0300", "worse"]
    Output().table("controls", ["without training", "base", "adapted", "gain", "95 % interval", ""], [row])
    shown = "\n".join(lines(capsys.readouterr().out))
    assert all(number in shown for number in row[1:])
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.usefixtures("terminal")
def test_a_bar_ends_in_whole_parts_of_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().progress("adapting", 1500) as tick:
        tick(1500, "loss 1.342, density 0.995, 22 images/s")
    last = [line for line in lines(capsys.readouterr().err) if line.startswith("adapting")][-1].rstrip()
    assert last.endswith("loss 1.342, density 0.995")
    assert last.count("\N{BOX DRAWINGS HEAVY HORIZONTAL}") >= 12


def test_a_file_gets_lines_without_codes(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    with output.progress("adapting", 2) as tick:
        tick(2, "loss 1.342")
    output.table("sizes", ["part", "bytes"], [["whole file", "22,056"]])
    output.talk("x" * 300)
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert said.err == "adapting 2/2 loss 1.342, 0 s\n" + "x" * 300 + "\n"
