"""Whatever way images are named, each is found once, in an order of its own, and what is not there is said."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smn_cli.data.images.extensions import IMAGE_SUFFIXES
from smn_cli.data.images.find import find_class_folders, find_images, list_files
from smn_cli.errors import DataError


def touch(root: Path, *names: str) -> None:
    """Empty files: finding looks at names only."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_images_are_found_at_any_depth_and_whatever_the_case_of_their_suffix(tmp_path: Path) -> None:
    names = ["a.jpg", "b/c.PNG", "b/d/e/f.Tiff", "b/d/g.jpeg", "z.webp"]
    touch(tmp_path, *names, "b/readme.txt", "b/d/model.pth", "b/noext")
    assert find_images([tmp_path]) == [tmp_path / name for name in names]


def test_every_suffix_of_the_list_is_found(tmp_path: Path) -> None:
    touch(tmp_path, *(f"x{suffix}" for suffix in IMAGE_SUFFIXES))
    assert {path.suffix for path in find_images([tmp_path])} == IMAGE_SUFFIXES
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"} <= IMAGE_SUFFIXES


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "seen.png", ".hidden.png", ".thumbs/a.png", "sub/._seen.png", "sub/b.png")
    assert find_images([tmp_path]) == [tmp_path / "seen.png", tmp_path / "sub" / "b.png"]


def test_a_loop_of_links_ends_and_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "sub/a.png")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    notes: list[str] = []
    assert find_images([tmp_path], note=notes.append) == [tmp_path / "sub" / "a.png"]
    assert notes == [f"{tmp_path}/sub/loop is left out: it leads to a folder that is searched already"]


def test_a_folder_of_links_to_folders_is_searched_each_target_once(tmp_path: Path) -> None:
    touch(tmp_path, "first/1.png", "first/deep/2.png", "second/1.png")
    collected = tmp_path / "collected"
    collected.mkdir()
    for name, target in (("a", "first"), ("b", "second"), ("c", "first"), ("d", "first/deep"), ("e", "nothing")):
        (collected / name).symlink_to(tmp_path / target)
    notes: list[str] = []
    found = [path.relative_to(collected).as_posix() for path in find_images([collected], note=notes.append)]
    assert found == ["a/1.png", "a/deep/2.png", "b/1.png"]
    told = [line.removeprefix(f"{collected}/").partition(" is left out")[0] for line in notes]
    assert sorted(told) == ["c", "d", "e"]


def test_an_image_folder_that_is_itself_reached_by_a_link_is_not_searched_twice(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.png", "other.png")
    (tmp_path / "images" / "up").symlink_to(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path / "images"])]
    assert found == ["images/1.png", "images/up/other.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_in_an_images_place_is_told_and_never_opened(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    os.mkfifo(tmp_path / "c.txt")
    notes: list[str] = []
    assert find_images([tmp_path], note=notes.append) == [tmp_path / "a.png"]
    assert [line.partition(" is left out")[0] for line in notes] == [f"{tmp_path}/b.png"]
    for name in ("b.png", "c.txt"):
        with pytest.raises(DataError, match=f"{name} is a pipe, a socket or a device"):
            find_images([tmp_path / name])


def test_the_order_of_inputs_and_of_creation_does_not_matter(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    touch(first, "b/2.png", "a.png", "c.png")
    touch(second, "a.png", "c.png", "b/2.png")
    forwards = find_images([first, second])
    assert find_images([second, first]) == forwards
    assert [path.relative_to(first) for path in forwards[:3]] == [path.relative_to(second) for path in forwards[3:]]


def test_an_image_named_in_several_ways_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "images/a.png", "lists/sub/keep")
    paths_file = tmp_path / "lists" / "paths.txt"
    paths_file.write_text("../images/a.png\nsub/../../images/a.png\n")
    monkeypatch.chdir(tmp_path)
    inputs: list[str | Path] = [
        Path("images"),
        tmp_path / "images",
        tmp_path / "images" / "a.png",
        "./images/../images",
        paths_file,
    ]
    found = find_images(inputs)
    assert len(found) == 1
    assert found[0].samefile(tmp_path / "images" / "a.png")


def test_a_list_gives_paths_relative_to_itself_and_skips_comments_and_blank_lines(tmp_path: Path) -> None:
    touch(tmp_path, "pictures/ä b.png", "pictures/c.png", "d.png")
    paths_file = tmp_path / "pictures" / "paths.txt"
    lines = ["# a comment", "", "  ä b.png  ", "../d.png", str(tmp_path / "pictures" / "c.png")]
    paths_file.write_text("\r\n".join(lines), encoding="utf-8-sig")
    found = {path.resolve() for path in find_images([paths_file])}
    assert found == {tmp_path / "pictures" / "ä b.png", tmp_path / "d.png", tmp_path / "pictures" / "c.png"}


def test_a_missing_entry_of_a_list_is_named_with_its_line(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    (tmp_path / "paths.txt").write_text("a.png\n\ngone.png\n")
    with pytest.raises(DataError, match=r"paths\.txt line 3: gone\.png is not a file"):
        find_images([tmp_path / "paths.txt"])


def test_a_list_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "paths.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(DataError, match=r"paths\.txt cannot be read as a UTF-8 list"):
        find_images([tmp_path / "paths.txt"])


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/gone does not exist: expected a folder"):
        find_images([tmp_path, tmp_path / "gone"])


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "notes.pdf")
    with pytest.raises(DataError, match=r"notes\.pdf is neither an image nor a list"):
        find_images([tmp_path / "notes.pdf"])


def test_a_folder_without_images_is_named_with_what_was_looked_for(tmp_path: Path) -> None:
    touch(tmp_path, "notes.md", ".a.png")
    with pytest.raises(DataError, match=rf"no images in {tmp_path}: expected files ending in avif, bmp, dcm"):
        find_images([tmp_path])


def test_no_input_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="no images in an empty list"):
        find_images([])


