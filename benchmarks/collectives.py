"""Count what the training step of configs/duts_coco.py moves between devices, by mesh shape.

    python benchmarks/collectives.py [--target=h100] [--meshes=1x1,2x1,...] [--out=FILE.json]

This compiles the step from shapes alone and reads the collectives out of the program; nothing runs.
The target is `cpu` or `h100`. The latter needs no GPU, only jax[cuda12]; its packages
jax-cuda12-plugin and jax-cuda12-pjrt without their dependencies are enough.

Bytes, counts and memory are per device and step. `wire` is what a device sends when the
participants form a ring:

    all-reduce                              2 (n - 1) / n  of the array
    all-gather, reduce-scatter, all-to-all    (n - 1) / n  of the whole array
    collective-permute                                  1

Times are arithmetic: wire / bandwidth, one collective after another, without launch overhead.
Devices are numbered along `image` first and fill one node after another. The bandwidth within a
node is --nvlink. Between nodes it is --network for each of a group's devices in a node, because one
ring per device shares the work, and at most --nvlink.
"""

import argparse
import collections
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from benchmarks.hlo_collectives import Collective, read_collectives
from configs.duts_coco import get_config
from gconet_jax.config import Config
from gconet_jax.config_dict import from_config_dict
from gconet_jax.training import state as train_state
from gconet_jax.training.mesh import AXES, make_mesh
from gconet_jax.training.step import abstract_batch, make_train_step

