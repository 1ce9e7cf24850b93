"""Writes docs/terminal.md: what a terminal of 80 columns shows of the road from images to a verdict, as tmux has it.

python docs/make_terminal.py IMAGES LABELED WEIGHTS, with tmux and smn on the path; IMAGES and LABELED as smn adapt and
smn eval take them. Takes some minutes.
"""

import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET, COLUMNS, MOST_S = "smn-docs", 80, 900
ARCH = "tf_efficientnet_lite0"
COMMANDS = (
    f"smn plan images --arch {ARCH} --weights lite0.pth --size 96 --steps 40",
    f"smn adapt images --arch {ARCH} --weights lite0.pth --size 96 --steps 40",
    "smn pack run",
    "smn inspect adapter.safetensors",
    "smn verify adapter.safetensors --weights lite0.pth",
    "smn eval labeled --adapter adapter.safetensors --weights lite0.pth",
)
HEAD = """# In the terminal

Written by `docs/make_terminal.py`: what a terminal of {columns} columns shows, command by command. The images are
{num_images} photographs of tomato leaves: few, so that a gain is no matter of course. The network is an
EfficientNet-Lite0 with ImageNet's weights, on two cores.

A command says so before it loads torch, which takes seconds. In a file or a pipe the same lines come whole, without
bars and codes, with a line of progress every ten seconds. `NO_COLOR=1` leaves the colours out.
"""


def tmux(*words: str) -> str:
    """What tmux answers, on a server of its own."""
    return subprocess.run(["tmux", "-L", SOCKET, *words], capture_output=True, text=True, check=True).stdout


@contextmanager
def held_server() -> Iterator[None]:
    """A server that outlives its pages: one that ends with a page may still be ending when the next one asks for it."""
    tmux("new-session", "-d", "-s", "held", "cat")
    try:
        yield
    finally:
        tmux("kill-server")


def shown(command: str, folder: Path) -> str:
    """The pane after a command, without its prompt and the empty rest.

    Raises:
        TimeoutError: it did not end in time.
    """
    ended = folder / "ended"
    ended.unlink(missing_ok=True)
    line = f"clear; {command}; touch {shlex.quote(str(ended))}; sleep {MOST_S}"
    size = ["-x", str(COLUMNS), "-y", "60"]
    tmux("new-session", "-d", "-s", "page", *size, "-c", str(folder), shlex.join(["sh", "-c", line]))
    try:
        since = time.monotonic()
        while not ended.exists():
            if time.monotonic() - since > MOST_S:
                raise TimeoutError(f"{command} took more than {MOST_S} s")
            time.sleep(0.5)
        time.sleep(0.5)
        rows = tmux("capture-pane", "-t", "page", "-p").rstrip().splitlines()
    finally:
        tmux("kill-session", "-t", "page")
    return "\n".join(row.rstrip() for row in rows)


def main(images: Path, labeled: Path, weights: Path) -> None:
    """Run the commands in a fresh folder and write the page."""
    with tempfile.TemporaryDirectory() as made, held_server():
        folder = Path(made)
        for name, target in {"images": images, "labeled": labeled, "lite0.pth": weights}.items():
            (folder / name).symlink_to(target.absolute())
        num_images = sum(1 for path in images.rglob("*") if path.is_file())
        parts = [HEAD.format(columns=COLUMNS, num_images=num_images)]
        parts += [f"```text\n$ {command}\n{shown(command, folder)}\n```\n" for command in COMMANDS]
    Path(__file__).with_name("terminal.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
