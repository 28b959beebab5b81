"""Measure start and memory of a run over a set of COCO-SEG's size: 78 groups, 200,000 images.

    python benchmarks/large_set.py FOLDER [--entries=200000]

The set is a few small images and masks, linked under that many names in FOLDER, which is kept. The
first call builds the set and its cache (minutes); later calls only measure. The cache is
memory-mapped, so the size of the images does not affect the time. A new process is timed from its
start to its first batch, and its peak resident memory is read after 50 batches.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

GROUPS = 78
SIZE = 32
LINKS = 50_000  # per file; file systems allow a few more
CHILD = """
import sys, time, resource
start = time.time()
import jax
jax.devices()
from gconet_jax.config import DataConfig
from gconet_jax.input_pipeline.loader import make_train_iterator
from gconet_jax.input_pipeline.sets import training_sets
if __name__ == '__main__':
    data = DataConfig(root=sys.argv[1], train_sets=('large',), image_size=32)
    sets = training_sets(data)
    batches = make_train_iterator(
        sets, image_size=32, max_images=32, group_sizes=(32,), seed=0, workers=int(sys.argv[2]))
    next(batches)
    first = time.time() - start
    for _ in range(50):
        next(batches)
    batches.close()
    print(first, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def make_set(root: Path, entries: int) -> None:
    """Link a few images and masks under `entries` names."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    for i in tqdm(range(entries), desc='linking', unit='image'):
        image, mask = (root / f'{i // LINKS}.{suffix}' for suffix in ('jpg', 'png'))
        if i % LINKS == 0:
            Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(image)
            Image.fromarray(np.eye(SIZE, dtype=np.uint8) * 255).save(mask)
        for kind, source in (('images', image), ('gts', mask)):
            path = root / kind / 'large' / f'{i % GROUPS:02}' / f'{i:012}{source.suffix}'
            if i < GROUPS:
                path.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, path)


def main() -> None:
    """Print the table and one line of JSON."""
    parser = argparse.ArgumentParser(description='Measures a run over a large set.')
    parser.add_argument('folder', type=Path)
    parser.add_argument('--entries', type=int, default=200_000)
    arguments = parser.parse_args()
    script = arguments.folder / 'child.py'
    if not script.exists():
        make_set(arguments.folder, arguments.entries)
        script.write_text(CHILD)
        start = time.time()
        subprocess.run([sys.executable, script, arguments.folder, '0'], check=True)
        print(f'built the cache in {time.time() - start:.0f} s')
    results = {}
    for workers in ('0', '2'):
        command = [sys.executable, script, arguments.folder, workers]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        first, memory = (float(value) for value in output.split())
        results[workers] = {'first_batch_s': first, 'memory_gib': memory}
        print(f'{workers} workers: first batch after {first:.1f} s, {memory:.2f} GiB resident')
    print(json.dumps(results))


if __name__ == '__main__':
    main()
