"""Several processes as one run, by `jax.distributed`."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator

import jax

from gconet_jax.errors import InputError


def initialize(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the processes of a run; to be called before anything else of JAX.

    Args:
      coordinator: 'host:port' of process 0, or 'auto': as Slurm, Open MPI, Kubernetes or a TPU pod
        started them.
      processes: their number, and
      process: which of them this one is; both or, with 'auto', none.

    Raises:
      InputError: arguments are missing or too many, no cluster is found, or it cannot be joined.
    """
    if coordinator == 'auto':
        if processes is not None or process is not None:
            raise InputError('--coordinator=auto takes neither --processes nor --process')
        try:
            jax.distributed.initialize()
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f'--coordinator=auto found no cluster ({str(error).splitlines()[0]}); give '
                '--coordinator=HOST:PORT --processes=N --process=I'
            ) from error
    elif coordinator is None or processes is None or process is None:
        raise InputError('--coordinator=HOST:PORT, --processes=N and --process=I go together')
    else:
        try:
            jax.distributed.initialize(coordinator, processes, process)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f'--coordinator={coordinator} --processes={processes} --process={process}: '
                f'{str(error).splitlines()[0]}'
            ) from error


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
    """Ends this process at once if an error leaves the block and there are other processes.

    They would wait for it for ever; so they find it gone, and end as well.
    """
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        if isinstance(error, InputError):
            print(f'error: {error}', file=sys.stderr)
        else:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
