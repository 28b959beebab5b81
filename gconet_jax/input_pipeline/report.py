"""`gconet-jax check`: a report on sets before a run depends on them, with contact sheets."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from gconet_jax.input_pipeline.checks import each_image, open_pair
from gconet_jax.input_pipeline.files import DataError, ImageFile, open_image
from gconet_jax.input_pipeline.groups import SHOWN, BadFilesError, Group, load_groups
from gconet_jax.whole_file import whole_file

# Contact sheets: side of a tile and height of a title, pixels.
TILE, TITLE = 96, 12
COLUMNS = 12
ROWS = 65_500 // (TILE + TITLE)  # limited by the maximum height of a JPEG
OBJECT = (255, 60, 60)  # colour of the mask on the image
UNSHARP = 32  # a mask with more levels between 0 and 255 is soft, or was saved as JPEG


class Finding(NamedTuple):
    """Result of checking one image; only `problem` makes it unusable for training."""

    problem: str | None
    digest: bytes  # of the pixels; equal for duplicates
    size: tuple[int, int]
    empty: bool
    soft: bool


def report(root: Path, datasets: Sequence[str], sheets: Path) -> tuple[str, int]:
    """Check every image of the sets, write contact sheets and describe what was found.

    Args:
        root: folder of the sets.
        datasets: names of the sets.
        sheets: folder for the contact sheets: `<set>.jpg`, then `<set>-2.jpg` and so on if a set
            has more than ROWS groups.

    Returns:
        The text, and the number of problems that would stop a training run; a missing or empty set
        counts as one.
    """
    lines, problems = [], 0
    seen: dict[bytes, list[str]] = defaultdict(list)
    for dataset in datasets:
        try:
            groups, left_out = _load(root, dataset)
        except DataError as error:
            lines += [f'{dataset}: {error}', '']
            problems += 1
            continue
        problems += left_out
        found = each_image(groups, _inspect, title=f'checking {dataset}')
        lines += [*_of_set(dataset, groups, found), '']
        problems += sum(finding.problem is not None for several in found for finding in several)
        for group, several in zip(groups, found, strict=True):
            for image, finding in zip(group.images, several, strict=True):
                if finding.problem is None:
                    seen[finding.digest].append(f'{group.key}/{image.stem}')
        for first in range(0, len(groups), ROWS):
            path = sheets / f'{dataset}{f"-{first // ROWS + 1}" if first else ""}.jpg'
            contact_sheet(groups[first : first + ROWS], found[first : first + ROWS], path)
            lines.append(f'  contact sheet: {path}')
    again = [names for names in seen.values() if len(names) > 1]
    across = [names for names in again if len({name.split('/')[0] for name in names}) > 1]
    within = [names for names in again if names not in across]
    lines += _listed('images are in several sets', [' = '.join(names) for names in across])
    lines += _listed('images are twice in a set', [' = '.join(names) for names in within])
    return '\n'.join(lines), problems


def _load(root: Path, dataset: str) -> tuple[tuple[Group, ...], bool]:
    """Return the groups of a set, and whether some files had to be skipped, which is printed."""
    try:
        return load_groups(root, dataset), False
    except BadFilesError:
        return load_groups(root, dataset, skip_bad=True), True


def contact_sheet(groups: Sequence[Group], found: Sequence[Sequence[Finding]], path: Path) -> None:
    """Write one row per group: its name and its first usable images, with the mask in red."""
    sheet = Image.new('RGB', (COLUMNS * TILE, len(groups) * (TILE + TITLE)), 'white')
    draw = ImageDraw.Draw(sheet)
    for row, (group, several) in enumerate(zip(groups, found, strict=True)):
        top = row * (TILE + TITLE)
        draw.text((2, top), f'{group.name}, {len(group.images)} images', fill='black')
        good = [i for i, finding in enumerate(several) if finding.problem is None][:COLUMNS]
        for column, i in enumerate(good):
            tile = _tile(group.images[i], group.masks[i])
            sheet.paste(tile, (column * TILE, top + TITLE))
    with whole_file(path) as partial:
        sheet.save(partial, quality=85)


def _tile(image: ImageFile, mask: ImageFile) -> Image.Image:
    pixels = open_image(image, 'RGB').resize((TILE, TILE))
    truth = open_image(mask, 'L').resize((TILE, TILE)).point([level // 2 for level in range(256)])
    pixels.paste(OBJECT, mask=truth)
    return pixels


def _inspect(image: ImageFile, mask: ImageFile | None) -> Finding:
    assert mask is not None
    try:
        pixels, truth = open_pair(image, mask)
    except DataError as error:
        return Finding(str(error), b'', (0, 0), empty=False, soft=False)
    levels = np.count_nonzero(np.bincount(np.asarray(truth).ravel(), minlength=256)[1:255])
    return Finding(
        None,
        hashlib.blake2b(pixels.tobytes(), digest_size=16).digest(),
        pixels.size,
        empty=truth.getextrema()[1] == 0,
        soft=bool(levels > UNSHARP),
    )


def _of_set(dataset: str, groups: Sequence[Group], found: Sequence[Sequence[Finding]]) -> list[str]:
    counts = [len(group.images) for group in groups]
    named = [
        (f'{group.key}/{image.stem}', finding)
        for group, several in zip(groups, found, strict=True)
        for image, finding in zip(group.images, several, strict=True)
    ]
    good = [finding.size for _, finding in named if finding.problem is None]
    lines = [
        f'{dataset}: {len(groups)} groups, {sum(counts)} images',
        f'  images of a group: {min(counts)} to {max(counts)}, median {int(np.median(counts))}',
    ]
    if good:
        widths, heights = zip(*good, strict=True)
        lines.append(
            f'  pixels: {min(widths)} to {max(widths)} wide, {min(heights)} to {max(heights)} high'
        )
    lines += _listed('cannot be used', [f.problem for _, f in named if f.problem is not None])
    lines += _listed('groups of one image', [g.key for g in groups if len(g.images) == 1])
    lines += _listed('masks are empty', [name for name, f in named if f.empty])
    lines += _listed('masks are soft (many grey levels)', [name for name, f in named if f.soft])
    return lines


def _listed(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    rest = [f'    ... and {len(names) - SHOWN} more'] if len(names) > SHOWN else []
    return [f'  {len(names)} {what}:', *(f'    {name}' for name in names[:SHOWN]), *rest]
