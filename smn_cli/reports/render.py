"""From a template and its content to the bytes of a page."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from smn_cli.errors import printable


def render_page(template: str, **content: Any) -> bytes:
    """Fill a template of this package; text stays text, whatever it holds, and control characters are shown escaped."""
    environment = Environment(
        loader=PackageLoader("smn_cli.reports"),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    # a file's name may hold bytes that are no text
    return environment.get_template(template).render(**content).encode("utf-8", "replace")


def _shown(value: Any) -> Any:
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "\n".join(printable(line) for line in value.split("\n"))
