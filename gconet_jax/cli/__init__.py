"""The command line, `gconet-jax COMMAND`; `train.py`, `evaluate.py` and `predict.py` use it too.

`runs` holds the commands for data sets, `photos` those for photos, `weights` those for weights.
`arguments` holds what they share.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from gconet_jax.cli.photos import look, predict, serve
from gconet_jax.cli.runs import check, evaluate, train
from gconet_jax.cli.weights import convert, export

USAGE = """usage: gconet-jax COMMAND [FLAGS]

commands:
  train      trains a model:      gconet-jax train --config=configs/duts_coco.py --workdir=DIR
  evaluate   scores runs and maps: gconet-jax evaluate --workdir=DIR --maps=DIR
  predict    maps of your photos: gconet-jax predict PHOTOS... OUT
  look       inside the network:  gconet-jax look PHOTOS... OUT
  serve      a page for photos:   gconet-jax serve
  export     for other programs:  gconet-jax export OUT.onnx --model=DIR
  convert    weights of programs: gconet-jax convert MODEL OUT
  check      looks at the data:   gconet-jax check ROOT [SET ...]

`gconet-jax COMMAND --help` lists the flags of a command; --version says which this is."""


def main() -> int:
    """Run the console script; return the exit status."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        'train': train,
        'evaluate': evaluate,
        'predict': predict,
        'look': look,
        'serve': serve,
        'export': export,
        'convert': convert,
        'check': check,
    }
    if sys.argv[1:] == ['--version']:
        print(version('gconet-jax'))
        return 0
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        print(USAGE)
        return 0 if sys.argv[1:] in (['--help'], ['-h']) else 2
    return commands[sys.argv[1]](sys.argv[1:])
