"""Segment the object that a group of photos has in common.

    python predict.py photos/ out/

A folder of photos is one group; a folder of folders is many. `out/` receives maps, overlays and a
contact sheet for each group; `--save` selects more.
"""

import sys

from gconet_jax import cli

if __name__ == '__main__':
    sys.exit(cli.predict(sys.argv))
