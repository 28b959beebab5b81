"""Measure everything on one accelerator, within a time budget: parity, training, inference.

    PYTHONPATH=. python benchmarks/accelerator.py [--minutes=4.5] [--out=FILE.json]
        [--commit=HASH] [--only=train,inference] [--rehearse]

Rows run in order of importance (accelerator_plan.py); rows that no longer fit are skipped. Each row
is printed as soon as it is measured, and the JSON is rewritten after each.

    chip        rates of a matrix product in bfloat16, in float32 by default (TF32 on NVIDIA GPUs)
                and at the highest precision, and of a copy
    parity      errors against the outputs of the released code (tests/golden), by precision
    train       the training step, next to the released one in PyTorch, eager and compiled
    inference   maps of a group, host to host, next to the released network in PyTorch
    similarity  the forms of the similarity, forward and with gradients, next to PyTorch

TFLOP/s count plain convolutions in our network; PyTorch uses the same count. `of bf16` is their
share of the measured bfloat16 rate. A row has the median, minimum and maximum of its calls, each of
which waits for its result. Compile time includes the first call. Memory is the peak: for PyTorch
that of the row, for ours that of the process so far, next to what the program needs. Ours and
PyTorch run in separate processes. PyTorch's rows need `torch`. `--rehearse` runs every kind of row
on small inputs.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

# PyTorch shares the chip. JAX reads this variable when it starts.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

from benchmarks import accelerator_plan
from benchmarks.accelerator_plan import Row
from benchmarks.worker import CallError, Worker
from gconet_jax.whole_file import whole_file

WORKERS = ('ours', 'torch', 'kernel')
SECTIONS = ('chip', 'parity', 'train', 'inference', 'similarity')


def main() -> None:
    """Run the rows and print the table."""
    parser = argparse.ArgumentParser(description='Measure everything on one accelerator.')
    parser.add_argument('--minutes', type=float, default=4.5, help='time budget')
    parser.add_argument('--out', type=Path, default=Path('runs/accelerator.json'))
    parser.add_argument('--commit', help='recorded; asked of git by default')
    parser.add_argument('--only', default='', help='sections, separated by commas; default: all')
    parser.add_argument('--rehearse', action='store_true', help='small inputs')
    arguments = parser.parse_args()
    if arguments.rehearse:
        # Programs that run once compile several times faster without optimisation.
        os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0')
    sizes = accelerator_plan.TINY if arguments.rehearse else accelerator_plan.FULL
    wanted = arguments.only.split(',') if arguments.only else []
    rows = [row for row in accelerator_plan.plan(sizes) if not wanted or row.section in wanted]
    result = about() | {'commit': arguments.commit or commit(), 'sizes': sizes._asdict()}
    result |= {'minutes': arguments.minutes, 'rows': []}
    measure_rows(rows, result, arguments.out, 60 * arguments.minutes)
    print_table(result)
    print(arguments.out)


def about() -> dict[str, Any]:
    """Return the versions of the packages and of the driver."""
    versions: dict[str, str | None] = {'python': platform.python_version()}
    for name in ('jax', 'jaxlib', 'flax', 'torch', 'numpy'):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    query = 'nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader'
    return {'versions': versions, 'driver': output_of(*query)}


def commit() -> str | None:
    """Return the commit of the working tree, or None if git does not know it."""
    return output_of('git', 'rev-parse', 'HEAD')


def output_of(*command: str) -> str | None:
    """Return the output of a command, or None if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def measure_rows(rows: list[Row], result: dict[str, Any], out: Path, seconds: float) -> None:
    """Measure `rows`, append a dict for each to `result['rows']`, and keep `out` up to date."""
    end = time.monotonic() + seconds
    workers = {name: Worker() for name in WORKERS}
    with_torch = result['versions']['torch'] is not None
    try:
        for name in {row.worker for row in rows}:
            if with_torch or name != 'torch':
                workers[name].start()
        for row in rows:
            found = {'section': row.section, 'name': row.name, **row.settings}
            left = end - time.monotonic()
            if row.worker == 'torch' and not with_torch:
                found |= {'skipped': 'PyTorch is not installed'}
            elif left < row.seconds:
                found |= {'skipped': f'{left:.0f} s were left'}
            else:
                try:
                    found |= workers[row.worker].call(row.function, row.settings, left)
                except CallError as error:
                    found |= {'error': str(error)[:2000]}
            result['rows'].append(found)
            add_rates(result['rows'])
            print(f'{seconds - end + time.monotonic():6.1f} s  {line(found)}', flush=True)
            with whole_file(out) as partial:
                partial.write_text(json.dumps(result, indent=1) + '\n')
    finally:
        for worker in workers.values():
            worker.stop()


def add_rates(rows: list[dict[str, Any]]) -> None:
    """Add TFLOP/s and their share of the measured bfloat16 rate where operations are counted."""
    known: dict[str, Any] = {}
    for row in rows:
        if row['section'] == 'chip':
            known |= row
    counts = {'train': 'step_gflop', 'inference': 'inference_gflop'}
    for row in rows:
        gflop = known.get(counts.get(row['section'], ''))
        if gflop is None or 'ms' not in row:
            continue
        images = 2 * row['pairs'] * row['images'] if row['section'] == 'train' else 1
        total = gflop * images * (row['size'] / 256) ** 2
        row['tflops'] = total / row['ms']
        if known.get('bf16_tflops'):
            row['of_bf16'] = row['tflops'] / known['bf16_tflops']


def line(row: dict[str, Any]) -> str:
    """Format one row as text."""
    name = f'{row["section"]:10} {row["name"]:38}'
    if 'skipped' in row or 'error' in row:
        state = 'skipped' if 'skipped' in row else 'error'
        return f'{name} {state}: {row[state].splitlines()[0][:200]}'
    hidden = {'section', 'name', 'pairs', 'images', 'size', 'precision', 'width', 'compiled'}
    hidden |= {'case', 'dtype', 'form', 'calls', 'gradients_calls', 'n', 'megabytes', 'products'}
    shown = {key: value for key, value in row.items() if key not in hidden}
    return f'{name} ' + '  '.join(f'{key} {_text(value)}' for key, value in shown.items())


def _text(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def print_table(result: dict[str, Any]) -> None:
    """Print the timed rows by section, then the number of rows without a result."""
    columns = ('ms', 'least', 'most', 'gradients_ms', 'tflops', 'of_bf16', 'peak_gib', 'compile_s')
    print(f'\n{"":50}' + ''.join(f'{column:>13}' for column in columns))
    timed = [row for row in result['rows'] if 'ms' in row]
    for row in sorted(timed, key=lambda row: SECTIONS.index(row['section'])):
        cells = (f'{row[c]:13.4g}' if c in row else f'{"-":>13}' for c in columns)
        print(f'{row["section"]:11}{row["name"]:39}' + ''.join(cells))
    for state in ('skipped', 'error'):
        names = [row['name'] for row in result['rows'] if state in row]
        if names:
            print(f'{state}: {"; ".join(names)}')


if __name__ == '__main__':
    main()
