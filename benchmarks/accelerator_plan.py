"""The rows of accelerator.py, most important first, and their sizes."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks import accelerator_ours, accelerator_torch, parity


class Row(NamedTuple):
    """One row: the process that measures it, the function to call there, and the time it needs."""

    section: str
    name: str
    worker: str  # 'ours', 'kernel' (a failure may crash its process) or 'torch'
    function: Callable[..., dict[str, Any]]
    settings: dict[str, Any]
    seconds: float  # minimum time left to start it


class Sizes(NamedTuple):
    """The inputs of the rows."""

    width: float  # of our network
    size: int  # height and width of images, pixels
    released: tuple[int, int]  # pairs, and images per group, in the released training step
    paper: tuple[int, int]  # the same in the paper's step
    groups: tuple[int, ...]  # group sizes for inference
    compiled: tuple[int, ...]  # group sizes for torch.compile and for our single program
    similarity: tuple[int, ...]  # group sizes, most important first
    evaluations: tuple[str, ...]  # golden cases, the first in every precision
    trainings: tuple[str, ...]  # golden training cases, the first in every precision
    float32: bool  # also measure float32, and the gradients' parity in every precision
    chip: dict[str, int]


FULL = Sizes(
    width=1.0,
    size=256,
    released=(2, 26),
    paper=(1, 32),
    groups=(40, 10, 200, 2),
    compiled=(10, 40),
    similarity=(32, 128, 8),
    evaluations=('eval_n5_256', 'eval_n3_128x192_k300', 'eval_n1_128'),
    trainings=('train_n3_128_k300', 'train_n3_128_k50', 'train_n4_128x96_unfrozen'),
    float32=True,
    chip={'n': 8192, 'megabytes': 4096, 'products': 8},
)
TINY = Sizes(
    width=0.125,
    size=32,
    released=(2, 2),
    paper=(1, 2),
    groups=(2, 3),
    compiled=(2,),
    similarity=(2,),
    evaluations=('eval_n1_128',),
    trainings=('train_n3_128_k300',),
    float32=False,
    chip={'n': 256, 'megabytes': 4, 'products': 2},
)


def plan(sizes: Sizes) -> list[Row]:
    """Return all rows in the order in which they run."""
    released, paper = sizes.released, sizes.paper
    first, *others = sizes.evaluations
    return [
        Row('chip', 'rates', 'ours', accelerator_ours.chip, dict(sizes.chip), 10),
        Row('chip', 'PyTorch', 'torch', accelerator_torch.versions, {}, 5),
        Row('chip', 'operations', 'ours', accelerator_ours.operations, {'width': sizes.width}, 5),
        _evaluation(first, 'highest'),
        _our_step(sizes, released, 'bfloat16'),
        _their_step(sizes, released, 'bfloat16', False),
        *_our_maps(sizes, sizes.groups, 'bfloat16'),
        *_their_maps(sizes, sizes.groups, 'bfloat16', False),
        *_similarity(sizes.similarity, 'bfloat16'),
        *_trainings(sizes.trainings[:2], 'highest'),
        *(_evaluation(case, 'highest') for case in others),
        _their_step(sizes, released, 'bfloat16', True),
        *(_evaluation(first, precision) for precision in ('default', 'bfloat16')),
        _our_step(sizes, paper, 'bfloat16'),
        _their_step(sizes, paper, 'bfloat16', False),
        *_their_maps(sizes, sizes.compiled[:1], 'bfloat16', True),
        *_at_once(sizes, sizes.compiled[:1], 'bfloat16'),
        *(_float32(sizes) if sizes.float32 else ()),
        *_compiled_similarity(sizes.similarity[:1]),
        *_their_maps(sizes, sizes.compiled[1:], 'bfloat16', True),
        *_at_once(sizes, sizes.compiled[1:], 'bfloat16'),
        *_trainings(sizes.trainings[2:], 'highest'),
        _their_step(sizes, paper, 'bfloat16', True),
    ]


def _float32(sizes: Sizes) -> Iterator[Row]:
    yield from _similarity(sizes.similarity, 'float32')
    yield from _our_maps(sizes, sizes.groups[:2], 'float32')
    yield from _their_maps(sizes, sizes.groups[:2], 'float32', False)
    yield from _trainings(sizes.trainings[:1], 'default', 'bfloat16')
    yield _our_step(sizes, sizes.released, 'float32')
    yield _their_step(sizes, sizes.released, 'float32', False)


def _evaluation(case: str, precision: str) -> Row:
    settings = {'case': case, 'precision': precision}
    return Row('parity', f'{case} {precision}', 'ours', parity.evaluation, settings, 10)


def _trainings(cases: tuple[str, ...], *precisions: str) -> Iterator[Row]:
    for case in cases:
        for precision in precisions:
            settings = {'case': case, 'precision': precision}
            yield Row('parity', f'{case} {precision}', 'ours', parity.training, settings, 15)


def _our_step(sizes: Sizes, shape: tuple[int, int], precision: str) -> Row:
    pairs, images = shape
    settings = {'pairs': pairs, 'images': images, 'size': sizes.size, 'precision': precision}
    name = f'ours {pairs}x2x{images} {precision}'
    run = accelerator_ours.train_step
    return Row('train', name, 'ours', run, settings | {'width': sizes.width}, 30)


def _their_step(sizes: Sizes, shape: tuple[int, int], precision: str, compiled: bool) -> Row:
    pairs, images = shape
    settings = {'pairs': pairs, 'images': images, 'size': sizes.size, 'precision': precision}
    name = f'{_torch(compiled)} {pairs}x2x{images} {precision}'
    run, seconds = accelerator_torch.train_step, 45 if compiled else 12
    return Row('train', name, 'torch', run, settings | {'compiled': compiled}, seconds)


def _our_maps(sizes: Sizes, groups: tuple[int, ...], precision: str) -> Iterator[Row]:
    for images in groups:
        settings = {'images': images, 'size': sizes.size, 'precision': precision}
        name, run = f'ours, predict {images} {precision}', accelerator_ours.predict
        yield Row('inference', name, 'ours', run, settings | {'width': sizes.width}, 10)


def _at_once(sizes: Sizes, groups: tuple[int, ...], precision: str) -> Iterator[Row]:
    for images in groups:
        settings = {'images': images, 'size': sizes.size, 'precision': precision}
        name, run = f'ours, one program {images} {precision}', accelerator_ours.predict_at_once
        yield Row('inference', name, 'ours', run, settings | {'width': sizes.width}, 15)


def _their_maps(
    sizes: Sizes, groups: tuple[int, ...], precision: str, compiled: bool
) -> Iterator[Row]:
    for images in groups:
        settings = {'images': images, 'size': sizes.size, 'precision': precision}
        name, run = f'{_torch(compiled)} {images} {precision}', accelerator_torch.predict
        seconds = 30 if compiled else 5
        yield Row('inference', name, 'torch', run, settings | {'compiled': compiled}, seconds)


def _similarity(counts: tuple[int, ...], dtype: str) -> Iterator[Row]:
    for images in counts:
        settings = {'images': images, 'dtype': dtype}
        for form in ('einsum', 'blockwise', 'pallas'):
            worker = 'kernel' if form == 'pallas' else 'ours'
            name, run = f'{form} {images} {dtype}', accelerator_ours.similarity
            yield Row('similarity', name, worker, run, settings | {'form': form}, 8)
        name, run = f'PyTorch {images} {dtype}', accelerator_torch.similarity
        yield Row('similarity', name, 'torch', run, settings | {'compiled': False}, 4)


def _compiled_similarity(counts: tuple[int, ...]) -> Iterator[Row]:
    for images in counts:
        settings = {'images': images, 'dtype': 'bfloat16', 'compiled': True}
        name, run = f'{_torch(True)} {images} bfloat16', accelerator_torch.similarity
        yield Row('similarity', name, 'torch', run, settings, 20)


def _torch(compiled: bool) -> str:
    return 'PyTorch, compiled' if compiled else 'PyTorch'