MESHES = '1x1,2x1,1x2,2x2,1x4,2x4,1x8,2x8,2x16,2x32'
MIB = 2**20
# An H100 SXM for XLA's compiler, a GpuTargetConfigProto: NVIDIA's figures for compute capability 9.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  device_memory_size: 85899345920
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  shared_memory_per_core: 233472
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_warp: 32
  threads_per_core_limit: 2048
  threads_per_block_limit: 1024
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}
platform_name: "CUDA"
runtime_version { major: 12 minor: 8 }
dnn_version_info { major: 9 minor: 7 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclasses.dataclass(frozen=True)
class Links:
    """GB/s (1e9 bytes) that a device sends."""

    nvlink: float
    network: float
    node: int  # devices

    def bandwidth(self, collective: Collective) -> float:
        """Return the bandwidth of each member of a group."""
        nodes = collective.groups // self.node
        if (nodes == nodes[:, :1]).all():
            return self.nvlink
        together = min(np.unique(row, return_counts=True)[1].min() for row in nodes)
        return min(self.nvlink, self.network * float(together))


def make_devices(target: str, count: int, node: int) -> list[Any]:
    """Return devices to compile for; those of a GPU target do not exist."""
    jax.config.update('jax_platforms', 'cpu')  # nothing runs, so do not search for a GPU
    if target == 'cpu':
        return jax.devices()[:count]
    nodes = -(-count // node)
    topology = f'1x{nodes}x{count // nodes}'
    try:
        described = topologies.get_topology_desc(
            target, 'cuda', target_config=H100, topology=topology
        )
    except NotImplementedError as error:
        raise SystemExit(f'--target={target} needs jax[cuda12]: {error}') from error
    return list(described.devices)


def compile_step(
    config: Config, shape: tuple[int, int], images: int, size: int, devices: list[Any]
) -> jax.stages.Compiled:
    """Compile the step for a pair of groups of `images` images from each training set."""
    graph, state = train_state.abstract(config)
    pairs = len(config.data.train_sets)
    batch = abstract_batch(pairs, images, size)
    mesh = make_mesh(pairs, (images,), shape=shape, devices=devices)
    return make_train_step(graph, config, mesh).lower(state, batch).compile()


def summary(compiled: jax.stages.Compiled, shape: tuple[int, int], links: Links, top: int) -> dict:
    """Return counts, MiB and ms by kind and axis, memory in MiB, and the `top` collectives."""
    mesh = dict(zip(AXES, shape, strict=True))
    found = read_collectives(compiled.as_text(), shape[0] * shape[1])
    rows = collections.defaultdict(lambda: {'count': 0, 'mib': 0.0, 'wire_mib': 0.0, 'ms': 0.0})
    for each in found:
        row = rows[f'{each.kind} {each.axes(mesh)}']
        row['count'] += each.times
        row['mib'] += each.times * each.size / MIB
        row['wire_mib'] += each.times * each.wire / MIB
        row['ms'] += each.times * each.wire / links.bandwidth(each) / 1e6
    total = {name: sum(row[name] for row in rows.values()) for name in ('count', 'wire_mib', 'ms')}
    memory = compiled.memory_analysis()
    assert memory is not None
    largest = sorted(found, key=lambda each: -each.size)[:top]
    return {
        'devices': shape[0] * shape[1],
        'collectives': dict(sorted(rows.items())),
        'total': total,
        'argument_mib': memory.argument_size_in_bytes / MIB,
        'temporary_mib': memory.temp_size_in_bytes / MIB,
        'largest': [
            {
                'kind': f'{each.kind} {each.axes(mesh)}',
                'times': each.times,
                'mib': each.size / MIB,
                'from': each.op_name[:200],
            }
            for each in largest
        ],
    }


def show(name: str, result: dict) -> None:
    """Print the rows of a mesh."""
    for kind, row in result['collectives'].items():
        print(
            f'{name:6}{kind:33}{row["count"]:7}{row["mib"]:11.2f}{row["wire_mib"]:11.2f}'
            f'{row["ms"]:9.3f}'
        )
    total = result['total']
    print(
        f'{name:6}{"all":33}{total["count"]:7}{"":11}{total["wire_mib"]:11.2f}{total["ms"]:9.3f}'
        f'  memory {result["argument_mib"]:.0f} MiB of arguments, '
        f'{result["temporary_mib"]:.0f} MiB of temporaries',
        flush=True,
    )
    for each in result['largest']:
        print('      {kind}: {times} x {mib:.2f} MiB, {from}'.format(**each))


def main() -> None:
    """Print the table, and optionally write it as JSON."""
    parser = argparse.ArgumentParser(description='Reads collectives from the compiled step.')
    parser.add_argument('--target', default='cpu', choices=('cpu', 'h100'))
    parser.add_argument('--meshes', default=MESHES, help='devices along pairs x along images')
    parser.add_argument('--images', type=int, default=32, help='of a group')
    parser.add_argument('--size', type=int, default=256, help='of an image, pixels')
    parser.add_argument('--nvlink', type=float, default=450, help='GB/s a device, one direction')
    parser.add_argument('--network', type=float, default=50, help='GB/s a device, one direction')
    parser.add_argument('--node', type=int, default=8, help='devices')
    parser.add_argument('--top', type=int, default=0, help='largest collectives to print')
    parser.add_argument('--out', type=Path)
    arguments = parser.parse_args()
    shapes = [tuple(int(n) for n in text.split('x')) for text in arguments.meshes.split(',')]
    jax.config.update('jax_num_cpu_devices', max(a * b for a, b in shapes))

    config = from_config_dict(get_config())
    links = Links(arguments.nvlink, arguments.network, arguments.node)
    print(f'{"mesh":6}{"":33}{"count":>7}{"MiB":>11}{"wire MiB":>11}{"ms":>9}', flush=True)
    results = {}
    for along_pair, along_image in shapes:
        shape = along_pair, along_image
        devices = make_devices(arguments.target, along_pair * along_image, arguments.node)
        compiled = compile_step(config, shape, arguments.images, arguments.size, devices)
        name = f'{along_pair}x{along_image}'
        results[name] = summary(compiled, shape, links, arguments.top)
        show(name, results[name])
    if arguments.out:
        setting = {name: str(value) for name, value in vars(arguments).items()}
        arguments.out.write_text(json.dumps({'setting': setting, 'meshes': results}) + '\n')


if __name__ == '__main__':
    main()
