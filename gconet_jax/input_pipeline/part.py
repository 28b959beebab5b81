"""The part of a batch that one process loads."""

from typing import NamedTuple


class Part(NamedTuple):
    """The part of each batch that one process loads: (index, count) along two of its axes.

    Attributes:
        pair: part of the axis of pairs; `count` must divide its length.
        image: part of the axis of images; `count` must divide its length.
    """

    pair: tuple[int, int] = (0, 1)
    image: tuple[int, int] = (0, 1)


WHOLE = Part()
