"""Names of architectures for the shell's completion, from a file: timm itself takes seconds to load."""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from smn_cli.atomic import write_atomically
from smn_cli.cache_folder import cache_folder
from smn_cli.config.teachers import LAST, STAGES


def complete_teacher(incomplete: str) -> list[str]:
    """The words that name a teacher, then timm's names, that begin so."""
    return [word for word in (STAGES, LAST) if word.startswith(incomplete)] + complete_arch(incomplete)


def complete_arch(incomplete: str) -> list[str]:
    """timm's names that begin so; the list is made once for every version of timm."""
    try:
        path = cache_folder() / "archs" / f"timm-{version('timm')}.txt"
    except PackageNotFoundError:
        return []
    try:
        names = path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        import timm

        names = timm.list_models()
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, "\n".join(names).encode("ascii"))
    return [name for name in names if name.startswith(incomplete)]
