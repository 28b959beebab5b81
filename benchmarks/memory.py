"""Compare the memory of the training step by `run.remat` and `model.precision`.

    python benchmarks/memory.py [--target=h100] [--images=32]

The step has one pair of 2 x `images` images at 256 x 256, on one device. `kept` is what the forward
pass keeps for the backward pass, `temporaries` what the compiler plans. Nothing runs; see
collectives.py for the targets. XLA's compiler for CPUs undoes rematerialisation.
"""

import argparse
import dataclasses
import itertools

from benchmarks.collectives import compile_step, make_devices
from configs.duts import get_config
from gconet_jax.config_dict import from_config_dict
from gconet_jax.training import state as train_state
from gconet_jax.training.step import abstract_batch, kept_bytes

GIB = 2**30
SIZE = 256


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--target', choices=('cpu', 'h100'), default='cpu')
    parser.add_argument('--images', type=int, default=32)
    arguments = parser.parse_args()
    batch = abstract_batch(1, arguments.images, SIZE)
    devices = make_devices(arguments.target, 1, 8)[:1]
    main_config = from_config_dict(get_config())
    print('| precision | remat | kept GiB | temporaries GiB |\n|---|---|---|---|')
    for precision, remat in itertools.product(('float32', 'bfloat16'), ('none', 'light', 'full')):
        config = dataclasses.replace(
            main_config,
            model=dataclasses.replace(main_config.model, precision=precision),
            run=dataclasses.replace(main_config.run, remat=remat),
        )
        graph, state = train_state.abstract(config)
        kept = kept_bytes(graph, config, state, batch) / GIB
        compiled = compile_step(config, (1, 1), arguments.images, SIZE, devices)
        temporary = compiled.memory_analysis().temp_size_in_bytes / GIB
        print(f'| {precision} | {remat} | {kept:.1f} | {temporary:.1f} |', flush=True)


if __name__ == '__main__':
    main()
