"""Sheets of `image | truth | map` for a few images of each group."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from gconet_jax.input_pipeline.files import open_image
from gconet_jax.input_pipeline.groups import Group

TILE = 128  # pixels
GAP = 4


def comparison(
    folder: Path, groups: Sequence[Group], path: Path, *, rows: int = 8, columns: int = 4
) -> None:
    """Write a sheet of `image | truth | map`, with one row per group and `columns` images in each.

    Args:
        folder: folder of the maps, `<group>/<name>.png`.
        groups: groups with masks; `rows` of them, evenly spaced, are shown.
        path: the picture to write.
        rows: number of groups.
        columns: number of images of each group.
    """
    shown = [groups[i * len(groups) // rows] for i in range(rows)]
    shown = list(dict.fromkeys(shown))  # in case there are fewer groups than rows
    tiles = []
    for group in shown:
        pairs = list(zip(group.images, group.masks, strict=True))[:columns]
        files = [(i, mask, folder / group.name / f'{i.stem}.png') for i, mask in pairs]
        tiles.append([tuple(open_image(file, 'RGB') for file in three) for three in files])
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(tiles).save(path)


def sheet(rows: Sequence[Sequence[tuple[Image.Image, ...]]]) -> Image.Image:
    """Arrange rows of (image, truth, map) in one picture."""
    step = 3 * TILE + 3 * GAP
    columns = max(len(row) for row in rows)
    picture = Image.new('RGB', (columns * step, len(rows) * (TILE + GAP)), 'white')
    for y, row in enumerate(rows):
        for x, three in enumerate(row):
            for part, tile in enumerate(three):
                place = (x * step + part * TILE + GAP, y * (TILE + GAP))
                picture.paste(tile.convert('RGB').resize((TILE, TILE)), place)
    return picture
