"""What the benchmarks share: rows timed in turn, and what the machine itself can do."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gconet_jax.whole_file import whole_file


def interleaved(rows: Mapping[str, Callable[[], Any]], passes: int) -> dict[str, list[float]]:
    """Seconds of each of `passes` calls of every row, which take turns; the first is not counted.

    A row waits for its own result, as `jax.block_until_ready` does.
    """
    times: dict[str, list[float]] = {name: [] for name in rows}
    for count in range(passes + 1):
        for name, run in rows.items():
            start = time.perf_counter()
            run()
            if count:
                times[name].append(time.perf_counter() - start)
    return times


def summary(times: Mapping[str, list[float]], reference: str) -> dict[str, dict[str, float]]:
    """Milliseconds: median, least, most; and the median ratio to `reference` within a pass."""
    return {
        name: {
            'ms': 1000 * statistics.median(values),
            'least': 1000 * min(values),
            'most': 1000 * max(values),
            'ratio': statistics.median(
                a / b for a, b in zip(values, times[reference], strict=True)
            ),
        }
        for name, values in times.items()
    }


def matrix_rate(n: int = 2048, dtype: Any = jnp.float32) -> float:
    """Operations a second of an n x n matrix product: the median of seven."""
    x = jnp.ones((n, n), dtype)
    product = jax.jit(lambda a: a @ a)
    times = interleaved({'': lambda: product(x).block_until_ready()}, 7)['']
    return 2 * n**3 / statistics.median(times)


def copy_rate(megabytes: int = 256) -> float:
    """Bytes a second, read and written, of a copy beyond any cache: the median of seven."""
    x = jnp.ones(megabytes * 2**18, jnp.float32)
    copy = jax.jit(lambda a: a + 1)  # a plain copy would be left out
    times = interleaved({'': lambda: copy(x).block_until_ready()}, 7)['']
    return 2 * x.nbytes / statistics.median(times)


def machine() -> dict[str, Any]:
    """Where and with what this was measured."""
    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0))
    return {
        'device': device.device_kind,
        'cores': cores,
        'jax': jax.__version__,
        'python': platform.python_version(),
    }


def finish(result: Mapping[str, Any], out: str | None) -> None:
    """One line of JSON, to the terminal and, if `out` names a file, into it."""
    line = json.dumps(machine() | result)
    print(line)
    if out:
        with whole_file(Path(out)) as partial:
            partial.write_text(line + '\n')
