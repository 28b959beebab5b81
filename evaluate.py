"""Score a trained GCoNet+ (max E, S, max F, MAE) on groups of images with masks.

    python evaluate.py --workdir=runs/duts_coco

This loads the latest checkpoint, writes the maps at the sizes of the images, and scores them by the
eval-co-sod protocol. `--maps=DIR` scores the maps of any method.
"""

import sys

from gconet_jax import cli

if __name__ == '__main__':
    sys.exit(cli.evaluate(sys.argv))
