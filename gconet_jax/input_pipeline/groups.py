"""The groups of images of a data set on disk: finding, selecting and checking them."""

import fnmatch
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from gconet_jax.errors import InputError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')  # in any case
MASK_SUFFIX = '.png'
SHOWN = 10  # culprits that a message names before it only counts


class DataError(InputError):
    """Something is wrong with the files of a data set; the message names it and the remedy."""


@dataclass(frozen=True)
class Group:
    """Images that show objects of one class.

    Attributes:
        dataset: name of the set, such as 'CoCA'.
        name: name of the group within its set, such as 'Accordion'.
        images: files, sorted by name.
        masks: ground truth of the same length and order, or empty when it was not asked for.
    """

    dataset: str
    name: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...]

    @property
    def key(self) -> str:
        """'<dataset>/<name>', which `select` matches its patterns with."""
        return f'{self.dataset}/{self.name}'


def load_groups(root: str | Path, dataset: str, *, with_masks: bool = True) -> tuple[Group, ...]:
    """Lists the groups of a set, sorted by name, as are the images of each.

    The layout is the authors': images in `root/images/<dataset>/<group>/<name>.jpg` (or jpeg, png,
    in any case), masks in `root/gts/<dataset>/<group>/<name>.png`. Hidden files and files of any
    other kind, such as Thumbs.db, are skipped. No image is opened: see `check_groups`.

    Raises:
        DataError: the root, the set, a group or a mask is missing, a group holds no images, or two
            of its images differ in suffix only.
    """
    images_root, masks_root = Path(root) / 'images', Path(root) / 'gts'
    if not images_root.is_dir():
        raise DataError(
            f'{images_root} is not a folder; data.root must be the folder with images/ and gts/'
        )
    folder = images_root / dataset
    if not dataset or not folder.is_dir():
        there = ', '.join(path.name for path in _subfolders(images_root)) or 'none'
        raise DataError(f'no set named {dataset!r} in {images_root}; sets that are there: {there}')
    folders = _subfolders(folder)
    if not folders:
        raise DataError(
            f'set {dataset!r} has no groups: {folder} holds no folders; put each group of images '
            'in a folder of its own there'
        )
    images = {path.name: _list_images(path) for path in folders}
    masks = dict.fromkeys(images, ())
    if with_masks:
        masks = _list_masks(masks_root / dataset, images)
    return tuple(Group(dataset, name, images[name], masks[name]) for name in images)


def select(
    groups: Sequence[Group], include: Sequence[str] = ('*',), exclude: Sequence[str] = ()
) -> tuple[Group, ...]:
    """Keeps the groups whose key matches any pattern of `include` and none of `exclude`.

    Patterns are those of `fnmatch`, case-sensitive, over '<dataset>/<name>'; '*' crosses the slash.

    Raises:
        DataError: no group is left.
    """

    def matches(group: Group, patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(group.key, pattern) for pattern in patterns)

    kept = tuple(g for g in groups if matches(g, include) and not matches(g, exclude))
    if not kept:
        example = f', such as {groups[0].key!r}' if groups else ''
        raise DataError(
            f'none of {len(groups)} groups is left by include={tuple(include)}, '
            f'exclude={tuple(exclude)}; patterns match <set>/<group>{example}'
        )
    return kept


def open_image(path: Path, mode: str) -> Image.Image:
    """Decodes a whole file as 'RGB' or 'L'. As in the released code, EXIF orientation is ignored.

    Raises:
        DataError: the file is missing, broken, truncated, or has an implausible number of pixels.
    """
    try:
        with Image.open(path) as image:
            # PIL refuses twice this limit and only warns below; a warning is lost in a worker.
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError(
                    f'{image.width} x {image.height} is more than {limit} pixels'
                )
            return image.convert(mode)
    except Exception as error:  # a broken file makes PIL's decoders raise nearly anything
        raise DataError(
            f'cannot read image {path}: {error or type(error).__name__}; replace or remove the file'
        ) from error


def check_groups(groups: Sequence[Group], *, workers: int) -> None:
    """Decodes every image and mask, so that a broken file stops a run before it starts.

    Args:
        groups: of one or more sets, with or without masks.
        workers: threads; PIL decodes without holding Python's lock.

    Raises:
        DataError: lists every image and mask that cannot be read, and every mask whose size is not
            its image's: the first ten and how many there are.
    """
    pairs = [
        (image, group.masks[i] if group.masks else None)
        for group in groups
        for i, image in enumerate(group.images)
    ]
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        found = pool.map(lambda pair: _check_pair(*pair), pairs)
        found = tqdm(found, total=len(pairs), desc='checking images', unit='image', disable=None)
        problems = [problem for several in found for problem in several]
    if problems:
        raise DataError(f'{len(problems)} problems in {len(pairs)} images:\n' + _shorten(problems))


def _check_pair(image: Path, mask: Path | None) -> list[str]:
    """What is wrong with an image and its mask, one sentence each."""
    problems, sizes = [], []
    for path, mode in ((image, 'RGB'), (mask, 'L')):
        if path is None:
            continue
        try:
            sizes.append(open_image(path, mode).size)
        except DataError as error:
            problems.append(str(error))
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        (image_w, image_h), (mask_w, mask_h) = sizes
        problems.append(
            f'mask {mask} is {mask_w} x {mask_h} pixels and its image {image} {image_w} x '
            f'{image_h}; replace the one that is wrong'
        )
    return problems


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith('.'))


def _list_images(folder: Path) -> tuple[Path, ...]:
    """The images of a group, sorted by name."""
    images = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.')
    )
    if not images:
        raise DataError(
            f'group {folder} holds no images ({", ".join(IMAGE_SUFFIXES)}); fill or remove it'
        )
    stems = [path.stem for path in images]
    if len(set(stems)) < len(stems):  # they would share a mask, and overwrite each other's map
        twins = sorted({stem for stem in stems if stems.count(stem) > 1})
        raise DataError(
            f'group {folder} has several images of one name and different suffixes: '
            f'{", ".join(twins[:SHOWN])}; rename or remove one of each'
        )
    return tuple(images)


def _list_masks(folder: Path, images: dict[str, tuple[Path, ...]]) -> dict[str, tuple[Path, ...]]:
    """The masks of each group, in the order of its images; `folder` is the set's, below gts/."""
    if not folder.is_dir():
        raise DataError(f'{folder} is not a folder; the masks of this set belong there')
    without = [name for name in images if not (folder / name).is_dir()]
    if without:
        raise DataError(
            f'{len(without)} groups have no folder of masks in {folder}:\n{_shorten(without)}\n'
            'add them, or remove the groups from images/'
        )
    masks, missing = {}, []
    for name, paths in images.items():
        there = {
            path.stem: path
            for path in (folder / name).iterdir()
            if path.suffix.lower() == MASK_SUFFIX and not path.name.startswith('.')
        }
        missing += [f'{name}/{path.stem}{MASK_SUFFIX}' for path in paths if path.stem not in there]
        masks[name] = tuple(there[path.stem] for path in paths if path.stem in there)
    if missing:
        raise DataError(
            f'{len(missing)} images have no mask; missing from {folder}:\n{_shorten(missing)}\n'
            'add them, or remove their images'
        )
    return masks


def _shorten(lines: Sequence[str]) -> str:
    """The first few lines, and how many more there are."""
    rest = [f'  ... and {len(lines) - SHOWN} more'] if len(lines) > SHOWN else []
    return '\n'.join([*(f'  {line}' for line in lines[:SHOWN]), *rest])
