"""Files on the Hugging Face hub: addresses such as hf://USER/NAME, fetched and sent; every failure is one line.

`HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` and the cache are those of `huggingface_hub`, which is imported when it is
needed, since that takes longer than reading an adapter.
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from smn_cli.errors import HubError, UsageError

SCHEME = "hf://"
ADAPTER_FILE = "adapter.safetensors"
"""Name of an adapter in its repository."""
MAX_FILE_BYTES = 1 << 32
"""Of an adapter, wherever it comes from."""
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}")
_IN_CACHE = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}")
"""A commit or a digest of the hub's, of which its client makes names in the cache."""
_COLLAPSED = re.compile(r"hf:/+")  # pathlib takes the second slash away


@dataclass(frozen=True)
class Address:
    """A file in a repository of models, at a revision: a branch, a tag or a commit; None is the newest."""

    repository: str
    file: str = ADAPTER_FILE
    revision: str | None = None


def is_address(path: str | Path) -> bool:
    """Whether something that may be a path is an address on the hub."""
    return bool(_COLLAPSED.match(PurePath(path).as_posix()))


def parse_address(text: str | Path) -> Address:
    """The address that hf://USER/NAME[/FILE][@REVISION] is; without hf:// too.

    Raises:
        UsageError: it is none.
    """
    named = _COLLAPSED.sub("", PurePath(text).as_posix(), count=1)
    user, _, rest = named.partition("/")
    name, _, file = rest.partition("/")
    # behind the name as huggingface_hub writes it, or behind the file
    name, _, revision = name.partition("@")
    if not revision:
        file, _, revision = file.partition("@")
    is_usable = _REPOSITORY.fullmatch(f"{user}/{name}") and not {"..", "."} & set(file.split("/"))
    if not is_usable or named.endswith("@"):
        raise UsageError(f"{text}: expected hf://USER/NAME, hf://USER/NAME/FILE or either with @REVISION")
    return Address(f"{user}/{name}", file or ADAPTER_FILE, revision or None)


def local_file(path: str | Path) -> Path:
    """A path as it is; of an address on the hub, the file in the hub's cache, fetched if it is not there.

    Raises:
        UsageError: it looks like an address, and is none.
        HubError: the file cannot be had.
    """
    return fetch(parse_address(path)) if is_address(path) else Path(path)


def fetch(address: Address) -> Path:
    """The file of an address, in the hub's cache.

    Raises:
        HubError: no connection and not in the cache, no such repository, revision or file, or not with this token.
    """
    import huggingface_hub

    place, revision = (address.repository, address.file), address.revision
    with _told(f"{SCHEME}{address.repository}", address.file), _quiet():
        try:  # fails at once where the download would go on trying for half a minute
            told = huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(*place, revision=revision))
            _check_told(told, f"{SCHEME}{address.repository}")
        except HubError:
            raise
        except Exception as error:
            status = getattr(getattr(error, "response", None), "status_code", 500)
            known = huggingface_hub.try_to_load_from_cache(*place, revision=revision) if status >= 500 else None
            if not isinstance(known, str):
                raise
            return Path(known)
        return Path(huggingface_hub.hf_hub_download(*place, revision=revision))


def check_in_reach(repository: str, files: Sequence[str], revision: str | None = None) -> None:
    """Refuse a repository of which nothing can be had, at once, where the hub's client would try for a minute.

    Args:
        repository: USER/NAME.
        files: names that its weights may have; one in the cache is enough.
        revision: as in `Address`.

    Raises:
        HubError: none of them is in the cache, and the hub does not answer. What it answers is not looked at.
    """
    import huggingface_hub

    if any(
        isinstance(huggingface_hub.try_to_load_from_cache(repository, name, revision=revision), str) for name in files
    ):
        return
    try:
        with _quiet():
            huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repository, files[0], revision=revision))
    except Exception as error:  # the hub's client raises dozens of kinds, its HTTP library others
        if getattr(getattr(error, "response", None), "status_code", 500) >= 500:
            raise HubError(_reason(error, repository, files[0])) from None


