"""A page in a real browser, headless Chromium, asked by a script of ours that is put at its end."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WHY_NOT = "no chromium, chromium-browser or google-chrome on this machine"
_ANSWER = re.compile(r'<pre id="answer">(.*?)</pre>', re.DOTALL)


@dataclass(frozen=True)
class Seen:
    """What a browser wrote to its console, and what the script found."""

    console: list[str]
    answer: Any


def look_at(page: str, folder: Path, script: str) -> Seen:
    """Load a page and evaluate an expression in it.

    Args:
        page: HTML.
        folder: for the page and the browser's own files.
        script: a JavaScript expression whose value can be JSON.
    """
    asking = (
        '<pre id="answer"></pre><script>window.addEventListener("load", () => {'
        f'document.getElementById("answer").textContent = JSON.stringify({script});}})</script></body>'
    )
    path = folder / "looked_at.html"
    path.write_text(page.replace("</body>", asking), encoding="utf-8")
    assert CHROMIUM is not None
    words = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
        f"--user-data-dir={folder / 'browser'}", "--window-size=1280,900", "--hide-scrollbars",
        path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    found = _ANSWER.search(done.stdout)
    assert found is not None, done.stderr
    answer = json.loads(html.unescape(found.group(1)) or "null")
    return Seen([line for line in done.stderr.splitlines() if ":CONSOLE" in line], answer)


def framed(page: str, script: str, *, width: int = 390, sandbox: str = "") -> tuple[str, str]:
    """A page in a frame as wide as a phone, and an expression of its `page`, the document in the frame.

    Args:
        page: HTML.
        script: of `page`.
        width: in pixels.
        sandbox: of the frame, as an attribute; one without allow-scripts runs none.
    """
    frame = f'<iframe style="width: {width}px; height: 800px" {sandbox} srcdoc="{html.escape(page)}"></iframe>'
    return f"<body>{frame}</body>", f'((page) => {script})(document.querySelector("iframe").contentDocument)'
