"""Collectives read from compiled programs with known traffic, and from text in every form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from benchmarks.hlo_collectives import read_collectives

MESH = {'pair': 2, 'image': 4}
LENGTH = 256  # float32 on each device: 1 KiB


def read(function):
    """Return the collectives of `function`, with LENGTH values on each of the eight devices."""
    mesh = jax.make_mesh((2, 4), tuple(MESH), axis_types=(AxisType.Auto,) * 2)
    every = P(tuple(MESH))
    spread = jax.shard_map(function, mesh=mesh, in_specs=every, out_specs=every, check_vma=False)
    array = jax.ShapeDtypeStruct((8 * LENGTH,), jnp.float32)
    return read_collectives(jax.jit(spread).lower(array).compile().as_text(), 8)


def looped(x):
    return lax.scan(lambda total, _: (lax.psum(jnp.sin(total), 'image'), None), x, length=3)[0]


@pytest.mark.parametrize(
    ('function', 'kind', 'axes', 'times', 'size', 'wire'),
    [
        (lambda x: lax.psum(x, 'image'), 'all-reduce', 'image', 1, 1024, 1536),
        (lambda x: lax.psum(x, 'pair'), 'all-reduce', 'pair', 1, 1024, 1024),
        (lambda x: lax.psum(x, tuple(MESH)), 'all-reduce', 'pair+image', 1, 1024, 1792),
        (lambda x: lax.all_gather(x, 'image', tiled=True), 'all-gather', 'image', 1, 4096, 3072),
        (
            lambda x: lax.psum_scatter(x, 'image', tiled=True),
            'reduce-scatter',
            'image',
            1,
            1024,
            768,
        ),
        (
            lambda x: lax.all_to_all(x, 'image', 0, 0, tiled=True),
            'all-to-all',
            'image',
            1,
            1024,
            768,
        ),
        (
            lambda x: lax.ppermute(x, 'pair', [(0, 1), (1, 0)]),
            'collective-permute',
            'pair',
            1,
            1024,
            1024,
        ),
        (looped, 'all-reduce', 'image', 3, 1024, 1536),
    ],
)
def test_a_program_of_one_collective(function, kind, axes, times, size, wire):
    (found,) = read(function)
    assert (found.kind, found.axes(MESH), found.times) == (kind, axes, times)
    assert (found.size, found.wire) == (size, wire)


def test_arrays_that_travel_together_are_summed():
    def function(x):
        total, part = lax.psum((x, x[:64]), 'image')
        return total + part.sum()

    assert sum(each.size for each in read(function)) == 4 * (LENGTH + 64)


def test_a_program_without_collectives():
    assert read(jnp.sin) == []


def test_a_loop_of_unknown_length_is_an_error():
    def function(x):
        return lax.while_loop(lambda x: x.sum() > 1, lambda x: lax.psum(x / 8, 'image') / 2, x)

    with pytest.raises(ValueError, match=r'a loop of unknown length around .* all-reduce\('):
        read(function)


ROWS = [[0, 1, 2, 3], [4, 5, 6, 7]]
COLUMNS = [[0, 4], [1, 5], [2, 6], [3, 7]]


@pytest.mark.parametrize(
    ('written', 'groups'),
    [
        ('{{0,1,2,3},{4,5,6,7}}', ROWS),
        ('{}', [[0, 1, 2, 3, 4, 5, 6, 7]]),
        ('[2,4]<=[8]', ROWS),
        ('[4,2]<=[2,4]T(1,0)', COLUMNS),
        ("mesh['axis_0'=2,'axis_1'=1,'axis_2'=4] {'axis_2'}", ROWS),
        ("mesh['a'=2,'b'=4] {'a'}", COLUMNS),
        ("mesh['a'=2,'b'=2,'c'=2] {'a','c'}", [[0, 1, 4, 5], [2, 3, 6, 7]]),
    ],
)
def test_every_way_of_writing_groups(written, groups):
    line = f'%r = f32[8]{{0}} all-reduce(%x), channel_id=1, replica_groups={written}, to_apply=%add'
    (found,) = read_collectives(program(line), 8)
    np.testing.assert_array_equal(found.groups, groups)


def test_groups_in_an_unknown_form_are_an_error():
    line = "%r = f32[8]{0} all-reduce(%x), replica_groups=mesh['a'=8] {'a':(1)2}, to_apply=%add"
    with pytest.raises(ValueError, match='groups of devices'):
        read_collectives(program(line), 8)


@pytest.mark.parametrize(
    ('line', 'kind', 'size'),
    [
        (
            '%r = f32[8]{0} all-reduce-start(%x), replica_groups={}, to_apply=%add',
            'all-reduce',
            32,
        ),
        (
            '%r = (bf16[4]{0}, bf16[32]{0}) all-gather-start(%x), replica_groups={}',
            'all-gather',
            64,
        ),
        (
            '%r = ((f32[1]{0}, s8[1]{0}), (f32[8]{0}, s8[8]{0})) all-gather-start(%x, %y), '
            'replica_groups={}',
            'all-gather',
            40,
        ),
        (
            '%r = ((f32[8]{0}), f32[1]{0}) reduce-scatter-start(%x), replica_groups={}',
            'reduce-scatter',
            32,
        ),
        (
            '%r = (f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%x), '
            'source_target_pairs={{0,1},{1,0}}',
            'collective-permute',
            32,
        ),
        (
            '%r = (pred[8]{0}, /*index=1*/f32[2,3]{1,0:T(8,128)}) all-reduce(%x, %y), '
            'replica_groups={}, to_apply=%add',
            'all-reduce',
            32,
        ),
    ],
)
def test_types_of_asynchronous_and_joined_collectives(line, kind, size):
    (found,) = read_collectives(program(line), 8)
    assert (found.kind, found.size) == (kind, size)


def test_a_wrapped_collective_counts_at_its_start():
    text = """
%wrapped (p: f32[8]) -> f32[1] {
  %p = f32[8]{0} parameter(0)
  ROOT %r = f32[1]{0} reduce-scatter(%p), replica_groups={}, dimensions={0}, to_apply=%add
}

ENTRY %main (x: f32[8]) -> f32[1] {
  %x = f32[8]{0} parameter(0)
  %s = ((f32[8]{0}), f32[1]{0}, s32[]) async-start(%x), calls=%wrapped
  ROOT %d = f32[1]{0} async-done(%s), calls=%wrapped
}
"""
    (found,) = read_collectives(text, 8)
    assert (found.kind, found.times, found.size, found.wire) == ('reduce-scatter', 1, 32, 28)


def program(line: str) -> str:
    return f'HloModule m\n\nENTRY %main (x: f32[8]) -> f32[8] {{\n  {line}\n}}\n'
