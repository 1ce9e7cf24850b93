"""Hooks of `mkdocs build`: what pages link to beside other pages becomes part of the site.

A page links to `../benchmarks/results/loader.md` or to the folder `schemas`, as a code host shows them. The site has
such files under `repository/` and lists of such folders, so that every link leads somewhere without a network.
"""

import re
from html import escape
from pathlib import Path
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
ASIDE = "repository"
_GLUE = "\N{NO-BREAK SPACE}"
_LINK = re.compile(r"(?<=\]\()([^):#\s]+)(?=[)#])")
_BAR = r"\|"
_CODE = re.compile(r"(`+[^`]+`+)")
_SHOWN_CODE = re.compile(r"(?<!<pre>)<code>([^<]+)</code>")
_HYPHENATED = re.compile(r"(?<!\S)-{1,2}[a-z][a-z-]*")
"""A word of code that begins with hyphens; whole, since none is longer than a phone is wide."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add files from outside of docs/, and a list for each folder, that pages link to."""
    pages = [file for file in files.documentation_pages() if file.abs_src_path]
    for page in pages:
        for target in _LINK.findall(page.content_string):
            path = _below_root(page.src_uri, target)
            uri = _place_in_site(path)
            if uri is None or files.get_file_from_path(uri) is not None:
                continue
            if (ROOT / path).is_dir():
                files.append(File.generated(config, uri, content=_listing(path)))
            else:
                files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to them lead there."""
    home = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        uri = _place_in_site(_below_root(home, match[1]))
        return match[1] if uri is None else relpath(uri, Path(home).parent.as_posix())

    if not home.startswith(ASIDE):
        markdown = _without_references(_LINK.sub(moved, markdown))
    return re.sub(r"^\|.*", _as_table_row, markdown, flags=re.MULTILINE)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let no line end within --an-option, as browsers do after a hyphen, but let one end within a path."""
    return _SHOWN_CODE.sub(_with_breaks, html)


def _with_breaks(code: re.Match[str]) -> str:
    text = _HYPHENATED.sub(r'<span class="whole">\g<0></span>', re.sub(r"(?<=\w)/(?=\w)", "/<wbr>", code[1]))
    return f"<code>{text}</code>"


def _without_references(markdown: str) -> str:
    """NAME[@SIZE][=FILE] and NAME[/FILE][@REVISION] outside of code, which are no links to references."""
    parts = _CODE.split(markdown)
    parts[::2] = [re.sub(r"\]\[(?=[=@])", r"]\\[", text) for text in parts[::2]]
    return "".join(parts)


def _as_table_row(row: re.Match[str]) -> str:
    """A row in which no line ends between the parts of a figure, .760 -> .865 (+.070 .. +.144), with its bars shown."""
    text = row[0].replace(" -> ", f"{_GLUE}\N{RIGHTWARDS ARROW}{_GLUE}")
    text = text.replace(" .. ", f"{_GLUE}..{_GLUE}").replace(" ± ", f"{_GLUE}±{_GLUE}")
    return _CODE.sub(_with_bars, text)


def _with_bars(code: re.Match[str]) -> str:
    r"""Code in a table: Python-Markdown shows the backslash of `RUN\|FILE`, which a code host takes off."""
    shown = escape(code[0].strip("`")).replace(_BAR, "&#124;")
    return f"<code>{shown}</code>" if _BAR in code[0] else code[0]


def _below_root(page: str, target: str) -> str:
    """Path in the repository of what a page of docs/ links to."""
    return normpath(f"docs/{Path(page).parent.as_posix()}/{target}")


def _place_in_site(path: str) -> str | None:
    """Where the site has it, if not where it is."""
    inside = path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"{inside if path.startswith('docs/') else f'{ASIDE}/{path}'}/index.md"
    return f"{ASIDE}/{path}" if inside == path and (ROOT / path).is_file() else None


def _listing(path: str) -> str:
    """A page that links to all files of a folder."""
    names = sorted(file.name for file in (ROOT / path).iterdir() if file.is_file())
    return "\n".join([f"# {Path(path).name}", "", *(f"- [{name}]({name})" for name in names), ""])