def _check_told(told: Any, source: str) -> None:
    """Refuse what would end outside of the cache, or fill the disk.

    Args:
        told: what the hub's client read from the answer.
        source: for the message.
    """
    for what, name in (("commit", told.commit_hash), ("digest", told.etag)):
        if name is not None and not _IN_CACHE.fullmatch(name):
            raise HubError(f"{source}: the hub answers with {name[:80]!a} for a {what}: it is none that smn trusts")
    if told.size is not None and not 0 <= told.size <= MAX_FILE_BYTES:
        raise HubError(f"{source}: the hub tells {told.size:,} bytes: expected at most {MAX_FILE_BYTES:,}")


def commit_of(path: Path) -> str:
    """The commit that a file in the cache is of; empty if its place does not tell."""
    parents = [parent.name for parent in path.parents]
    return parents[parents.index("snapshots") - 1] if "snapshots" in parents[1:] else ""


def send(repository: str, files: Mapping[str, bytes], *, message: str, is_private: bool = False) -> str:
    """Put files into a repository of models in one commit; it is made if it is not there.

    Args:
        repository: USER/NAME.
        files: content by name.
        message: of the commit.
        is_private: of a repository that is made; one that is there has to be private then.

    Returns:
        The commit's address.

    Raises:
        HubError: no connection, not with this token, or the repository is there and public; nothing was written.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi()
    operations = [huggingface_hub.CommitOperationAdd(name, data) for name, data in files.items()]
    with _told(repository), _quiet():
        api.create_repo(repository, private=is_private or None, exist_ok=True)
        if is_private and not api.repo_info(repository).private:
            raise HubError(f"{repository} is there and public: make it private on the hub, or leave `private` out")
        return str(api.create_commit(repository, operations, commit_message=message).commit_url)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without bars and warnings: what matters ends in the one error."""
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown, level = not are_progress_bars_disabled(), logging.get_verbosity()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.set_verbosity(50)  # critical
            disable_progress_bars()
            yield
    finally:
        logging.set_verbosity(level)
        if shown:
            enable_progress_bars()


@contextmanager
def _told(repository: str, file: str = "") -> Iterator[None]:
    try:
        yield
    except HubError:
        raise
    except Exception as error:  # the hub's client raises dozens of kinds, its HTTP library others
        raise HubError(_reason(error, repository, file)) from None


def _reason(error: BaseException, repository: str, file: str) -> str:
    """What went wrong, by the error or the one behind it: a refusal is told as a file that is not in the cache."""
    from huggingface_hub import errors

    chain: list[Any] = []
    step: BaseException | None = error
    while step is not None and len(chain) < 8:
        chain.append(step)
        step = step.__cause__ or step.__context__
    statuses = [getattr(getattr(each, "response", None), "status_code", None) for each in chain]
    kinds = tuple(map(type, chain))

    def is_any(*wanted: type) -> bool:
        return any(issubclass(kind, wanted) for kind in kinds)

    if is_any(errors.GatedRepoError) or 403 in statuses:
        return f"{repository}: the hub does not let you in (403): ask for access, or take a token that has it"
    if is_any(errors.RepositoryNotFoundError) or (404 in statuses and not file):
        return f"{repository} is not on the hub, or is private and the token does not open it (hf auth login, HF_TOKEN)"
    if 401 in statuses or is_any(errors.LocalTokenNotFoundError):
        return f"{repository}: the hub does not know the token (401): log in with hf auth login, or set HF_TOKEN"
    if is_any(errors.RevisionNotFoundError):
        return f"{repository} has no such revision: see its commits and tags on the hub"
    if any(isinstance(each, errors.EntryNotFoundError) and not isinstance(each, FileNotFoundError) for each in chain):
        return f"{repository} has no {file}: name its file as {repository}/FILE"
    if is_any(errors.OfflineModeIsEnabled):
        return f"{repository} cannot be reached, for HF_HUB_OFFLINE is set" + _not_cached(file)
    if faults := [status for status in statuses if status is not None and status >= 500]:
        return f"{repository}: the hub has a fault of its own ({faults[0]}): try again later"
    if isinstance(error, ValueError) or 400 in statuses:  # such as a licence that the hub does not know
        return f"{repository}: the hub does not take it: {' '.join(str(error).split())}"
    last = (str(chain[-1]) or type(chain[-1]).__name__).strip().splitlines()[0].rstrip(".")
    return f"{repository} cannot be reached ({last})" + _not_cached(file)


def _not_cached(file: str) -> str:
    return f", and {file} is not in the cache: connect, or give a local file" if file else ": connect and try again"
