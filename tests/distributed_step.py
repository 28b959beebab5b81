"""One of several processes that compute a step together; run by `test_distributed.py`.

    python tests/distributed_step.py PORT PROCESS OUT PAIR,IMAGE ...

Process 0 writes the step of each mesh to OUT.
"""

import pickle
import sys
from pathlib import Path

import float64_step
import jax
import test_mesh

from gconet_jax.training import distributed
from gconet_jax.training import mesh as mesh_lib


def main() -> None:
    """Run as one of two processes with two CPU devices each."""
    port, process, out, *shapes = sys.argv[1:]
    jax.config.update('jax_num_cpu_devices', 2)
    distributed.initialize(f'localhost:{port}', 2, int(process))
    with distributed.fail_together():
        steps = {}
        for text in shapes:
            shape = tuple(int(n) for n in text.split(','))
            mesh = mesh_lib.make_mesh(2, (8,), shape=shape)
            batch = part(test_mesh.batch(), mesh_lib.part_of_process(mesh))
            steps[shape] = float64_step.run(test_mesh.CONFIG, batch, mesh)._asdict()
        if process == '0':
            Path(out).write_bytes(pickle.dumps(steps))


def part(batch, mine):
    """Return the part of the batch that the loader of this process would read."""
    pairs, images = (
        slice(length * index // count, length * (index + 1) // count)
        for length, (index, count) in ((2, mine.pair), (8, mine.image))
    )
    return {name: x[pairs] if name == 'label' else x[pairs, :, images] for name, x in batch.items()}


if __name__ == '__main__':
    main()
