"""The groups of images of a set, prepared or in plain folders."""

import contextlib
import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gconet_jax.input_pipeline.files import DataError, ImageFile, Record, open_prepared
from gconet_jax.input_pipeline.layouts import (
    SUFFIXES,
    find_layout,
    find_prepared,
    image_files,
    subfolders,
)

SHOWN = 10  # problems that a message lists before it only counts


class BadFilesError(DataError):
    """Some files of a set are unusable; the rest of the set may still be usable."""


@dataclass(frozen=True)
class Group:
    """Images that show objects of one class.

    Attributes:
        dataset: name of the set, such as 'CoCA'.
        name: name of the group within its set, such as 'Accordion'.
        images: files, sorted by name.
        masks: ground truth in the same order, or empty if not requested.
    """

    dataset: str
    name: str
    images: tuple[ImageFile, ...]
    masks: tuple[ImageFile, ...]

    @property
    def key(self) -> str:
        """'<dataset>/<name>', which the patterns of `select` match."""
        return f'{self.dataset}/{self.name}'

    def keep(self, indices: Sequence[int]) -> 'Group':
        """Return the group with only the images at `indices`."""
        images = tuple(self.images[i] for i in indices)
        masks = tuple(self.masks[i] for i in indices) if self.masks else ()
        return Group(self.dataset, self.name, images, masks)


def load_groups(
    root: str | Path, dataset: str, *, with_masks: bool = True, skip_bad: bool = False
) -> tuple[Group, ...]:
    """List the groups of a set, sorted by name, with the images of each sorted by name.

    A set that `data/prepare.py` wrote to `root` takes precedence over plain folders of the same
    name, for which see `find_layout`. Hidden files and other kinds of files, such as Thumbs.db, are
    skipped. No image is opened: see `checks.check_groups`.

    Args:
        root: folder of the sets.
        dataset: name of the set.
        with_masks: also list the masks.
        skip_bad: skip what is unusable and report it, instead of raising.

    Raises:
        DataError: the root or the set is missing or empty. Without `skip_bad` also: a group has no
            images or no masks, a mask is missing, or two images or masks differ only in suffix.
            With it: no group is left.
    """
    _check_name(dataset, 'a set')
    prepared = find_prepared(Path(root), dataset)
    if prepared is not None:
        return _prepared_groups(prepared, dataset, with_masks)
    layout = find_layout(Path(root), dataset)
    folders = subfolders(layout.images)
    if not folders:
        raise DataError(
            f'set {dataset!r} has no groups: {layout.images} holds no folders; put each group of '
            'images in a folder of its own there'
        )
    if with_masks and layout.masks is None:
        raise DataError(
            f'no masks of set {dataset!r} beside {layout.images}; they belong into gts/{dataset} '
            f'beside images/, or into {dataset}/GT'
        )
    groups, problems = [], []
    for folder in folders:
        images = _list_images(folder, problems)
        masks: tuple[Path, ...] = ()
        if with_masks and layout.masks is not None:
            images, masks = _match_masks(images, layout.masks / folder.name, problems)
        if images:
            groups.append(Group(dataset, folder.name, images, masks))
    settle(problems, f'set {dataset!r}', skip_bad=skip_bad)
    return at_least_one(groups, f'set {dataset!r}, {layout.images}')


def at_least_one(groups: Sequence[Group], where: str) -> tuple[Group, ...]:
    """Return the groups; raise a DataError if there are none."""
    if not groups:
        raise DataError(f'no group that can be used in {where}; mend it, or name another set')
    return tuple(groups)


def settle(problems: Sequence[str], where: str, *, skip_bad: bool) -> None:
    """Print the first problems and their number, or raise them as a BadFilesError."""
    if not problems:
        return
    rest = [f'  ... and {len(problems) - SHOWN} more'] if len(problems) > SHOWN else []
    lines = '\n'.join([*(f'  {line}' for line in problems[:SHOWN]), *rest])
    count = f'{len(problems)} problem{"s" if len(problems) > 1 else ""} in {where}'
    if skip_bad:
        print(f'{count}, left out:\n{lines}')
        return
    raise BadFilesError(f'{count}:\n{lines}\nMend them')


@contextlib.contextmanager
def skippable_by(option: str) -> Iterator[None]:
    """Context that adds to a BadFilesError which option skips unusable files."""
    try:
        yield
    except BadFilesError as error:
        raise BadFilesError(f'{error}, or leave them out by {option}') from error


def select(
    groups: Sequence[Group], include: Sequence[str] = ('*',), exclude: Sequence[str] = ()
) -> tuple[Group, ...]:
    """Return the groups whose key matches any pattern of `include` and none of `exclude`.

    Patterns are those of `fnmatch`, case-sensitive, over '<dataset>/<name>'; '*' also matches a
    slash.

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


def _prepared_groups(folder: Path, dataset: str, with_masks: bool) -> tuple[Group, ...]:
    """Return the groups of a prepared set; its metadata lists the records in order."""
    metadata = open_prepared(str(folder)).dataset_info.metadata
    if not isinstance(metadata, dict) or 'groups' not in metadata:
        raise DataError(f'{folder} was not made by data/prepare.py; remove it, or name another set')
    groups, first = [], 0
    for name, stems in metadata['groups']:
        for each in (name, *stems):
            _check_name(each, f'a group or an image of {folder}')

        def records(part, first=first, stems=stems):
            return tuple(Record(str(folder), first + i, part, s) for i, s in enumerate(stems))

        masks = records('mask') if with_masks else ()
        groups.append(Group(dataset, name, records('image'), masks))
        first += len(stems)
    return at_least_one(groups, str(folder))


def _check_name(name: str, what: str) -> None:
    """Raise a DataError if the name could lead outside a folder: outputs are named by it."""
    if name in ('', '.', '..') or any(character in name for character in '/\\\0'):
        raise DataError(f'{name!r} cannot be the name of {what}: it must be that of a file')


def _list_images(folder: Path, problems: list[str]) -> tuple[Path, ...]:
    """List the images of a group, sorted by name, one per name."""
    images = _by_stem(folder, problems)  # images of the same name would share a mask and a map
    if not images:
        problems.append(f'group {folder} holds no images ({", ".join(SUFFIXES)})')
    return tuple(images.values())


def _by_stem(folder: Path, problems: list[str]) -> dict[str, Path]:
    """Return the images or masks of a folder by their stem; the first file of each stem counts."""
    found: dict[str, Path] = {}
    for path in image_files(folder):
        twin = found.setdefault(path.stem, path)
        if twin is not path:
            problems.append(f'{path} differs from {twin.name} in suffix only')
    return found


def _match_masks(
    images: tuple[Path, ...], folder: Path, problems: list[str]
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Return the images that have a mask in `folder`, and their masks."""
    if not folder.is_dir():
        problems.append(f'group without masks: {folder} is not a folder')
        return (), ()
    masks = _by_stem(folder, problems)
    problems += [
        f'no mask for {path}: {folder / path.stem}.png is missing'
        for path in images
        if path.stem not in masks
    ]
    matched = tuple(path for path in images if path.stem in masks)
    return matched, tuple(masks[path.stem] for path in matched)


def list_files(folder: Path) -> dict[str, list[Path]]:
    """List the images, masks or maps in each subfolder of `folder`, sorted; {} if it is missing."""
    if not folder.is_dir():
        return {}
    return {group.name: image_files(group) for group in subfolders(folder)}


def list_names(folder: Path) -> set[str]:
    """Return '<group>/<stem>' of every image or mask in the groups of `folder`."""
    return {f'{group}/{path.stem}' for group, paths in list_files(folder).items() for path in paths}
