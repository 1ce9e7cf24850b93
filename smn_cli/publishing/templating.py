"""Pages of Markdown out of templates."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from smn_cli.errors import printable
from smn_cli.reports.text import markdown


def render(template: str, **names: Any) -> str:
    """A page that ends in one line break.

    Names of files, also hostile ones, go through the filters `shown`, in a text or a table, or `code`, between
    backticks.

    Args:
        template: file name in `templates`.
        **names: what it may speak of; every one that it does has to be there.
    """
    environment = Environment(
        loader=PackageLoader("smn_cli.publishing"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown": markdown, "code": _code}
    return environment.get_template(template).render(**names).rstrip() + "\n"


def _code(text: str) -> str:
    return printable(text).replace("`", "'").replace("|", "\\|")
