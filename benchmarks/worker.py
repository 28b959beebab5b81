"""A process that runs functions on request and can be stopped, so that a crash costs one call."""

import contextlib
import multiprocessing
import time
import traceback
from collections.abc import Callable
from typing import Any


class CallError(Exception):
    """A call raised, crashed its process or ran out of time; the message says which."""


class Worker:
    """A process that starts with the first call, and again after a call that ended it."""

    def __init__(self) -> None:
        self._process: Any = None
        self._connection: Any = None

    def start(self) -> None:
        """Start the process if it is not running, without waiting for it."""
        if self._process is None:
            context = multiprocessing.get_context('spawn')
            self._connection, other = context.Pipe()
            # Daemons may not start processes, but torch.compile does.
            self._process = context.Process(target=_serve, args=(other,))
            self._process.start()
            other.close()

    def call(self, function: Callable[..., Any], settings: dict[str, Any], seconds: float) -> Any:
        """Return `function(**settings)`, computed in the process.

        Raises:
            CallError: the function raised, the process died, or `seconds` ran out.
        """
        self.start()
        self._connection.send((function, settings))
        if not self._connection.poll(max(seconds, 0)):
            self.stop()
            raise CallError(f'stopped after {seconds:.0f} s')
        try:
            result, error = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            self.stop()
            raise CallError(f'the process died with exit code {code}') from None
        if error:
            if 'CUDA' in error:  # after such an error, later calls in the process fail too
                self.stop()
            raise CallError(error)
        return result

    def stop(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(connection: Any) -> None:
    with contextlib.suppress(EOFError, KeyboardInterrupt):  # the other process has ended
        while True:
            function, settings = connection.recv()
            start = time.perf_counter()
            try:
                result, error = function(**settings), ''
                result['seconds'] = time.perf_counter() - start
            except Exception as problem:
                traceback.print_exc()
                result, error = None, f'{type(problem).__name__}: {problem}'
            connection.send((result, error))
