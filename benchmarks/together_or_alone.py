"""Test whether the group helps: predict whole groups, and the same images as groups of one.

    python benchmarks/together_or_alone.py ROOT SET OUT [--model=MODEL] [--include='SET/cat']
    python evaluate.py --maps=OUT/together,OUT/alone --root=ROOT --sets=SET [--include=...]

The second command scores both and gives paired bootstrap intervals of their differences.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from gconet_jax.inference.outputs import grey, write_whole
from gconet_jax.inference.predictor import Predictor
from gconet_jax.input_pipeline.groups import load_groups, select
from gconet_jax.input_pipeline.photos import read_photo


def main() -> None:
    """Write <set>/<group>/<name>.png to OUT/together and OUT/alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('root', type=Path)
    parser.add_argument('set')
    parser.add_argument('out', type=Path)
    parser.add_argument('--model', help='as of predict.py')
    parser.add_argument('--include', default='*', help='patterns of <set>/<group>')
    arguments = parser.parse_args()
    predictor = Predictor.from_pretrained(arguments.model)
    groups = load_groups(arguments.root, arguments.set)
    for group in tqdm(list(select(groups, include=tuple(arguments.include.split(','))))):
        photos = [read_photo(file) for file in group.images]
        maps = {
            'together': predictor(photos),
            'alone': [np.squeeze(predictor([photo]), 0) for photo in photos],
        }
        for way, several in maps.items():
            for file, pixels in zip(group.images, several, strict=True):
                path = arguments.out / way / arguments.set / group.name / f'{file.stem}.png'
                write_whole(path, Image.fromarray(grey(pixels)))


if __name__ == '__main__':
    main()
