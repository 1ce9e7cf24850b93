"""Pages of Markdown out of templates."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **names: Any) -> str:
    """A page that ends in one line break.

    Args:
        template: file name in `templates`.
        **names: what it may speak of; every one that it does has to be there.
    """
    environment = Environment(
        loader=PackageLoader("smn_cli.publishing"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**names).rstrip() + "\n"
