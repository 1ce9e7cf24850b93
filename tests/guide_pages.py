"""Pages of docs/ as text: their blocks of code and their prose."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent.parent / "docs"


class Block(NamedTuple):
    """A fenced block of code: its language and its text."""

    language: str
    text: str


def blocks_of(page: str) -> list[Block]:
    """Fenced blocks of a page, in its order."""
    return [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", (DOCS / page).read_text(), re.M | re.S)]


def commands_in(text: str) -> list[list[str]]:
    """Words of every line of shell that calls smn; under torchrun they begin with smn, too. pip is left out."""
    lines = [words for line in text.replace("\\\n", " ").splitlines() if (words := shlex.split(line, comments=True))]
    assert {words[0] for words in lines} <= {"smn", "pip", "torchrun"}
    named = [["smn", *words[words.index("smn_cli") + 1 :]] if "smn_cli" in words else words for words in lines]
    return [words[1:] for words in named if words[0] == "smn"]


def sentences_of(page: str) -> list[str]:
    """Sentences of the prose, without code, tables, headings and what mkdocstrings puts in."""
    text = re.sub(r"^```.*?^```$", "", (DOCS / page).read_text(), flags=re.M | re.S)
    lines = [line for line in text.splitlines() if not re.match(r"[|#]|:::|    options:|      \w", line)]
    paragraphs = re.split(r"\n\s*\n|\n(?=[-*] |\d+\. )", "\n".join(lines))
    found = [part.strip() for paragraph in paragraphs for part in re.split(r"(?<=[.!?])\s+", paragraph)]
    return [sentence for sentence in found if len(sentence.split()) > 1]
