"""Compare a downloaded set with its publication and check every file, remembering the results."""

import json
from collections.abc import Sequence
from pathlib import Path

from gconet_jax.input_pipeline.checks import each_image, open_pair, without_bad
from gconet_jax.input_pipeline.files import DataError, ImageFile, UnreadableError, identity
from gconet_jax.input_pipeline.groups import SHOWN, Group, list_names
from gconet_jax.input_pipeline.layouts import find_layout


def published_counts(
    source: Path,
    dataset: str,
    groups: Sequence[Group],
    group_count: int | None,
    image_count: int | None,
) -> None:
    """Print how the set differs from its publication, and the files without a counterpart.

    Args:
        source: folder that contains the set.
        dataset: name of the set.
        groups: the groups that were found.
        group_count, image_count: published counts; None is not compared.
    """
    images = sum(len(group.images) for group in groups)
    print(f'{dataset}: {len(groups)} groups, {images} images')
    if group_count in (None, len(groups)) and image_count in (None, images):
        return
    print(f'  published: {group_count or "?"} groups, {image_count or "?"} images')
    layout = find_layout(source, dataset)
    assert layout.masks is not None  # load_groups found them
    with_image, with_mask = list_names(layout.images), list_names(layout.masks)
    for what, names in (
        ('images without a mask', with_image - with_mask),
        ('masks without an image', with_mask - with_image),
    ):
        if names:
            print(f'  {len(names)} {what}: {", ".join(sorted(names)[:SHOWN])}')


def verified(groups: Sequence[Group], journal: Path, *, skip_bad: bool) -> tuple[Group, ...]:
    """Decode every image and mask once and return the good groups; see `checks.open_pair`.

    Args:
        groups: groups with masks.
        journal: file with a line of JSON for each good image. Files that have not changed since are
            not decoded again, so an interrupted call resumes where it stopped.
        skip_bad: skip unusable images instead of raising.

    Raises:
        DataError: images are unusable; the message lists the first ones and their number.
    """
    good = _read(journal)
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open('a', encoding='utf-8') as lines:

        def check(image: ImageFile, mask: ImageFile | None) -> str | None:
            assert mask is not None
            key = f'{identity(image)} {identity(mask)}'
            if key in good:
                return None
            try:
                open_pair(image, mask)
            except DataError as error:
                if skip_bad and isinstance(error, UnreadableError):
                    raise  # may be temporary; the prepared set would lack the image for good
                return str(error)
            lines.write(json.dumps([key, None]) + '\n')  # one call: threads do not mix lines
            return None

        found = each_image(groups, check, title='verifying')
    return without_bad(groups, found, skip_bad=skip_bad)


def _read(journal: Path) -> set[str]:
    """Return the good files; problems, which earlier versions also wrote, are checked again."""
    good = set()
    if journal.is_file():
        for line in journal.read_text(encoding='utf-8').splitlines():
            try:
                key, problem = json.loads(line)
            except ValueError:  # last line of a killed process
                continue
            if problem is None:
                good.add(key)
    return good
