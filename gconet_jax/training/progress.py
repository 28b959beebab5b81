"""What a run says while it goes: one line of progress, and lines above it."""

import contextlib
import time
from collections.abc import Iterator

import jax
import numpy as np
from tqdm import tqdm


def say(text: str) -> None:
    """Prints above the line of progress, from the first process alone."""
    if jax.process_index() == 0:
        tqdm.write(text)


class Progress:
    """The line of progress: steps, time left, loss, images a second, share of time waiting."""

    def __init__(self, first: int, steps: int):
        self._bar = tqdm(initial=first, total=steps, unit='step', disable=jax.process_index() != 0)
        self._begin()

    def _begin(self) -> None:
        self._steps, self._images, self._waited = 0, 0, 0.0
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time within as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leaves the time within out of the report."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def count(self, valid: np.ndarray) -> None:
        """Counts one step, whose images of this process are `valid` or padding."""
        self._steps += 1
        self._images += int(valid.sum()) * jax.process_count()
        self._bar.update()

    def report(self, loss: float) -> dict[str, float]:
        """Shows how fast the steps since the last report went, begins anew.

        Returns:
          `steps_per_second`, `images_per_second`, and `waiting`, a share of the time.
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
        """Leaves the bar where it is."""
        self._bar.close()
