"""Readers of foreign bytes under coverage-guided fuzzing (atheris, which is libFuzzer): anything undocumented stops it.

    pip install atheris
    python -m benchmarks.attack.readers header --corpus FOLDER --seconds 180

*header*, *payload*: of an adapter. *cascade*: header and tensors of a cascade. All three are behind a right checksum,
without which nothing is looked at. *container*: the file around them. *tar*, *zip*: archives of images; what they list
is read, too. The corpus is kept, and the next call goes on from it. libFuzzer prints how many executions there were.
"""

import argparse
import io
import json
import os
import random
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:
    atheris = None

READING = (
    "adapters.adapter", "adapters.container", "adapters.schema", "cascade.file", "data.images.tar",
    "data.images.tar_headers", "data.images.zips",
)  # fmt: skip
if atheris is not None:  # before anything else imports them; by name, for an import that nobody uses gets tidied away
    with atheris.instrument_imports(include=["smn_cli"]):
        for name in READING:
            import_module(f"smn_cli.{name}")

import numpy as np

from benchmarks.fuzz_adapter import change
from smn_cli.adapters.adapter import adapter_from_bytes
from smn_cli.adapters.fingerprint import fingerprint
from smn_cli.data.images import tar as tars
from smn_cli.data.images import zips as zip_files
from smn_cli.data.images.members import MemberError, stamp_of
from smn_cli.errors import AdapterFileError, DataError, MismatchError
from tests.adapters.forging import Parts, put_together, sign, take_apart, toy_adapter, toy_base

CODECS = ("bits", "lzma", "context", "context2")
ADAPTERS = [toy_adapter(codec, statistics=carried).to_bytes() for codec in CODECS for carried in (False, True)]
BASE = toy_base()
TAKEN_APART = [take_apart(data) for data in ADAPTERS]


@dataclass(frozen=True)
class Reader:
    """What is fed, what it starts from, and whether that is the text of a header, which is also changed as JSON."""

    feed: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    is_text: bool = False


def header(data: bytes) -> None:
    """As the header of an adapter whose first byte names it."""
    number, text = data[:1], data[1:].decode(errors="surrogateescape")
    if number and text.isascii():
        use_adapter(put_together(text, TAKEN_APART[number[0] % len(ADAPTERS)][1]))


def payload(data: bytes) -> None:
    """As one of the tensors of an adapter; two bytes say which."""
    if len(data) > 2:
        header, parts = TAKEN_APART[data[0] % len(ADAPTERS)]
        use_adapter(put_together(header, _with_part(parts, data[1], data[2:])))


def container_bytes(data: bytes) -> None:
    """As all of a file but its checksum."""
    use_adapter(sign(data + bytes(32)))


def use_adapter(data: bytes) -> bool:
    """Whether a file rebuilds; if so, to what its header promises. Other errors than the documented are raised."""
    try:
        found = adapter_from_bytes(data)
        state = found.rebuild(BASE)
    except (AdapterFileError, MismatchError) as error:
        _is_one_line(error)
        return False
    if fingerprint(state).digest != found.header.adapted_digest:
        raise AssertionError("a file rebuilt another network than it promises")
    return True


