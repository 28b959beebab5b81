"""The compiled programs of a run, one set per batch size, and the memory that they need."""

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import psutil
from flax import nnx
from jax.sharding import Mesh

from gconet_jax import device_memory
from gconet_jax.config import Config
from gconet_jax.input_pipeline.augment import make_augment
from gconet_jax.training.distributed import wait_for_processes
from gconet_jax.training.mesh import batch_shardings
from gconet_jax.training.progress import say
from gconet_jax.training.safeguards import TrainingError
from gconet_jax.training.state import TrainState
from gconet_jax.training.step import (
    Batch,
    Metrics,
    abstract_batch,
    kept_bytes,
    make_train_step,
)

Shapes = Mapping[str, Any]  # the arrays of a batch, or their shapes and dtypes

GIB = 2**30
SMALLER = (
    "set run.remat='light' or 'full', model.precision='bfloat16', a smaller data.max_images or "
    'data.image_size, or use more devices (run.mesh)'
)


class Programs:
    """The augmentation and the training step, compiled once per number of images in a group.

    Each step's memory use is printed, and a step that needs more than the device has is rejected.
    Every process finishes compiling before any process runs the program.
    """

    def __init__(self, graph: nnx.GraphDef, config: Config, mesh: Mesh):
        self._graph, self._config, self._mesh = graph, config, mesh
        self._augments: dict[int, jax.stages.Compiled] = {}
        self._steps: dict[tuple[int, bool], jax.stages.Compiled] = {}
        self._started: set[tuple[int, bool]] = set()

    def __call__(
        self, state: TrainState, batch: Batch, step: int, *, freeze_batch_norm: bool
    ) -> tuple[TrainState, Metrics]:
        """Augment `batch` and apply update number `step`, counted from 0; consumes `state`.

        If the batch has a new size, this first compiles and waits for the other processes.

        Raises:
          TrainingError: the program does not fit in the memory of a device.
          InputError: another process ended.
        """
        images = batch['valid'].shape[2]
        key = (images, freeze_batch_norm)
        if key not in self._started:
            self._compile(state, batch, freeze_batch_norm)
            wait_for_processes(f'the first step of groups of {images} images')
            self._started.add(key)
        batch = self._augments[images](batch, np.uint32(step))
        return self._steps[key](state, batch)

    def prepare(
        self, state: TrainState, *, pairs: int, images: int, freeze_batch_norm: bool
    ) -> None:
        """Compile the programs for `pairs` pairs of groups of `images` images, without a batch.

        Raises:
          TrainingError: the step does not fit in the memory of a device.
        """
        batch = abstract_batch(pairs, images, self._config.data.image_size)
        self._compile(state, batch, freeze_batch_norm)

    def _compile(self, state: TrainState, batch: Shapes, freeze_batch_norm: bool) -> None:
        images = batch['valid'].shape[2]
        if (images, freeze_batch_norm) not in self._steps:
            self._steps[images, freeze_batch_norm] = self._step(state, batch, freeze_batch_norm)
        if images not in self._augments:
            self._augments[images] = self._augment(batch)

    def _augment(self, batch: Shapes) -> jax.stages.Compiled:
        shardings = batch_shardings(self._mesh)
        augment = make_augment(self._config.augment, self._config.train.seed)
        program = jax.jit(augment, in_shardings=(shardings, None), out_shardings=shardings)
        with memory_errors():
            return program.lower(batch, np.uint32(0)).compile()

    def _step(
        self, state: TrainState, batch: Shapes, freeze_batch_norm: bool
    ) -> jax.stages.Compiled:
        step = make_train_step(
            self._graph, self._config, self._mesh, freeze_batch_norm=freeze_batch_norm
        )
        pairs, _, images, size = batch['mask'].shape[:4]
        what = f'Step of {pairs} x 2 x {images} images of {size} x {size}'
        kept = kept_bytes(self._graph, self._config, state, batch) // self._mesh.shape['image']
        start = time.perf_counter()
        with memory_errors():
            compiled = step.lower(state, batch).compile()
        seconds = time.perf_counter() - start
        sizes = compiled.memory_analysis()
        arguments, temporary = sizes.argument_size_in_bytes, sizes.temp_size_in_bytes
        needed = arguments + temporary + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
        room = memory_of(self._mesh.local_devices[0])
        say(
            f'{what}, mesh {dict(self._mesh.shape)}: {needed / GIB:.2f} GiB of '
            f'{room / GIB:.1f} GiB on a device (state and batch {arguments / GIB:.2f}, temporary '
            f'{temporary / GIB:.2f}; planned for the backward pass {kept / GIB:.2f}); compiled in '
            f'{seconds:.0f} s'
        )
        if needed > room:
            raise TrainingError(
                f'{what} needs {needed / GIB:.1f} GiB on a device, which has {room / GIB:.1f}: '
                f'{SMALLER}'
            )
        return compiled


def memory_of(device: Any) -> int:
    """Return the bytes that a program may use on `device`; a CPU has its share of host memory."""
    stats = device.memory_stats() or {}
    if 'bytes_limit' in stats:
        return stats['bytes_limit']
    return psutil.virtual_memory().total // jax.local_device_count()


def memory_errors() -> contextlib.AbstractContextManager[None]:
    """Convert out-of-memory errors of a device into an error that says what to change.

    Raises:
      TrainingError: in place of JAX's RESOURCE_EXHAUSTED.
    """
    return device_memory.memory_errors(
        f'the step does not fit the device: {SMALLER}', TrainingError
    )
