"""Conversion of configs to and from the form of the command line and `config.json`."""

import dataclasses
from typing import Any, get_args, get_type_hints

import ml_collections

from gconet_jax.config import Config, ConfigError


def as_config_dict(config: Config) -> ml_collections.ConfigDict:
    """Return `config` as the `ConfigDict` that `--config` needs, with its set of fields locked."""
    return ml_collections.ConfigDict(dataclasses.asdict(config))


def from_config_dict(values: Any) -> Config:
    """Build a `Config` from a `ConfigDict` or from the mapping read from `config.json`.

    Raises:
      ConfigError: a field is unknown, or its type or value is wrong.
    """
    return _build(Config, values, '')


def _build(cls: type, values: Any, prefix: str) -> Any:
    hints = get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f'config.{prefix}{", ".join(unknown)}: no such field')
    arguments = {}
    for name, value in values.items():
        kind = hints[name]
        if dataclasses.is_dataclass(kind):
            arguments[name] = _build(kind, value, f'{prefix}{name}.')  # type: ignore[arg-type]
        else:
            arguments[name] = _typed(kind, value, prefix + name)
    return cls(**arguments)


def _typed(kind: Any, value: Any, field: str) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if kind in (bool, int, float, str):
        if type(value) is not kind:
            raise ConfigError(f'config.{field}: {value!r} is not of type {kind.__name__}')
        return value
    item = get_args(kind)[0]  # tuple[item, ...]
    if not isinstance(value, (tuple, list)):
        raise ConfigError(f'config.{field}: {value!r} is not a tuple of {item.__name__}')
    return tuple(_typed(item, each, field) for each in value)
