"""Whether the files of a set are what they should be, before a run depends on them."""

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
    """Decodes an image as 'RGB' and its mask as 'L'.

    Raises:
        DataError: either cannot be read, the mask has another size, or its values are not spread
            over 0..255.
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
    """Decodes every image and mask, so that a broken file stops a run before it starts.

    Args:
        groups: of one or more sets, with or without masks.
        skip_bad: leave out what is wrong, and say so, instead of raising.

    Returns:
        The groups, those without any good image left out.

    Raises:
        DataError: the first ten that are wrong (see `open_pair`), and how many there are; or all
            of them are.
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
    """`function` of every image and its mask, with a progress bar, in a thread for each core.

    PIL decodes and resizes without holding Python's lock.

    Returns:
        The results, a list for each group.
    """
    images = [image for group in groups for image in group.images]
    masks = [mask for g in groups for mask in (g.masks or (None,) * len(g.images))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(function, images, masks)
        bar = tqdm(results, total=len(images), desc=title, unit='image', disable=None)
        results = iter(bar)
        try:
            return [list(itertools.islice(results, len(group.images))) for group in groups]
        except BaseException:  # an interrupt does not wait for a hundred thousand images
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def without_bad(
    groups: Sequence[Group], found: Sequence[Sequence[str | None]], *, skip_bad: bool
) -> tuple[Group, ...]:
    """Leaves out the images of which something was `found`, or raises; see `settle`.

    Raises a DataError if nothing is left.
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
