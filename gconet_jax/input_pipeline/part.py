"""The part of a batch that a process loads."""

from typing import NamedTuple


class Part(NamedTuple):
    """The part of each batch that one process loads: (index, count) along two of its axes.

    Attributes:
        pair: of the axis of pairs, whose length `count` must divide.
        image: of the axis of images, likewise.
    """

    pair: tuple[int, int] = (0, 1)
    image: tuple[int, int] = (0, 1)


WHOLE = Part()
