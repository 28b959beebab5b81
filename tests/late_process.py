"""Run train.py as one process of several that is late or fails.

    python tests/late_process.py WHAT=SECONDS,... [FLAG ...]

The first call of each WHAT starts SECONDS late, or raises if SECONDS is `fail`. The flags are those
of train.py.
"""

import sys
import time

import jax

from gconet_jax import cli
from gconet_jax.training import checkpoint, observer

PLACES = {
    'compile': (jax.stages.Lowered, 'compile'),
    'picture': (observer.Observer, '_picture'),
    'restore': (checkpoint.Checkpoints, 'restore'),
}


def delay(what: str, seconds: str) -> None:
    """Replace `what` by a version whose first call is late or raises."""
    owner, name = PLACES[what]
    original = getattr(owner, name)

    def late(*arguments, **named):
        setattr(owner, name, original)
        print(f'{what} is late: {seconds}', file=sys.stderr, flush=True)
        if seconds == 'fail':
            raise RuntimeError('out of luck')
        time.sleep(float(seconds))
        return original(*arguments, **named)

    setattr(owner, name, late)


if __name__ == '__main__':
    for each in sys.argv[1].split(','):
        delay(*each.split('='))
    sys.exit(cli.train(['train', *sys.argv[2:]]))
