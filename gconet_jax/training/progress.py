"""Console output of a run: one progress line, and messages above it."""

import contextlib
import time
from collections.abc import Iterator

import jax
import numpy as np
from tqdm import tqdm


def say(text: str) -> None:
    """Print `text` above the progress line, from the first process only."""
    if jax.process_index() == 0:
        tqdm.write(text)


class Progress:
    """The progress line: steps, time left, loss, images per second, share of time spent waiting."""

    def __init__(self, first: int, steps: int):
        self._bar = tqdm(initial=first, total=steps, unit='step', disable=jax.process_index() != 0)
        self._begin()

    def _begin(self) -> None:
        self._steps, self._images, self._waited = 0, 0, 0.0
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside the block as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Exclude the time inside the block from the report."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def count(self, valid: np.ndarray) -> None:
        """Count one step. `valid` is False where an image of this process is padding."""
        self._steps += 1
        self._images += int(valid.sum()) * jax.process_count()
        self._bar.update()

    def report(self, loss: float) -> dict[str, float]:
        """Show the speed since the last report and start a new measurement.

        Returns:
          `steps_per_second`, `images_per_second`, and `waiting`, a share of the time in [0, 1].
        """
        elapsed = time.perf_counter() - self._since
        scalars = {
            'steps_per_second': self._steps / elapsed,
            'images_per_second': self._images / elapsed,
            'waiting': self._waited / elapsed,
        }
        self._begin()
        self._bar.set_postfix_str(
            f'loss {loss:.4g}, {scalars["images_per_second"]:.3g} images/s, '
            f'{100 * scalars["waiting"]:.0f} % waiting'
        )
        return scalars

    def close(self) -> None:
        """Close the bar and leave it on the screen."""
        self._bar.close()
