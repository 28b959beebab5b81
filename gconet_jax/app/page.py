"""The page, and the server of it."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.themes import Default

from gconet_jax.app.group import (
    PICTURES,
    SIDE,
    Group,
    Limits,
    Predict,
    decode,
    example,
    find,
    pictures,
    shrink,
    take,
    write_zip,
)

SHOWN = 640  # pixels, the longer side of pictures on the page; in the zip they are whole
KEPT = 3600  # seconds
VISITORS = 50  # whose groups are in memory, at most; those of the longest ago go first
WAITING = 20  # requests, at most; who comes later is told so
# As many pictures in a row as there is room for, two at least; no scroll bars about a few.
CSS = """
.grid-wrap { min-height: 0 !important; overflow: auto !important; }
.grid-container {
  grid-template-columns: repeat(auto-fill, minmax(min(45%, 220px), 1fr)) !important;
}
"""
EXPLANATION = """# What do these photos share?

Drop photos that have one kind of thing in common. The network compares them and finds that thing
in each, without being told what it is; what only some of the photos show is left out. A single
photo has nothing to be compared with: of that, you see what stands out."""
KEEPING = f"""Photos are worked on at no more than {SIDE} pixels a side. Uploads are files on this
server until they are read, and deleted then. What is made of them is deleted after about
{KEPT // 60} minutes, and so is an upload that arrived but was not read, as happens when the server
is busy. What is left of an upload that broke off, and all else, goes when the server stops. *Start
over* removes photos and maps from its memory at once."""


def serve(
    predictor: Predict, *, host: str = '127.0.0.1', port: int = 7860, limits: Limits | None = None
) -> None:
    """Serves the page until it is interrupted or terminated; one group is predicted at a time.

    Gradio stores uploads before anything here sees them, and has one limit of the limits then: no
    file is larger than `limits.megabytes`. The number of files and their total are checked when
    they are read. `app` says how long what is kept.

    Args:
        predictor: RGB uint8 (H, W, 3) each -> float32 (H, W) in [0, 1] each.
        host: the address to listen at; the default is for browsers on this machine alone.
        port: the port there.
        limits: for each visitor; `Limits()` if not given.

    Raises:
        OSError: the port is taken, or the address is not of this machine.
    """
    limits = limits or Limits()
    # So that SIGTERM, too, ends in the removal of the folder.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder_before = os.environ.get('GRADIO_TEMP_DIR')
    try:
        with tempfile.TemporaryDirectory(prefix='gconet-jax-') as folder:
            os.environ['GRADIO_TEMP_DIR'] = folder
            build(predictor, limits).launch(
                server_name=host,
                server_port=port,
                share=False,
                max_file_size=f'{limits.megabytes}mb',
                state_session_capacity=VISITORS,
                theme=Default(font=['system-ui', 'sans-serif'], font_mono=['monospace']),
                css=CSS,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
            )
    finally:
        signal.signal(signal.SIGTERM, before)
        if folder_before is None:
            os.environ.pop('GRADIO_TEMP_DIR', None)
        else:
            os.environ['GRADIO_TEMP_DIR'] = folder_before


def build(predictor: Predict, limits: Limits) -> gr.Blocks:
    """The page. Each visitor has a group of their own; requests wait in one queue."""
    with gr.Blocks(
        analytics_enabled=False, title='What do these photos share?', delete_cache=(60, KEPT)
    ) as page:
        group = gr.State((), time_to_live=KEPT)
        gr.Markdown(EXPLANATION)
        drop = gr.File(file_count='multiple', label='Photos', height=160, elem_id='drop')
        with gr.Row():
            start = gr.Button('Find what they share', variant='primary', elem_id='find')
            draw = gr.Button('Try an example', elem_id='example')
            clear = gr.Button('Start over', elem_id='clear')
        status = gr.Textbox(label='What happened', lines=2, interactive=False, elem_id='status')
        chosen = _gallery('Photos', 'photos')
        threshold = gr.Slider(
            maximum=1,
            value=0,
            step=0.01,
            buttons=[],
            label='Threshold',
            info='What reaches it belongs to the object. At 0, each photo gets one of its own.',
            elem_id='threshold',
        )
        with gr.Tabs():
            galleries = []
            for name in PICTURES:
                with gr.Tab(name.capitalize()):
                    galleries.append(_gallery(name.capitalize(), name))
        pack = gr.Button('Pack all of it as a zip', elem_id='pack')
        download = gr.DownloadButton('Download the zip', visible=False, elem_id='download')
        gr.Markdown(KEEPING)

        made = [*galleries, download]
        photos = [group, status, drop, chosen, *made]
        _on(drop.upload, lambda files, group: taken(files, group, limits), [drop, group], photos)
        _on(draw.click, lambda: _photos(example(), 'A drawn group is ready.'), None, photos)
        _on(clear.click, lambda: _photos((), ''), None, photos)
        _on(
            start.click,
            lambda group, threshold: found(predictor, group, threshold),
            [group, threshold],
            [group, status, *made],
        )
        _on(threshold.change, shown, [group, threshold], made)
        _on(pack.click, packed, [group, threshold], [status, download])
    return page.queue(max_size=WAITING, default_concurrency_limit=1)


def taken(files: Sequence[str], group: Group, limits: Limits) -> list[Any]:
    """Values of the page after an upload."""
    new, words = take(files, group, limits)
    if new is group:  # nothing has come; what is shown stays
        return [group, words, None, *[gr.skip()] * (len(PICTURES) + 2)]
    return _photos(new, words)


def found(predictor: Predict, group: Group, threshold: float) -> list[Any]:
    """Values of the page for the group with its maps, which are predicted once."""
    if not group:
        return [group, 'There are no photos yet: drop some first.', *shown((), 0)]
    group = group if all(photo.map for photo in group) else find(predictor, group)
    words = 'What they share' if len(group) > 1 else 'What stands out in this one photo'
    return [group, f'{words} is below.', *shown(group, threshold)]


def shown(group: Group, threshold: float) -> list[Any]:
    """Values of the galleries; a zip that was packed before is not of them any more."""
    galleries: dict[str, list[tuple[np.ndarray, str]]] = {kind: [] for kind in PICTURES}
    for photo in group:
        for kind, picture in pictures(photo, threshold, side=SHOWN).items() if photo.map else ():
            galleries[kind].append((picture, photo.name))
    return [*galleries.values(), gr.update(value=None, visible=False)]


def packed(group: Group, threshold: float) -> Iterator[list[Any]]:
    """The page has its own copy of the zip when this goes on after it has yielded."""
    if not any(photo.map for photo in group):
        yield ['There is nothing to pack yet.', gr.skip()]
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'shared.zip'
        write_zip(path, group, threshold)
        yield ['The zip is packed.', gr.update(value=str(path), visible=True)]


def _photos(group: Group, words: str) -> list[Any]:
    """Values of the page for a group without maps."""
    small = [(shrink(decode(photo.pixels), SHOWN), photo.name) for photo in group]
    return [group, words, None, small, *shown((), 0)]


def _gallery(label: str, name: str) -> gr.Gallery:
    return gr.Gallery(
        label=label,
        format='png' if name in ('masks', 'cutouts') else 'jpeg',
        height='auto',
        object_fit='contain',
        interactive=False,
        buttons=['fullscreen'],
        elem_id=name,
    )


def _on(event: Callable[..., Any], handler: Callable[..., Any], inputs: Any, made: Any) -> None:
    """None but the page calls the handler; of requests that come meanwhile the last one counts."""
    event(handler, inputs, made, api_visibility='private', trigger_mode='always_last')
