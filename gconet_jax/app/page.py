"""The web page and its server."""

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

SHOWN = 640  # pixels, longest side of pictures on the page; those in the zip are larger
KEPT = 3600  # seconds
VISITORS = 50  # most groups in memory; the oldest are dropped first
WAITING = 20  # most requests in the queue; further ones are refused
# Rows of as many pictures as fit, at least two; no scroll bars around a few pictures.
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
    """Serve the page until it is interrupted or terminated, predicting one group at a time.

    Gradio stores uploads before this code sees them. At that point it only limits the size of each
    file to `limits.megabytes`; the number of files and their total size are checked when they are
    read. The docstring of `gconet_jax.app` says how long data is kept.

    Args:
        predictor: maps RGB images, uint8 (H, W, 3) each, to float32 (H, W) in [0, 1] each.
        host: address to listen on; the default accepts connections from this machine only.
        port: port to listen on.
        limits: limits for each visitor; `Limits()` by default.

    Raises:
        OSError: the port is in use, or the address does not belong to this machine.
    """
    limits = limits or Limits()
    # On SIGTERM, too, the temporary folder must be removed.
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
    """Build the page. Each visitor has their own group; all requests share one queue."""
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
    """Return the values of the page's components after an upload."""
    new, words = take(files, group, limits)
    if new is group:  # nothing was added, so leave the page as it is
        return [group, words, None, *[gr.skip()] * (len(PICTURES) + 2)]
    return _photos(new, words)


def found(predictor: Predict, group: Group, threshold: float) -> list[Any]:
    """Return the page's values for a group with maps, which are predicted if missing."""
    if not group:
        return [group, 'There are no photos yet: drop some first.', *shown((), 0)]
    group = group if all(photo.map for photo in group) else find(predictor, group)
    words = 'What they share' if len(group) > 1 else 'What stands out in this one photo'
    return [group, f'{words} is below.', *shown(group, threshold)]


def shown(group: Group, threshold: float) -> list[Any]:
    """Return the values of the galleries, and hide the download of an outdated zip."""
    galleries: dict[str, list[tuple[np.ndarray, str]]] = {kind: [] for kind in PICTURES}
    for photo in group:
        for kind, picture in pictures(photo, threshold, side=SHOWN).items() if photo.map else ():
            galleries[kind].append((picture, photo.name))
    return [*galleries.values(), gr.update(value=None, visible=False)]


def packed(group: Group, threshold: float) -> Iterator[list[Any]]:
    """Pack the zip and yield the page's values.

    Gradio copies the zip before it resumes this generator, so the temporary folder can be deleted
    after the yield.
    """
    if not any(photo.map for photo in group):
        yield ['There is nothing to pack yet.', gr.skip()]
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'shared.zip'
        write_zip(path, group, threshold)
        yield ['The zip is packed.', gr.update(value=str(path), visible=True)]


def _photos(group: Group, words: str) -> list[Any]:
    """Return the page's values for a group without maps."""
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
    """Attach a private handler to an event; while it runs, only the last new event is kept."""
    event(handler, inputs, made, api_visibility='private', trigger_mode='always_last')
