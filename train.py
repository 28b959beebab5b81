"""Train GCoNet+.

    python train.py --config=configs/duts_coco.py --workdir=runs/duts_coco

Flags can set any field of the config: `--config.data.root=/data/cosod`. Repeat the same command to
resume a stopped run from its latest checkpoint.
"""

import sys

from gconet_jax import cli

if __name__ == '__main__':
    sys.exit(cli.train(sys.argv))
