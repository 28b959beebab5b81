"""Memory the process keeps for itself once it has it.

XLA's CPU client asks malloc for the temporaries of a program at each call. glibc maps blocks of
that size anew each time and unmaps them after it, so the kernel hands out and zeroes every page of
them at each step: a third of the time of a training step on some machines (docs/performance.md).
"""

import ctypes
import sys

# malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
NEVER = -1


def keep_freed_memory() -> bool:
    """Lets malloc keep what is freed, for the rest of the process; whether it will.

    To be called before JAX starts its threads: one that has its own arena already keeps mapping. On
    systems without glibc nothing is changed.
    """
    if not sys.platform.startswith('linux'):
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    settings = ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER))
    return mallopt is not None and all(mallopt(*setting) for setting in settings)
