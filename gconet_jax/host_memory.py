"""malloc settings that make the process keep its freed memory.

XLA's CPU client allocates a program's temporaries with malloc at each call. glibc maps such large
blocks anew and unmaps them afterwards, so the kernel provides and zeroes every page again at each
step. On some machines that takes a third of a training step (docs/performance.md).
"""

import ctypes
import sys

# Parameters of mallopt, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
NEVER = -1


def keep_freed_memory() -> bool:
    """Make malloc keep freed memory for the rest of the process.

    Call this before JAX starts its threads: a thread that already has its own arena keeps mapping
    and unmapping blocks. Without glibc nothing changes.

    Returns:
        True if the settings were accepted.
    """
    if not sys.platform.startswith('linux'):
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    settings = ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER))
    return mallopt is not None and all(mallopt(*setting) for setting in settings)
