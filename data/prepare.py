"""Prepare a co-saliency set once: find, count and verify its files, and write ArrayRecord.

    python data/prepare.py --set=CoCA --source=/downloads/cosod --out=data/sets

The prepared set is `OUT/coca/1.0.0`. `--config.data.root=OUT` finds it under its name, next to sets
in plain folders. A prepared set is either complete or absent. After an interruption, the same
command continues with the files that are not verified yet.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from gconet_jax.errors import InputError, missing_package
from gconet_jax.input_pipeline.layouts import prepared_name

try:
    import tensorflow_datasets as tfds

    from data.cosod import BUILDERS
except ImportError as missing:
    sys.exit(f'error: cannot prepare data: {missing_package(missing)}')


def prepare(dataset: str, source: Path, out: Path, *, skip_bad: bool = False) -> Path:
    """Prepare a set, unless it already exists.

    Args:
        dataset: a key of `BUILDERS`.
        source: folder with the unpacked archive; see `layouts.find_layout`.
        out: folder of prepared sets.
        skip_bad: skip unusable images instead of raising.

    Returns:
        The folder of the prepared set.

    Raises:
        InputError: the set is not in `source`, files are unusable, or the disk is full.
    """
    builder = BUILDERS[dataset](data_dir=out, skip_bad=skip_bad)
    if not source.is_dir() or not any(source.iterdir()):
        raise InputError(
            f'{source} is no folder with files. {builder.MANUAL_DOWNLOAD_INSTRUCTIONS}'
        )
    config = tfds.download.DownloadConfig(manual_dir=source)
    try:
        with tempfile.TemporaryDirectory() as unused:  # otherwise TFDS leaves one in `out`
            builder.download_and_prepare(download_dir=unused, download_config=config)
    except OSError as error:
        raise InputError(
            f'cannot write the prepared set to {out}: {error}; mend that and run it again: '
            'what was verified is not read twice'
        ) from error
    (out / f'.{prepared_name(dataset)}.verified').unlink(missing_ok=True)
    return Path(builder.data_dir)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description='Prepares a co-saliency set once.')
    parser.add_argument('--set', required=True, choices=sorted(BUILDERS))
    parser.add_argument('--source', required=True, type=Path, help='the unpacked archive')
    parser.add_argument('--out', type=Path, default=Path('data/sets'), help='of prepared sets')
    parser.add_argument(
        '--skip-bad', action='store_true', help='leave out images that cannot be used'
    )
    arguments = parser.parse_args()
    try:
        folder = prepare(
            arguments.set, arguments.source, arguments.out, skip_bad=arguments.skip_bad
        )
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(f'{arguments.set} is prepared: {folder}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
