"""Time the training step at the released settings, ours next to the released one in PyTorch.

    PYTHONPATH=. python benchmarks/train_step.py [--pairs=1] [--images=4] [--size=256] [--passes=5]
        [--precision=bfloat16] [--remat=light] [--affinity=einsum] [--torch] [--compile]
        [--out=FILE.json]

Both have the same seeded weights and images, a frozen backbone that normalises by the batch, and a
raw and a masked pass. Rows take turns within a pass and run in separate processes, with two threads
each on a CPU. Our process keeps freed memory, as `train.py` does; PyTorch runs once with its
defaults and once keeping memory in the same way.

With `--torch` the first step's loss and gradient norm must agree (pip install torch==2.13.0);
PyTorch's rows have one pair.

The floor is the step's multiplications and additions with plain convolutions, as XLA counts them
before optimisation, at the rate of a large matrix product of the same precision measured in the
same run. `ours` counts our step, whose convolutions multiply less. The table also gives what the
parts of the compiled program read and write, counted by XLA, at the rate of a large copy; caches
avoid some of that.
"""

# pyright: reportMissingImports=false

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from gconet_jax.config import Config
from gconet_jax.host_memory import keep_freed_memory
from gconet_jax.training import state as train_state
from gconet_jax.training.step import make_train_step
from tests import golden_cases

TOLERANCE = 0.01  # relative, of loss and gradient norm between the two

Step = Callable[[], tuple[float, float]]


def main() -> None:
    """Check the outputs, then print the table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--pairs', type=int, default=1)
    parser.add_argument('--images', type=int, default=4, help='of each group')
    parser.add_argument('--size', type=int, default=256)
    parser.add_argument('--precision', default='float32', choices=('float32', 'bfloat16'))
    parser.add_argument('--remat', default='none', choices=('none', 'light', 'full'))
    parser.add_argument('--affinity', default='auto')
    parser.add_argument('--torch', action='store_true')
    parser.add_argument('--compile', action='store_true', help='a row for torch.compile as well')
    parser.add_argument('--passes', type=int, default=5)
    parser.add_argument('--out', help='a file for the JSON')
    arguments = parser.parse_args()
    keep_freed_memory()
    # Keep P - T small: elsewhere the clamped BCE of the released code is a different loss.
    meta = {'seed': 0, 'n': arguments.images, 'h': arguments.size, 'w': arguments.size}
    meta |= {'db_scale': 0.02, 'thresh_bias': 0.0, 'cls': [0, 1]}
    config = configured(golden_cases.released_config(meta), arguments)
    batch = golden_cases.pair_batch(meta)
    rows: dict[str, Step] = {}
    rows['ours'], counted = ours(meta, batch, config, arguments.pairs)
    if arguments.torch or arguments.compile:
        rows |= theirs(meta, batch, config, arguments.compile)
        first = {name: step() for name, step in rows.items()}
        for name, got in first.items():
            print(f'{name:18} loss {got[0]:.3f}, gradient norm {got[1]:.3f}')
            expected = (arguments.pairs if name == 'ours' else 1) * np.asarray(first['torch'])
            if not np.allclose(got, expected, rtol=TOLERANCE):
                raise SystemExit(f'{name} does not compute what PyTorch does')
    times = measure.interleaved(rows, arguments.passes)
    report(times, counted, arguments)


def configured(config: Config, arguments: argparse.Namespace) -> Config:
    """Return `config` with the options of the command line."""
    model = dataclasses.replace(
        config.model, precision=arguments.precision, affinity=arguments.affinity
    )
    run = dataclasses.replace(config.run, remat=arguments.remat)
    return dataclasses.replace(config, model=model, run=run)


def ours(
    meta: dict, batch: Mapping[str, Any], config: Config, pairs: int
) -> tuple[Step, dict[str, float]]:
    """Return our step, its compile time in seconds, its operations, and its memory in MB."""
    model = golden_cases.released_model(meta, config.model)
    graph, state = train_state.create(model, config)
    batch = {name: jnp.repeat(jnp.asarray(x), pairs, axis=0) for name, x in batch.items()}
    start = time.perf_counter()
    traced = make_train_step(graph, config).trace(state, batch)
    lowered, plain = traced.lower(), traced.lower(lowering_platforms=('cuda',))
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    temporary = compiled.memory_analysis().temp_size_in_bytes / 1e6
    moved = compiled.cost_analysis()['bytes accessed'] / 1e9
    holder = [jax.device_put(state, compiled.input_shardings[0][0])]

    def step() -> tuple[float, float]:
        holder[0], metrics = compiled(holder[0], batch)
        jax.block_until_ready(holder[0])
        return float(metrics['loss']), float(metrics['grad_norm'])

    counted = {
        'compile_s': seconds,
        'gflop': plain.cost_analysis()['flops'] / 1e9,
        'our_gflop': lowered.cost_analysis()['flops'] / 1e9,
        'gigabytes': moved,
        'temporary_mb': temporary,
    }
    return step, counted


def theirs(meta: dict, batch: Mapping[str, Any], config: Config, compiled: bool) -> dict[str, Step]:
    """Return PyTorch's rows: with its defaults, with memory kept, and optionally compiled."""
    from benchmarks.torch_step import RemoteStep

    settings = golden_cases.state_dict(meta), {k: np.asarray(x) for k, x in batch.items()}, config
    rows: dict[str, Step] = {
        'torch': RemoteStep(*settings),
        'torch, memory kept': RemoteStep(*settings, keep_memory=True),
    }
    return rows | ({'torch, compiled': RemoteStep(*settings, compiled=True)} if compiled else {})


def report(
    times: Mapping[str, list[float]], counted: dict[str, float], arguments: argparse.Namespace
) -> None:
    """Print the table and one line of JSON."""
    rate = measure.matrix_rate(dtype=jnp.dtype(arguments.precision))
    floor = 1e12 * counted['gflop'] / rate
    copy = measure.copy_rate()
    print(
        f'{counted["gflop"]:.0f} GFLOP a step, ours {counted["our_gflop"]:.0f}; matrix product '
        f'{rate / 1e9:.0f} GFLOP/s: floor {floor:.0f} ms; {counted["gigabytes"]:.1f} GB, copy '
        f'{copy / 1e9:.1f} GB/s: {1e12 * counted["gigabytes"] / copy:.0f} ms; compiled in '
        f'{counted["compile_s"]:.0f} s, temporary {counted["temporary_mb"]:.0f} MB'
    )
    table = measure.summary(times, 'torch' if 'torch' in times else 'ours')
    print(f'{"":18} {"ms a step":>10} {"least":>8} {"most":>8} {"to torch":>9} {"of floor":>9}')
    for name, row in table.items():
        print(
            f'{name:18} {row["ms"]:10.0f} {row["least"]:8.0f} {row["most"]:8.0f} '
            f'{row["ratio"]:9.2f} {floor / row["ms"]:9.2f}'
        )
    settings = {
        name: getattr(arguments, name)
        for name in ('pairs', 'images', 'size', 'precision', 'remat', 'affinity')
    }
    rates = {'gflops': rate / 1e9, 'copy_gb_per_s': copy / 1e9}
    measure.finish(settings | counted | rates | {'rows': table}, arguments.out)


if __name__ == '__main__':
    main()
