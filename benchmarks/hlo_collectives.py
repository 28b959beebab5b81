"""Read the collectives of a compiled program from its HLO text."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')

COMPUTATION = re.compile(r'(ENTRY )?%?([\w.-]+) \(.*\{$')
# name = type opcode(operands), attributes; a type has no word before a bracket.
INSTRUCTION = re.compile(r'\s+(?:ROOT )?%?[\w.-]+ = (.*?) ([a-z][a-z0-9-]*)\((.*?)\)(.*)')
ARRAY = re.compile(r'([a-z]+[a-z0-9]*)\[([\d,]*)\]')
CALLEE = re.compile(r'(?:body|condition|calls|to_apply)=%?([\w.-]+)')
BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Collective(NamedTuple):
    """One instruction, seen from one device."""

    kind: str  # one of KINDS
    groups: np.ndarray  # (groups, n) positions in the flattened mesh; pairs for a permute
    times: int  # executions per run of the program
    size: int  # bytes of the whole array per execution: after gathering or before scattering
    op_name: str  # the operation that it comes from

    @property
    def wire(self) -> float:
        """Return the bytes that a device sends per execution when the n of a group form a ring."""
        n = self.groups.shape[1]
        match self.kind:
            case 'all-reduce':
                return 2 * (n - 1) / n * self.size
            case 'collective-permute':
                return self.size
        return (n - 1) / n * self.size

    def axes(self, mesh: Mapping[str, int]) -> str:
        """Return the axes of the mesh (name -> devices along it) that it spans: 'pair+image'."""
        places = np.array(np.unravel_index(self.groups, tuple(mesh.values())))
        varies = (places != places[..., :1]).any(axis=(1, 2))
        return '+'.join(name for name, along in zip(mesh, varies, strict=True) if along)


def read_collectives(text: str, devices: int) -> list[Collective]:
    """Return all collectives of a program for `devices` devices that move data.

    Args:
        text: the optimised module, from `jax.stages.Compiled.as_text`.
        devices: number of devices that the program runs on.

    Raises:
        ValueError: the trip count of a loop around a collective is unknown, or groups of devices
            have an unknown form.
    """
    computations, entry = _computations(text)
    found = []
    for times, kind, match in _walk(entry, computations, 1):
        if times is None:
            raise ValueError(f'a loop of unknown length around {match[0].strip()[:200]}')
        groups = _groups(kind, match[4], devices)
        if groups.shape[1] > 1 and len(groups):
            size = _size(kind, match) * (groups.shape[1] if kind == 'reduce-scatter' else 1)
            name = re.search(r'op_name="([^"]*)"', match[4])
            found.append(Collective(kind, groups, times, size, name[1] if name else ''))
    return found


def _computations(text: str) -> tuple[dict[str, list[re.Match]], str]:
    """Return the instructions of each computation, and the name of the entry computation."""
    computations, entry, current = {}, '', []
    for line in text.splitlines():
        if header := COMPUTATION.match(line):
            current = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif instruction := INSTRUCTION.match(line):
            current.append(instruction)
    return computations, entry


def _walk(
    name: str, computations: Mapping[str, list[re.Match]], times: int | None
) -> Iterator[tuple[int | None, str, re.Match]]:
    """Yield each collective under `name`, with its number of executions (None: unknown) and kind.

    All branches of a conditional count.
    """
    for match in computations[name]:
        opcode, attributes = match[2], match[4]
        kind = opcode.removesuffix('-start')
        if kind in KINDS:
            yield times, kind, match
            continue
        if opcode in ('async-update', 'async-done'):  # their start named the callee
            continue
        inner = times
        if opcode == 'while':
            trips = TRIPS.search(attributes)
            inner = times * int(trips[1]) if times is not None and trips else None
        callees = CALLEE.findall(attributes)
        for branches in BRANCHES.findall(attributes):
            callees += [branch.strip(' %') for branch in branches.split(',')]
        for callee in callees:
            yield from _walk(callee, computations, inner)


def _size(kind: str, match: re.Match) -> int:
    """Return the bytes of the results."""
    arrays = ARRAY.findall(match[1])
    operands = match[3].count('%')
    if match[2].endswith('-start') and kind != 'all-reduce':
        arrays = arrays[operands:]  # the type begins with those of the operands
    return sum(_bytes(*array) for array in arrays[:operands])


def _bytes(dtype: str, dims: str) -> int:
    bits = re.search(r'\d+', dtype)  # no digits: pred, one byte
    return math.prod(int(d) for d in dims.split(',') if d) * (int(bits[0]) if bits else 8) // 8


def _groups(kind: str, attributes: str, devices: int) -> np.ndarray:
    """Return the groups as (groups, n) positions in the mesh."""
    if kind == 'collective-permute':
        pairs = _lists('source_target_pairs', attributes)
        return np.array([pair for pair in pairs if pair[0] != pair[1]]).reshape(-1, 2)
    if 'replica_groups={}' in attributes:
        return np.arange(devices)[None]
    if lists := _lists('replica_groups', attributes):
        return np.array(lists)
    if iota := re.search(
        r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', attributes
    ):
        shape, dims = _integers(iota[1]), _integers(iota[2])
        order = _integers(iota[3]) if iota[3] else range(len(dims))
        return np.arange(math.prod(dims)).reshape(dims).transpose(order).reshape(shape)
    if named := re.search(r"replica_groups=mesh\[((?:'\w+'=\d+,?)+)\] \{([\w',]+)\}", attributes):
        sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", named[1])}
        along = [list(sizes).index(name.strip("'")) for name in named[2].split(',')]
        places = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
        places = np.moveaxis(places, along, range(-len(along), 0))
        return places.reshape(-1, math.prod(places.shape[-len(along) :]))
    raise ValueError(f'groups of devices in {attributes[:200]}')


def _lists(attribute: str, attributes: str) -> list[tuple[int, ...]]:
    """Parse {{0,1},{2,3}} to [(0, 1), (2, 3)]."""
    whole = re.search(attribute + r'=\{((?:\{[\d,]*\},?)+)\}', attributes)
    return [_integers(part) for part in re.findall(r'\{([\d,]+)\}', whole[1])] if whole else []


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(','))
