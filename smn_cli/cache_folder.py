"""The one place where smn keeps what it can make again: features, indexes of tars, downloads."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """`$SMN_CACHE_HOME`, else the system's own place for caches: on Linux `$XDG_CACHE_HOME/smn` or `~/.cache/smn`.

    For a user without a home it is a place where nothing can be kept.
    """
    if own := os.environ.get("SMN_CACHE_HOME"):
        return Path(own)
    found = platformdirs.user_cache_path("smn", appauthor=False)
    return found if found.is_absolute() else Path(os.devnull)
