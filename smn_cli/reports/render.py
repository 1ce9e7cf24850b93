"""From a template and its content to the bytes of a page."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def render_page(template: str, **content: Any) -> bytes:
    """Fill a template of this package; text stays text, whatever it holds."""
    environment = Environment(
        loader=PackageLoader("smn_cli.reports"),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # a file's name may hold bytes that are no text
    return environment.get_template(template).render(**content).encode("utf-8", "replace")
