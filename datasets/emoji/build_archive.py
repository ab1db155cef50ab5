"""Draws the built-in emoji data set from its published sources into one archive.

The sources are npm packages. Using the data set does not need them: the archive is in the repository.

    python -m venv /tmp/emoji && /tmp/emoji/bin/pip install -r datasets/emoji/requirements.txt
    npm install --prefix /tmp/emoji-sources $(python datasets/emoji/build_archive.py --list_packages)
    /tmp/emoji/bin/python datasets/emoji/build_archive.py --sources=/tmp/emoji-sources

A class is one emoji: a single Unicode code point that all five designs draw. Emoji of several code points
(flags, families, key caps, skin tones) are left out, because the font and Firefox's set cover few of them.
The same package versions give the same bytes.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import pathlib
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping

PACKAGES = {
    "emoji-datasource": "16.0.0",
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/noto-v1": "1.2.5",
    "@iconify-json/fluent-emoji-flat": "1.2.6",
    "@iconify-json/fxemoji": "1.2.2",
    "@fontsource/noto-emoji": "5.3.2",
}
ICON_SETS = ("noto", "noto-v1", "fluent-emoji-flat", "fxemoji")
FONT_FILE = "files/noto-emoji-emoji-400-normal.woff"
# Icons named like other emoji: for example, the wave of the sea is not the waving hand.
CORRECTIONS = {
    "fxemoji": {"1F199": "squaredup", "1F44B": "waving", "1F576": "darksunglasses", "1F647": "bowing"}
}
# Share of the pixels. The faintest drawings, fog and a small white square, cover almost 2 %.
MINIMAL_INK = 0.01
OLDEST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)

Drawings = Mapping[str, str]  # Code point in upper-case hexadecimal -> SVG document


def main() -> None:
    arguments = _parse_arguments()
    if arguments.list_packages:
        print(*(f"{name}@{version}" for name, version in PACKAGES.items()))
        return
    root = arguments.sources / "node_modules"
    _check_versions(root)
    emoji = _read_emoji(root)
    designs = _read_designs(root, emoji)
    classes = [code for code in emoji if all(code in drawings for drawings in designs.values())]
    images = {
        f"U+{code}/{design}.webp": _rasterise(drawings[code], arguments.size, arguments.quality)
        for code in classes
        for design, drawings in designs.items()
    }
    _check_images(images)
    names = "".join(f"U+{code}\t{emoji[code]['name'].lower()}\n" for code in classes)
    _write_archive(arguments.output, {"classes.tsv": names.encode(), **images})
    size = arguments.output.stat().st_size
    print(f"{arguments.output}: {len(classes)} classes, {len(images)} images, {size:,} bytes")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sources", type=pathlib.Path, help="folder in which npm installed the packages")
    parser.add_argument(
        "--size", type=int, default=72, help="side of the images in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--quality",
        type=int,
        default=90,
        help="quality of the WebP encoding, 1 to 100 (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path(__file__).with_name("emoji.zip"),
        help="archive to write (default: %(default)s)",
    )
    parser.add_argument(
        "--list_packages", action="store_true", help="print the npm packages that are needed, and stop"
    )
    arguments = parser.parse_args()
    if arguments.sources is None and not arguments.list_packages:
        parser.error("--sources is missing")
    return arguments


def _check_versions(root: pathlib.Path) -> None:
    for name, version in PACKAGES.items():
        file = root / name / "package.json"
        if not file.is_file():
            sys.exit(f"{file} does not exist; install {name}@{version} with npm")
        found = json.loads(file.read_text())["version"]
        if found != version:
            sys.exit(f"{file} is version {found}; expected {version}")


def _read_emoji(root: pathlib.Path) -> dict[str, dict]:
    """Returns the emoji of one code point (not counting a variation selector), sorted by code point."""
    emoji = {}
    for entry in json.loads((root / "emoji-datasource/emoji.json").read_text()):
        codes = [code for code in entry["unified"].split("-") if code != "FE0F"]
        if len(codes) == 1 and entry["category"] != "Component":
            emoji[codes[0]] = entry
    return dict(sorted(emoji.items(), key=lambda item: int(item[0], 16)))


def _read_designs(root: pathlib.Path, emoji: Mapping[str, dict]) -> dict[str, Drawings]:
    noto = root / "@iconify-json/noto"
    names = _read_characters(noto)
    designs = {
        icon_set: _read_icon_set(root / "@iconify-json" / icon_set, emoji, names) for icon_set in ICON_SETS
    }
    designs["noto-emoji"] = _read_font(root / "@fontsource/noto-emoji" / FONT_FILE, emoji)
    return designs


def _read_icon_set(folder: pathlib.Path, emoji: Mapping[str, dict], names: Mapping[str, str]) -> Drawings:
    """Returns the icons of single emoji, matched by their listed code point or else by name.

    Args:
        folder: the package of the icon set.
        emoji: entries of emoji-datasource by code point.
        names: current names by code point, for packages that list no code points.
    """
    icons = json.loads((folder / "icons.json").read_text())
    listed = _read_characters(folder)
    if not listed:
        listed = _match_names([*icons["icons"], *icons.get("aliases", {})], emoji, names)
    listed.update(CORRECTIONS.get(folder.name, {}))
    return {code: svg for code, name in listed.items() if code in emoji and (svg := _icon_svg(icons, name))}


def _read_characters(folder: pathlib.Path) -> dict[str, str]:
    """Returns the icon names that a package lists by code point; some packages list none."""
    characters = json.loads((folder / "chars.json").read_text())
    return {code.upper().removesuffix("-FE0F"): name for code, name in characters.items()}


def _match_names(
    icon_names: Iterable[str], emoji: Mapping[str, dict], names: Mapping[str, str]
) -> dict[str, str]:
    """Returns icon names by code point; matches Unicode names first, then current names, then short names."""
    kinds: tuple[Callable[[str], list[str]], ...] = (
        lambda code: [emoji[code]["name"] or ""],
        lambda code: [names.get(code, "")],
        lambda code: emoji[code]["short_names"],
    )
    by_name = collections.defaultdict(list)
    for icon_name in icon_names:
        by_name[_squeeze(icon_name)].append(icon_name)
    matches: dict[str, str] = {}
    taken: set[str] = set()
    for kind in kinds:
        codes_of = collections.defaultdict(set)
        for code in emoji:
            for name in kind(code):
                codes_of[_squeeze(name)].add(code)
        for squeezed, codes in codes_of.items():
            code = min(codes)
            if len(codes) == 1 and squeezed in by_name and squeezed not in taken and code not in matches:
                matches[code] = by_name[squeezed][0]
                taken.add(squeezed)
    return matches


def _squeeze(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _icon_svg(icons: Mapping, name: str) -> str | None:
    """Returns the square SVG document of an icon or alias; None if the set has no such icon."""
    mirrored = False
    while name in icons.get("aliases", {}):
        alias = icons["aliases"][name]
        mirrored ^= alias.get("hFlip", False)
        name = alias["parent"]
    if name not in icons["icons"]:
        return None
    icon = icons["icons"][name]
    width, height = (icon.get(side, icons[side]) for side in ("width", "height"))
    transform = f' transform="translate({width} 0) scale(-1 1)"' if mirrored else ""
    return _square_svg(f"<g{transform}>{icon['body']}</g>", 0, 0, width, height)


def _read_font(file: pathlib.Path, emoji: Mapping[str, dict]) -> Drawings:
    from fontTools.pens.boundsPen import BoundsPen
    from fontTools.pens.svgPathPen import SVGPathPen
    from fontTools.ttLib import TTFont

    font = TTFont(file)
    glyphs, characters = font.getGlyphSet(), font.getBestCmap()
    top, bottom = font["hhea"].ascent, font["hhea"].descent
    drawings = {}
    for code in emoji:
        if int(code, 16) not in characters:
            continue
        glyph = glyphs[characters[int(code, 16)]]
        bounds, pen = BoundsPen(glyphs), SVGPathPen(glyphs)
        glyph.draw(bounds)
        glyph.draw(pen)
        if bounds.bounds is not None:
            path = f'<path transform="scale(1 -1)" d="{pen.getCommands()}"/>'
            drawings[code] = _square_svg(path, 0, -top, glyph.width, top - bottom)
    return drawings


def _square_svg(body: str, left: float, top: float, width: float, height: float) -> str:
    side = max(width, height)
    box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {namespaces} viewBox="{box}">{body}</svg>'


def _rasterise(svg: str, size: int, quality: int) -> bytes:
    import resvg_py
    from PIL import Image

    png = resvg_py.svg_to_bytes(
        svg_string=svg, width=size, height=size, background="white", skip_system_fonts=True
    )
    output = io.BytesIO()
    Image.open(io.BytesIO(bytes(png))).convert("RGB").save(output, "webp", quality=quality, method=6)
    return output.getvalue()


def _check_images(images: Mapping[str, bytes]) -> None:
    """Stops the script if an image is almost blank; prints drawings that two classes share."""
    seen: dict[bytes, str] = {}
    blank = []
    for name, data in images.items():
        ink = _ink(data)
        if ink < MINIMAL_INK:
            blank.append(f"{name} has ink on {ink:.1%} of its pixels; expected at least {MINIMAL_INK:.0%}")
        if data in seen:
            print(f"Note: {name} is the same as {seen[data]}")
        seen[data] = name
    if blank:
        sys.exit("\n".join(blank))


def _ink(data: bytes) -> float:
    """Returns the share of pixels that are visibly darker than the white background."""
    from PIL import Image

    brightness = Image.open(io.BytesIO(data)).convert("L").histogram()
    return sum(brightness[:240]) / sum(brightness)


def _write_archive(path: pathlib.Path, files: Mapping[str, bytes]) -> None:
    # Stored, not deflated: WebP does not shrink further, and zlib versions differ in their bytes.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, OLDEST_ZIP_TIME)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])


if __name__ == "__main__":
    main()
