"""Two labeled sets that no choice of smn's was made on, out of packages of drawings and stamps, for `native.py`.

    npm pack openmoji && tar xzf openmoji-*.tgz                                            # gives package/
    apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default_*.deb stamps
    python benchmarks/held_out_sets.py --openmoji package --stamps stamps/usr/share/tuxpaint/stamps --out FOLDER

Every third image of a class is a test image. OpenMoji (CC BY-SA 4.0): drawn signs by Unicode's groups, in one skin
tone, as `rsvg-convert` (Debian's librsvg2-bin) draws them. Tux Paint's stamps (GPL-2): photographs and drawings of
things, by the topmost folder, of which those with fewer than 30 are left out. Both on white, 256 px.
"""

import argparse
import io
import json
import subprocess
from collections import defaultdict
from pathlib import Path

from PIL import Image

SIDE, LEAST = 256, 30
NO_GROUPS = ("extras-openmoji", "extras-unicode", "component")
"""Of OpenMoji: what belongs to no group of Unicode's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openmoji", type=Path, help="the npm package, unpacked")
    parser.add_argument("--stamps", type=Path, help="the folder stamps/ of Debian's tuxpaint-stamps-default")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.openmoji is not None:
        write(signs(options.openmoji), options.out / "openmoji")
    if options.stamps is not None:
        write(stamps(options.stamps), options.out / "stamps")


def signs(package: Path) -> dict[str, list[Path]]:
    """Drawings by group."""
    found = defaultdict(list)
    for sign in json.loads((package / "data" / "openmoji.json").read_text()):
        if sign["group"] not in NO_GROUPS and not sign["skintone"]:
            found[sign["group"]].append(package / "color" / "svg" / f"{sign['hexcode']}.svg")
    return dict(found)


def stamps(folder: Path) -> dict[str, list[Path]]:
    """Pictures by topmost folder."""
    found = {place.name: sorted(place.rglob("*.png")) for place in sorted(folder.iterdir()) if place.is_dir()}
    return {name: paths for name, paths in found.items() if len(paths) >= LEAST}


def write(classes: dict[str, list[Path]], out: Path) -> None:
    for name, paths in classes.items():
        for number, path in enumerate(paths):
            place = out / ("test" if number % 3 == 2 else "train") / name
            place.mkdir(parents=True, exist_ok=True)
            on_white(drawn(path)).save(place / f"{number:04}.png")
    print(out, {name: len(paths) for name, paths in classes.items()})


def drawn(path: Path) -> Image.Image:
    if path.suffix == ".svg":
        command = ["rsvg-convert", "--width", str(SIDE), "--height", str(SIDE), str(path)]
        return Image.open(io.BytesIO(subprocess.run(command, capture_output=True, check=True).stdout))
    return Image.open(path)


def on_white(image: Image.Image) -> Image.Image:
    """In the middle of a white square."""
    image = image.convert("RGBA")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SIDE, SIDE), "white")
    square.alpha_composite(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return square.convert("RGB")


if __name__ == "__main__":
    main()
