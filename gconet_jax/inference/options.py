"""What is asked of `predict.py`, and where its files go."""

from dataclasses import dataclass
from pathlib import Path

from gconet_jax.errors import InputError

# What can be made, and the suffix of its files: `<out>/<kind>/<group>/<name><suffix>`, but for
# sheets, `<out>/sheets/<group>.jpg`.
KINDS = {
    'maps': '.png',
    'masks': '.png',
    'overlays': '.jpg',
    'cutouts': '.png',
    'cosegments': '.png',
    'thumbnails': '.jpg',
    'sheets': '.jpg',
}


@dataclass(frozen=True)
class Options:
    """What is predicted and what is made of it.

    Attributes:
        inputs: see `photos.find_groups`.
        out: folder of what is made.
        kinds: keys of KINDS.
        background: (R, G, B) behind co-segmented objects.
        thumbnail_size: (width, height), pixels.
        resume: passes over groups whose files are all there.
        share: (i, n): this process takes every n-th group from the i-th, counted from 0.
    """

    inputs: tuple[Path, ...]
    out: Path
    kinds: tuple[str, ...]
    background: tuple[int, int, int]
    thumbnail_size: tuple[int, int]
    resume: bool
    share: tuple[int, int]

    def __post_init__(self) -> None:
        """Raises InputError: no kinds, an unknown one, or a share that is none."""
        unknown = sorted(set(self.kinds) - set(KINDS))
        if unknown:
            raise InputError(f'--save: {", ".join(unknown)} unknown; there are {", ".join(KINDS)}')
        if not self.kinds:
            raise InputError(f'--save is empty: name one or several of {", ".join(KINDS)}')
        process, processes = self.share
        if not 0 <= process < processes:
            raise InputError(
                f'--process={process} --processes={processes}: they are 0 to N - 1 of N'
            )

    def path(self, kind: str, group: str, name: str) -> Path:
        """Of what is made of a photo, a kind other than sheets."""
        return self.out / kind / group / f'{name}{KINDS[kind]}'

    def sheet(self, group: str) -> Path:
        """Of what is made of a whole group."""
        return self.out / 'sheets' / f'{group}{KINDS["sheets"]}'
