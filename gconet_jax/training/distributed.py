"""Several processes as one run, through `jax.distributed`."""

import contextlib
import itertools
import os
import sys
import traceback
from collections.abc import Iterator

import jax
from orbax.checkpoint import multihost

from gconet_jax.errors import InputError

# JAX notices within two minutes that a process ended. Only a process that is alive but hangs
# reaches this timeout.
BARRIER_TIMEOUT_S = 24 * 60 * 60
_barriers = itertools.count()


def initialize(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Join the processes of a run. Call this before any other JAX function.

    Args:
      coordinator: 'host:port' of process 0, or 'auto' to detect Slurm, Open MPI, Kubernetes or a
          TPU pod.
      processes: number of processes; omit with 'auto'.
      process: index of this process; omit with 'auto'.

    Raises:
      InputError: arguments are missing or conflict, no cluster is found, or joining it fails.
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


def wait_for_processes(what: str) -> None:
    """Wait until all processes of the run are ready for `what`; do nothing if there is only one.

    Every process must call this the same number of times, in the same order.

    A collective fails if one process joins it much later than another, on CPUs after 30 s.
    Processes get ready at different times: only process 0 writes JAX's compilation cache, hosts
    compile and read at different speeds, and only process 0 scores.
    So they meet here first, through the coordination service, which has no such limit.

    Args:
      what: a noun phrase for the error message.

    Raises:
      InputError: a process ended or hangs.
    """
    wait = multihost.get_barrier_sync_fn()
    try:
        wait(key=f'gconet-jax {next(_barriers)}: {what}', timeout_ms=BARRIER_TIMEOUT_S * 1000)
    except jax.errors.JaxRuntimeError as error:
        raise InputError(
            f'not all processes got ready for {what}: {str(error).splitlines()[0]}\n'
            'Read the output of the other processes, then start all of them again.'
        ) from error


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
    """End this process at once if an error leaves the block and other processes exist.

    The others would wait for it. JAX notices within two minutes that it ended, and ends them.
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
