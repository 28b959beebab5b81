"""The options of `predict.py`, and the paths of its output files."""

from dataclasses import dataclass
from pathlib import Path

from gconet_jax.errors import InputError

# Kinds of output and their file suffixes. Files are `<out>/<kind>/<group>/<name><suffix>`, except
# for contact sheets: `<out>/sheets/<group>.jpg`.
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
    """Options of a prediction.

    Attributes:
        inputs: folders and photos; see `photos.find_groups`.
        out: output directory.
        kinds: kinds of output to write, keys of KINDS.
        background: (R, G, B) behind co-segmented objects, 0 to 255 each.
        thumbnail_size: (width, height), pixels.
        resume: skip groups that already have all their outputs.
        share: (i, n): this process handles groups i, i + n, i + 2n, ..., counted from 0.
    """

    inputs: tuple[Path, ...]
    out: Path
    kinds: tuple[str, ...]
    background: tuple[int, int, int]
    thumbnail_size: tuple[int, int]
    resume: bool
    share: tuple[int, int]

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            InputError: `kinds` is empty or has an unknown kind, or `share` is out of range.
        """
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
        """Return the path of a photo's output file of any kind except sheets."""
        return self.out / kind / group / f'{name}{KINDS[kind]}'

    def sheet(self, group: str) -> Path:
        """Return the path of a group's contact sheet."""
        return self.out / 'sheets' / f'{group}{KINDS["sheets"]}'
