"""Draw a picture of the outputs of `predict.py`, for the docs.

    python benchmarks/application_pictures.py PHOTOS MADE OUT

PHOTOS is the folder of a group. MADE is the output directory of `predict.py PHOTOS MADE
--save=overlays,cutouts,cosegments,thumbnails`. Rows are these outputs, columns are photos.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

KINDS = ('overlays', 'cutouts', 'cosegments', 'thumbnails')
COLUMNS = 6
TILE = 150  # pixels
SQUARE = 8  # pixels, of the chequers behind transparent areas


def chequers() -> Image.Image:
    """Return a tile of light squares."""
    picture = Image.new('RGB', (TILE, TILE), 'white')
    pen = ImageDraw.Draw(picture)
    for y in range(0, TILE, SQUARE):
        for x in range(y // SQUARE % 2 * SQUARE, TILE, 2 * SQUARE):
            pen.rectangle((x, y, x + SQUARE - 1, y + SQUARE - 1), 'lightgrey')
    return picture


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('photos', type=Path)
    parser.add_argument('made', type=Path)
    parser.add_argument('out', type=Path)
    arguments = parser.parse_args()
    photos = sorted(arguments.photos.iterdir())[:COLUMNS]
    rows = [photos]
    for kind in KINDS:
        made = arguments.made / kind / arguments.photos.name
        rows.append([next(made.glob(f'{photo.stem}.*')) for photo in photos])
    picture = Image.new('RGB', (len(photos) * (TILE + 4), len(rows) * (TILE + 4)), 'white')
    for y, row in enumerate(rows):
        for x, path in enumerate(row):
            image = Image.open(path).convert('RGBA')
            image.thumbnail((TILE, TILE))
            white = Image.new('RGB', (TILE, TILE), 'white')
            tile = chequers() if y == 1 + KINDS.index('cutouts') else white
            tile.paste(image, ((TILE - image.width) // 2, (TILE - image.height) // 2), image)
            picture.paste(tile, (x * (TILE + 4), y * (TILE + 4)))
    picture.save(arguments.out, quality=88)


if __name__ == '__main__':
    main()
