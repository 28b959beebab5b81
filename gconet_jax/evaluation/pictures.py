"""Pictures for people: `image | truth | map` of a few images of each group."""

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
    """Writes a sheet of `image | truth | map`: a row a group, `columns` images of each.

    Args:
      folder: holds the maps, `<group>/<name>.png`.
      groups: with masks; `rows` of them are shown, spread evenly.
      path: of the picture.
    """
    shown = [groups[i * len(groups) // rows] for i in range(rows)]
    shown = list(dict.fromkeys(shown))  # fewer groups than rows
    width = columns * (3 * TILE + 3 * GAP)
    sheet = Image.new('RGB', (width, len(shown) * (TILE + GAP)), 'white')
    for row, group in enumerate(shown):
        pairs = list(zip(group.images, group.masks, strict=True))[:columns]
        for column, (image, mask) in enumerate(pairs):
            files = (image, mask, folder / group.name / f'{image.stem}.png')
            for part, file in enumerate(files):
                tile = open_image(file, 'RGB').resize((TILE, TILE))
                left = column * (3 * TILE + 3 * GAP) + part * TILE + GAP
                sheet.paste(tile, (left, row * (TILE + GAP)))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
