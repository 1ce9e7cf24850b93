"""Names that users and their files gave, as they can stand in a line, in Markdown and in XML."""

import re

from smn_cli.errors import printable

_MARKDOWN = re.compile(r"([\\`*_\[\]<|~&$])")


def sentence(words: str) -> str:
    """With a capital and a full stop."""
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def markdown(text: str) -> str:
    """Text that Markdown shows as it stands, in a cell of a table or after other words of a line."""
    return _MARKDOWN.sub(r"\\\1", printable(text))
