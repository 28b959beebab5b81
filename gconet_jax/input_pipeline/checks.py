"""Checks of a set's files before a run depends on them."""

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import Image
from tqdm import tqdm

from gconet_jax.input_pipeline.files import DataError, ImageFile, exif_turns, open_image
from gconet_jax.input_pipeline.groups import Group, at_least_one, settle

T = TypeVar('T')


def open_pair(image: ImageFile, mask: ImageFile) -> tuple[Image.Image, Image.Image]:
    """Decode an image as 'RGB' and its mask as 'L'.

    Raises:
        DataError: one of them cannot be read, the mask has another size, or its values do not span
            0..255.
    """
    pixels, truth = open_image(image, 'RGB'), open_image(mask, 'L')
    if pixels.size != truth.size:
        turned = truth.size == pixels.size[::-1] and exif_turns(image)
        remedy = (
            'the image is stored lying and its EXIF data asks viewers to turn it: save it upright'
            if turned
            else 'replace the one that is wrong'
        )
        raise DataError(
            f'mask {mask} is {truth.width} x {truth.height} pixels and its image {image} '
            f'{pixels.width} x {pixels.height}; {remedy}'
        )
    _, brightest = truth.getextrema()
    if 0 < brightest < 128:  # type: ignore[operator]  # a pair of numbers for a single band
        raise DataError(
            f'mask {mask} has no value above {brightest}; objects must be 255 and the rest 0'
        )
    return pixels, truth


def check_groups(groups: Sequence[Group], *, skip_bad: bool = False) -> tuple[Group, ...]:
    """Decode every image and mask, so that a broken file stops a run before it starts.

    Args:
        groups: groups of one or more sets, with or without masks.
        skip_bad: skip unusable images and report them, instead of raising.

    Returns:
        The groups, without those that have no usable image.

    Raises:
        DataError: some files are unusable (see `open_pair`), or with `skip_bad` all of them; the
            message shows the first ten and the total.
    """

    def check(image: ImageFile, mask: ImageFile | None) -> str | None:
        try:
            if mask is None:
                open_image(image, 'RGB')
            else:
                open_pair(image, mask)
        except DataError as error:
            return str(error)
        return None

    found = each_image(groups, check, title='checking images')
    return without_bad(groups, found, skip_bad=skip_bad)


def each_image(
    groups: Sequence[Group],
    function: Callable[[ImageFile, ImageFile | None], T],
    *,
    title: str,
) -> list[list[T]]:
    """Apply `function` to every image and its mask, in one thread per core, with a progress bar.

    PIL decodes and resizes without holding the GIL.

    Returns:
        The results, as one list per group.
    """
    images = [image for group in groups for image in group.images]
    masks = [mask for g in groups for mask in (g.masks or (None,) * len(g.images))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(function, images, masks)
        bar = tqdm(results, total=len(images), desc=title, unit='image', disable=None)
        results = iter(bar)
        try:
            return [list(itertools.islice(results, len(group.images))) for group in groups]
        except BaseException:  # an interrupt must not wait for a hundred thousand images
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def without_bad(
    groups: Sequence[Group], found: Sequence[Sequence[str | None]], *, skip_bad: bool
) -> tuple[Group, ...]:
    """Drop the images with a problem in `found`, or raise; see `settle`.

    Raises:
        DataError: there are problems and `skip_bad` is False, or no image is left.
    """
    problems = [problem for several in found for problem in several if problem]
    total = sum(len(group.images) for group in groups)
    settle(problems, f'{total} images', skip_bad=skip_bad)
    if not problems:
        return tuple(groups)
    good = [
        group.keep([i for i, problem in enumerate(several) if not problem])
        for group, several in zip(groups, found, strict=True)
    ]
    names = '+'.join(sorted({group.dataset for group in groups}))
    return at_least_one(
        [group for group in good if group.images],
        f'set {names!r}, {groups[0].images[0]} and others',
    )
