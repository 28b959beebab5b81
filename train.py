"""Trains GCoNet+.

    python train.py --config=configs/duts_coco.py --workdir=runs/duts_coco

Any field of the config can be set: `--config.data.root=/data/cosod`. A run that was stopped goes
on from its latest checkpoint when the same command is given again.
"""

import sys

from gconet_jax import cli

if __name__ == '__main__':
    sys.exit(cli.train(sys.argv))
