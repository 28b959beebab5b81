"""The folder layouts in which co-saliency sets are distributed."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gconet_jax.input_pipeline.files import DataError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp')  # of images and masks, case-insensitive
# Folder names, ignoring case and punctuation.
IMAGE_FOLDERS = ('images', 'image', 'img', 'imgs')
MASK_FOLDERS = ('gts', 'gt', 'groundtruth', 'groundtruths', 'masks', 'mask')
# Other names of some sets, keyed by the name used here.
ALIASES = {
    'COCO-9k': ('COCO9213',),
    'COCO-SEG': ('CoCo_seg',),
    'CoSal2015': ('CoSal15',),
    'CoSOD3k': ('CoSOD3000',),
    'DUTS_class': ('DUTS',),
}


class Layout(NamedTuple):
    """The folders with a set's groups, `<images>/<group>/*` and `<masks>/<group>/*`."""

    images: Path
    masks: Path | None  # None: no masks


def find_layout(root: Path, dataset: str) -> Layout:
    """Find a set below `root`, in any of these layouts and with names in any case:

        images/<set>/<group>/<name>.jpg     gts/<set>/<group>/<name>.png
        <set>/Image/<group>/<name>.jpg      <set>/GroundTruth/<group>/<name>.png

    `root` may also be the folder of the set itself.

    Raises:
        DataError: the root or the set is missing; the message lists the sets that were found.
    """
    if not root.is_dir():
        raise DataError(
            f'{root} is not a folder; data.root must be the folder with images/ and gts/'
        )
    names = _names(dataset)
    images, masks = _child(root, IMAGE_FOLDERS), _child(root, MASK_FOLDERS)
    if images is not None and (found := _child(images, names)) is not None:
        return Layout(found, _child(masks, names) if masks is not None else None)
    root = _with_name(root)
    own = root if fold(root.name) in map(fold, names) else _child(root, names)
    if own is not None and (found := _child(own, IMAGE_FOLDERS)) is not None:
        return Layout(found, _child(own, MASK_FOLDERS))
    there = subfolders(images) if images is not None else subfolders(root)
    raise DataError(
        f'no set named {dataset!r} in {images or root}; sets that are there: '
        f'{", ".join(path.name for path in there) or "none"}. Looked for images/{dataset} and '
        f'gts/{dataset}, and for {dataset}/Image and {dataset}/GT'
    )


def find_sets(root: Path) -> list[str]:
    """List the sets below `root`: prepared, or in a layout that `find_layout` knows.

    Raises:
        DataError: there is none.
    """
    if not root.is_dir():
        raise DataError(f'{root} is not a folder')
    root = _with_name(root)
    images = _child(root, IMAGE_FOLDERS)
    if images is None:
        plain = [path for path in subfolders(root) if _child(path, IMAGE_FOLDERS) is not None]
    elif any(image_files(group) for group in subfolders(images)):
        plain = [root]
    else:
        plain = subfolders(images)
    prepared = [path for path in subfolders(root) if find_prepared(root, path.name)]
    names = {fold(path.name): path.name for path in (*prepared, *plain)}  # without duplicates
    if not names:
        raise DataError(
            f'no sets in {root}: looked for images/<set>/<group>, for <set>/Image/<group> and for '
            'what data/prepare.py makes'
        )
    return sorted(names.values())


def prepared_name(dataset: str) -> str:
    """Return the folder name of a prepared set by TFDS's rules: 'COCO-SEG' -> 'coco_seg'."""
    return re.sub(r'\W', '_', dataset.lower())


def find_prepared(root: Path, dataset: str) -> Path | None:
    """Return the newest complete version of the prepared set in `root`, or None."""
    found = root.glob(f'{prepared_name(dataset)}/*/dataset_info.json') if dataset else ()
    versions = [path.parent for path in found if re.fullmatch(r'\d+\.\d+\.\d+', path.parent.name)]
    return max(versions, key=lambda v: tuple(map(int, v.name.split('.'))), default=None)


def fold(name: str) -> str:
    """Remove case and punctuation from a name: 'Ground_Truth' -> 'groundtruth'."""
    return re.sub(r'[\W_]', '', name.lower())


def subfolders(folder: Path) -> list[Path]:
    """List the subfolders, sorted, except hidden ones and those that macOS adds to archives."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(('.', '__MACOSX'))
    )


def image_files(folder: Path) -> list[Path]:
    """List the images or masks of a group, sorted, except hidden files and other kinds."""
    names = os.listdir(folder)  # noqa: PTH208 - strings sort ten times as fast as paths
    fitting = (name for name in names if name.lower().endswith(SUFFIXES) and name[0] != '.')
    return [folder / name for name in sorted(fitting)]


def find_folder(folder: Path, dataset: str) -> Path | None:
    """Return the subfolder with a set's name, in any case, or one of its aliases."""
    return _child(folder, _names(dataset))


def _with_name(folder: Path) -> Path:
    """Return the same folder by a path that ends in its name, which '.' and '..' do not."""
    return folder.resolve() if folder.name in ('', '..') else folder


def _names(dataset: str) -> tuple[str, ...]:
    return (dataset, *ALIASES.get(dataset, ()))


def _child(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the subfolder with the first of `names` that exists, trying exact names first."""
    there = {fold(path.name): path for path in subfolders(folder)}
    exact = (folder / name for name in names if name)
    folded = (there[fold(name)] for name in names if fold(name) in there)
    return next((path for path in exact if path.is_dir()), next(folded, None))
