"""Checks before JAX starts, so that users read a one-line error instead of a crash."""

import functools
import glob
import io
import os
import pkgutil
import re
import subprocess
import sys
from importlib import metadata, util

from gconet_jax.errors import InputError

PACKAGE = 'gconet-jax'
# Created by the NVIDIA driver on Linux and under WSL. JAX supports no NVIDIA GPUs elsewhere.
GPU_FILES = ('/dev/nvidia[0-9]*', '/usr/lib/wsl/lib/libcuda.so*')
# XLA parses XLA_FLAGS when it first needs its options, and aborts the process on invalid flags.
READ_XLA_FLAGS = 'from jaxlib import xla_client; xla_client.CompileOptions()'
XLA_TIMEOUT_SECONDS = 60


def check_environment() -> None:
    """Check JAX and its settings, print warnings, and make all text printable.

    This does not start JAX in this process. It takes a few milliseconds, or half a second if
    XLA_FLAGS is set.

    Raises:
        InputError: JAX is too old, or XLA rejects XLA_FLAGS.
    """
    escape_unprintable()
    check_jax_version()
    check_xla_flags(os.environ.get('XLA_FLAGS', ''))
    if 'JAX_PLATFORMS' not in os.environ:
        warn_of_unused_gpu()


def escape_unprintable() -> None:
    """Make stdout and stderr escape characters that their encoding lacks, instead of failing.

    File names of photos may have any characters, and pipes on Windows often use cp1252.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == 'strict':
            stream.reconfigure(errors='backslashreplace')


def check_jax_version() -> None:
    """Compare the installed version of JAX with the range that this package declares.

    A newer JAX may work, so it only causes a warning.

    Raises:
        InputError: JAX is too old.
    """
    from packaging.requirements import Requirement

    try:
        declared = metadata.requires(PACKAGE) or []
        installed = metadata.version('jax')
    except metadata.PackageNotFoundError:  # a source tree that is not installed
        return
    for requirement in map(Requirement, declared):
        if requirement.name != 'jax' or requirement.marker is not None:
            continue
        for bound in requirement.specifier:
            if bound.contains(installed, prereleases=True):
                continue
            text = (
                f'JAX {installed} is installed, and {PACKAGE} needs jax{requirement.specifier}: '
                f"run pip install 'jax{requirement.specifier}'"
            )
            if not bound.operator.startswith('<'):
                raise InputError(text)
            _warn(text)


@functools.cache
def check_xla_flags(flags: str) -> None:
    """Check XLA_FLAGS in a subprocess, where an abort does no harm.

    Raises:
        InputError: XLA rejects a flag or its value, or cannot read its file of flags.
    """
    if not flags.strip():
        return
    try:
        done = subprocess.run(
            [sys.executable, '-c', READ_XLA_FLAGS],
            env={**os.environ, 'XLA_FLAGS': flags},
            capture_output=True,
            encoding='utf-8',
            errors='replace',
            timeout=XLA_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return  # XLA itself will report what is wrong
    reason = re.search(r"(Unknown flags? in|Couldn't interpret|Could not open).*", done.stderr)
    if done.returncode and reason:
        raise InputError(
            f'XLA does not accept the environment variable XLA_FLAGS: {reason[0]}; correct it, or '
            'unset XLA_FLAGS'
        )


def warn_of_unused_gpu() -> None:
    """Warn if this machine has an NVIDIA GPU and JAX has no plugin to use it."""
    if any(map(glob.glob, GPU_FILES)) and not _jax_plugins():
        _warn(
            "JAX cannot use this machine's GPU and runs on the CPU: pip install "
            f"'{PACKAGE}[cuda13]' (or [cuda12] for an older driver) changes that, and "
            'JAX_PLATFORMS=cpu silences this line'
        )


def _jax_plugins() -> set[str]:
    """Return the names of JAX's accelerator plugins, from both places where JAX looks."""
    found = {entry.name for entry in metadata.entry_points(group='jax_plugins')}
    package = util.find_spec('jax_plugins')
    if package is not None:
        modules = pkgutil.iter_modules(package.submodule_search_locations)
        found |= {module.name for module in modules}
    return found


def _warn(text: str) -> None:
    print(f'warning: {text}', file=sys.stderr)
