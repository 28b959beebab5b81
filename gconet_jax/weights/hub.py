"""Models on the Hugging Face hub, by 'user/name'."""

import re
from pathlib import Path

from gconet_jax.errors import InputError

HUB_ID = re.compile(r'\w[\w.-]*/[\w.-]+')
FILES = ('.safetensors', '.npz', '.pth', '.pt')


def is_hub_id(text: str) -> bool:
    """Whether the name of nothing that is here may be that of a model, not of a mistyped file."""
    return HUB_ID.fullmatch(text) is not None and not text.endswith(FILES)


def fetch(name: str) -> Path:
    """The folder of a model of the hub, fetched once and kept in the hub's own cache.

    Raises:
        InputError: huggingface-hub is not installed, or the model cannot be had.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise InputError(
            f'{name} is no file or folder here; to fetch it from the Hugging Face hub, '
            "pip install 'gconet-jax[hub]'"
        ) from error
    try:
        patterns = ['*.safetensors', 'config.json', 'README.md']
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # of the network, the hub or the name
        raise InputError(f'{name} could not be fetched from the hub: {error}') from error


def push(folder: Path, name: str) -> None:
    """Puts a folder of `weights.folder.save_folder` on the hub.

    Raises:
        InputError: huggingface-hub is not installed, or the hub refuses.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise InputError(f"{error}; pip install 'gconet-jax[hub]'") from error
    try:
        api = HfApi()
        api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder)
    except Exception as error:  # of the network, the hub or the name
        raise InputError(f'{folder} could not be put on the hub as {name}: {error}') from error
