"""Finds what groups of photos share, and segments it in each.

    python predict.py photos/ out/

A folder of photos is a group, a folder of folders many. `out/` gets maps, overlays and a contact
sheet of each group; `--save` has more.
"""

import sys

from gconet_jax import cli

if __name__ == '__main__':
    sys.exit(cli.predict(sys.argv))
