"""The accelerator benchmark, small and on the CPU: every kind of row runs, and parity holds."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Largest allowed errors against the released code's outputs, by precision. TF32 is the default
# precision of float32 on NVIDIA GPUs; bfloat16 is a setting of the network.
BOUNDS = {
    'highest': {'x5_relative': 1e-4, 'prob': 1e-4, 'thresh': 1e-4},
    'default': {'x5_relative': 1e-2, 'prob': 0.1, 'thresh': 0.1},
    'bfloat16': {'x5_relative': 0.05, 'prob': 0.2, 'thresh': 0.2},
}


@pytest.mark.slow
def test_the_rehearsal_measures_every_row(tmp_path):
    out = tmp_path / 'accelerator.json'
    command = ['benchmarks/accelerator.py', '--rehearse', '--minutes=30', f'--out={out}']
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result['versions']['jax']
    rows = {(row['section'], row['name']): row for row in result['rows']}
    assert {section for section, _ in rows} == {
        'chip',
        'parity',
        'train',
        'inference',
        'similarity',
    }
    assert not [row for row in rows.values() if 'error' in row]
    with_torch = importlib.util.find_spec('torch') is not None
    for (_, name), row in rows.items():
        assert ('skipped' in row) == (name.startswith('PyTorch') and not with_torch), name
    for precision, bounds in BOUNDS.items():
        row = rows['parity', f'eval_n1_128 {precision}']
        for name, bound in bounds.items():
            assert row[name] < bound, (precision, name)
    for name in 'einsum', 'blockwise', 'pallas':
        assert rows['similarity', f'{name} 2 bfloat16']['difference'] < 1e-5
