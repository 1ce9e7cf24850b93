"""What the name of a file says of its content."""

from pathlib import PurePath

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
    | {".avif", ".heic", ".heif", ".jxl", ".dcm", ".dicom"}  # some of them with an extra: without it they are told
)
LIST_SUFFIXES = frozenset({".txt", ".lst"})
TAR_SUFFIXES = frozenset({".tar"})
ARCHIVE_SUFFIXES = TAR_SUFFIXES | {".zip", ".parquet"}
COMPRESSED_SUFFIXES = frozenset({".gz", ".bz2", ".xz", ".zst", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst"})


def suffix_of(name: str) -> str:
    """The last suffix of a file name that does not begin with a dot, in lower case; quicker than pathlib's."""
    return name[name.rfind(".") :].lower()


def is_tar(path: PurePath) -> bool:
    """Whether a path is that of an uncompressed tar."""
    return path.suffix.lower() in TAR_SUFFIXES


def is_archive(path: PurePath) -> bool:
    """Whether a path is that of a tar, a zip or a parquet file, whose images can be read alone."""
    return path.suffix.lower() in ARCHIVE_SUFFIXES


def is_compressed_tar(path: PurePath) -> bool:
    """Whether a path is that of a compressed tar, which cannot be read from the middle."""
    suffix = path.suffix.lower()
    return suffix in COMPRESSED_SUFFIXES and (suffix.startswith(".t") or is_tar(PurePath(path.stem)))
