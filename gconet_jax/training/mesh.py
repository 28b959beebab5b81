"""The devices as a mesh with two axes: `pair` (pairs of groups) and `image` (images of a group).

Pairs are independent except for the sum of their gradients. Images of a group share batch
statistics, the affinity and k; the compiler adds the communication for these.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gconet_jax.config import ConfigError
from gconet_jax.input_pipeline.part import Part
from gconet_jax.training.progress import say

AXES = ('pair', 'image')


def make_mesh(
    pairs: int,
    group_sizes: Sequence[int],
    *,
    shape: Sequence[int] = (),
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """Return the mesh for batches of `pairs` pairs whose groups are padded to one of `group_sizes`.

    Args:
      pairs: pairs in a batch, over all processes.
      group_sizes: possible numbers of images in a padded group.
      shape: (devices along `pair`, devices along `image`). If empty, gcd(pairs, devices) pairs run
          at once, and the images of each are split over the remaining devices.
      devices: all devices by default.

    Raises:
      ConfigError: `shape` does not divide the batch, or needs more devices than there are.
    """
    devices = jax.devices() if devices is None else list(devices)
    count = len(devices)
    if not shape:
        along_pair = math.gcd(pairs, count)
        along_image = max(
            n for n in range(1, count // along_pair + 1) if not any(s % n for s in group_sizes)
        )
        if along_pair * along_image < count:
            say(
                f'{count - along_pair * along_image} of {count} devices stay idle: {pairs} pairs '
                f'of {tuple(group_sizes)} images do not divide by more; see data.group_sizes'
            )
    else:
        along_pair, along_image = shape
    uneven = pairs % along_pair or any(size % along_image for size in group_sizes)
    if uneven or along_pair * along_image > count:
        raise ConfigError(
            f'config.run.mesh: ({along_pair}, {along_image}) does not fit {pairs} pairs of '
            f'{tuple(group_sizes)} images on {count} devices'
        )
    used = np.array(devices[: along_pair * along_image]).reshape(along_pair, along_image)
    return Mesh(used, AXES, axis_types=(AxisType.Auto, AxisType.Auto))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding that copies an array to every device."""
    return NamedSharding(mesh, P())


def batch_shardings(mesh: Mesh) -> dict[str, NamedSharding]:
    """Return the sharding of each array of a batch."""
    images = NamedSharding(mesh, P('pair', None, 'image'))
    labels = NamedSharding(mesh, P('pair'))
    return {'image': images, 'mask': images, 'valid': images, 'label': labels}


def part_of_process(mesh: Mesh) -> Part:
    """Return the part of a batch that this process loads: the block of the mesh that it owns.

    Raises:
      ConfigError: the process has no device in the mesh, or processes do not own equal blocks.
    """
    mine = np.vectorize(lambda device: device.process_index == jax.process_index())(mesh.devices)
    rows, columns = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
    what = f'config.run.mesh: of {mesh.devices.shape} devices, process {jax.process_index()}'
    remedy = 'start fewer processes, or let data.group_sizes be divisible by more'
    if not mine.any():
        raise ConfigError(f'{what} has none; {remedy}')

    def share(indices: np.ndarray, length: int) -> tuple[int, int]:
        if indices[0] % len(indices) or length % len(indices):
            raise ConfigError(f'{what} has no equal part; {remedy}')
        return int(indices[0]) // len(indices), length // len(indices)

    if not mine[np.ix_(rows, columns)].all():
        raise ConfigError(f'{what} has those that are no block; {remedy}')
    return Part(share(rows, mesh.shape['pair']), share(columns, mesh.shape['image']))


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Copy the arrays of `tree` to every device; each process must pass the same values.

    `jax.device_put` would compare them between the processes, array by array.
    """
    everywhere = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(everywhere, np.asarray(x), x.shape), tree
    )


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Assemble the batch on the devices from the part that each process loaded."""
    return {
        name: jax.make_array_from_process_local_data(sharding, batch[name])
        for name, sharding in batch_shardings(mesh).items()
    }