def test_a_folder_that_cannot_be_read_is_named_and_not_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.png", "locked/b.png")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "locked":  # the tests may run as root, to whom no folder is locked
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"/locked cannot be searched for images: Permission denied"):
        find_images([tmp_path])


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images cannot be searched for images: No such file"):
        list_files(tmp_path / "images", IMAGE_SUFFIXES)


def by_walk(root: Path) -> list[str]:
    """The slow way, by os.walk, in the order that is promised."""
    found, seen, links = [], set(), [root]
    while links:
        for folder, names, files in os.walk(links.pop(0)):
            if Path(folder).resolve() in seen:
                names.clear()
                continue
            seen.add(Path(folder).resolve())
            names[:] = sorted(name for name in names if not name.startswith("."))
            links += [Path(folder) / name for name in names if (Path(folder) / name).is_symlink()]
            names[:] = [name for name in names if not (Path(folder) / name).is_symlink()]
            found += [
                (Path(folder) / name).relative_to(root).as_posix()
                for name in sorted(files)
                if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
            ]
    return found


FILES = [
    "a.png",
    "b.PNG",
    "a.txt",
    ".c.png",
    "x/a.png",
    "x/y/b.jpg",
    "x/y/.z/c.jpg",
    ".e/a.png",
    "x.png/d.png",
    "v/a.png",
    "z/a.png",
    "w/a.png",
]
LINKS = ["k.png", "x/l.png", "m", "x/n"]


@settings(max_examples=60, deadline=None)
@given(
    files=st.sets(st.sampled_from(FILES)),
    links=st.dictionaries(st.sampled_from(LINKS), st.sampled_from(["x", "a.png", "nothing", "k.png", "", "z", "x/y"])),
)
def test_any_tree_is_listed_as_a_slow_walk_lists_it(
    tmp_path_factory: pytest.TempPathFactory, files: set[str], links: dict[str, str]
) -> None:
    root = tmp_path_factory.mktemp("images")
    touch(root, *files)
    for name, target in links.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(root / target)
    assert list_files(root, IMAGE_SUFFIXES) == by_walk(root)


def test_only_the_wanted_suffixes_are_listed(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.tar")
    assert list_files(tmp_path, frozenset({".png"})) == ["1.png"]
    assert list_files(tmp_path, frozenset({".tar"})) == ["2.tar"]


def test_names_that_are_no_text_are_listed(tmp_path: Path) -> None:
    names = sorted([os.fsdecode(b"\xff\xfe.png"), "ä b.png", "tab\t.png"])
    touch(tmp_path, *names)
    assert list_files(tmp_path, IMAGE_SUFFIXES) == names


def test_class_folders_are_sorted_and_empty_or_hidden_ones_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "dog/1.png", "cat/deep/2.png", "cat/1.png", ".git/a.png", "stray.png", "empty/readme.md")
    classes = find_class_folders(tmp_path)
    assert list(classes) == ["cat", "dog"]
    assert classes["cat"] == [tmp_path / "cat" / "1.png", tmp_path / "cat" / "deep" / "2.png"]


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    with pytest.raises(DataError, match="has no class folders with images"):
        find_class_folders(tmp_path)
    with pytest.raises(DataError, match="gone is not a folder"):
        find_class_folders(tmp_path / "gone")