def cascade(data: bytes) -> None:
    """As the header of a cascade or, by its first byte, as one of its tensors."""
    from benchmarks.attack.mutated import CASCADES, use_cascade

    if len(data) > 2:
        header, parts = take_apart(CASCADES[data[0] % 2])
        if data[1] % 2:
            use_cascade(put_together(header, _with_part(parts, data[1] // 2, data[2:])))
        elif (text := data[2:].decode(errors="surrogateescape")).isascii():
            use_cascade(put_together(text, parts))


def _with_part(parts: Parts, number: int, content: bytes) -> Parts:
    name = sorted(parts)[number % len(parts)]
    kind, shape, old = parts[name]
    width = max(1, len(old) // max(1, int(np.prod(shape))))
    if len(content) != len(old):
        content = content[: len(content) // width * width]
        shape = [len(content) // width]
    return {**parts, name: (kind, shape, content)}


def tar_bytes(data: bytes) -> None:
    """As a tar, whose headers have their checksums made right."""
    signed = bytearray(data)
    for start in range(0, len(data) - 511, 512):
        if data[start + 257 : start + 262] == b"ustar":
            block = signed[start : start + 148] + b" " * 8 + signed[start + 156 : start + 512]
            signed[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    _read_archive(bytes(signed), "a.tar", tars)


def zip_bytes(data: bytes) -> None:
    """As a zip."""
    _read_archive(data, "a.zip", zip_files)


def _read_archive(data: bytes, name: str, reader: Any) -> None:
    path = SCRATCH / name
    path.write_bytes(data)
    reader._read_index.cache_clear()
    stamp = stamp_of(path.stat())
    try:
        names = list(reader.names_in(str(path), stamp))
    except DataError as error:
        _is_one_line(error)
        return
    for member in names[:50]:
        if member.startswith("/") or ".." in member.split("/"):
            raise AssertionError(f"{member!r} leads outside")
        try:
            read = reader.open_member(str(path), member, stamp).read()
        except MemberError:
            continue
        if reader is tars and len(read) > len(data):
            raise AssertionError("a member is longer than its tar")


def _is_one_line(error: Exception) -> None:
    if len(str(error).splitlines()) != 1:
        raise AssertionError(f"no one line: {error}")


def header_seeds() -> Iterator[bytes]:
    """The headers of good files."""
    for number, (content, _) in enumerate(TAKEN_APART):
        yield bytes([number]) + json.dumps(content).encode()


def payload_seeds() -> Iterator[bytes]:
    """Their tensors."""
    for number, (_, parts) in enumerate(TAKEN_APART):
        for place, name in enumerate(sorted(parts)):
            yield bytes([number, place]) + parts[name][2]


def cascade_seeds() -> Iterator[bytes]:
    """Header and tensors of good cascades."""
    from benchmarks.attack.mutated import CASCADES

    for number, data in enumerate(CASCADES):
        content, parts = take_apart(data)
        yield bytes([number, 0]) + json.dumps(content).encode()
        for place, name in enumerate(sorted(parts)):
            yield bytes([number, 2 * place + 1]) + parts[name][2]


def tar_seeds() -> Iterator[bytes]:
    """Tars of every kind of member and of every format."""
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
            for number, name in enumerate(("a.png", "folder/" * 12 + "b.jpg", "../c.png", "d.txt")):
                entry = tarfile.TarInfo(name)
                entry.size = 40 * number
                file.addfile(entry, io.BytesIO(bytes(entry.size)))
            link = tarfile.TarInfo("e.png")
            link.type, link.linkname = tarfile.SYMTYPE, "a.png"
            file.addfile(link)
        yield buffer.getvalue()[:6144]


def zip_seeds() -> Iterator[bytes]:
    """Zips, stored and deflated."""
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as file:
            for number, name in enumerate(("a.png", "folder/b.jpg", "../c.png", "d.txt")):
                file.writestr(name, bytes(40 * number))
        yield buffer.getvalue()


READERS = {
    "header": Reader(header, header_seeds, is_text=True),
    "payload": Reader(payload, payload_seeds),
    "container": Reader(container_bytes, lambda: (data[:-32] for data in ADAPTERS)),
    "cascade": Reader(cascade, cascade_seeds, is_text=True),
    "tar": Reader(tar_bytes, tar_seeds),
    "zip": Reader(zip_bytes, zip_seeds),
}
SCRATCH = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))  # noqa: PTH112


def as_json(data: bytes, seed: int) -> bytes | None:
    """The same with an odd value somewhere in its JSON object; None if there is none."""
    start = data.find(b"{")
    try:
        content = json.loads(data[start:]) if 0 < start < 3 else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not content:
        return None
    change(content, random.Random(seed))
    return data[:start] + json.dumps(content).encode()


def _mutated(data: bytes, max_size: int, seed: int) -> bytes:
    changed = as_json(data, seed) if seed % 2 else None
    if changed is None or len(changed) > max_size:
        changed = bytes(atheris.Mutate(data, max_size))
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=180)
    options = parser.parse_args()
    if atheris is None:
        sys.exit("atheris is not installed: pip install atheris")
    if any("__ATHERIS_INSTRUMENTED__" not in reads.__code__.co_consts for reads in (adapter_from_bytes, stamp_of)):
        sys.exit("smn_cli was imported before atheris could watch it: without coverage nothing is found")
    reader = READERS[options.reader]
    os.environ["SMN_CACHE_HOME"] = os.devnull
    options.corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(reader.seeds()):
        (options.corpus / f"seed{number}").write_bytes(seed)
    settings = (
        f"-max_total_time={options.seconds} -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 -max_len=16384 "
        f"-artifact_prefix={options.corpus.absolute().parent}/{options.reader}-"
    )
    mutator = {"custom_mutator": _mutated} if reader.is_text else {}
    atheris.Setup([sys.argv[0], *settings.split(), str(options.corpus)], reader.feed, **mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
