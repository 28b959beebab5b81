"""Download and upload of models on the Hugging Face hub."""

import re
from pathlib import Path

from gconet_jax.errors import InputError

HUB_ID = re.compile(r'\w[\w.-]*/[\w.-]+')
FILES = ('.safetensors', '.npz', '.pth', '.pt')


def is_hub_id(text: str) -> bool:
    """Return True if `text` looks like a hub id, 'user/name', and not like a file of weights."""
    return HUB_ID.fullmatch(text) is not None and not text.endswith(FILES)


def fetch(name: str) -> Path:
    """Download a model from the hub, or take it from the hub's cache; return its folder.

    Raises:
        InputError: huggingface-hub is not installed, or the model cannot be downloaded.
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
    """Upload a folder written by `weights.folder.save_folder` to the hub.

    Raises:
        InputError: huggingface-hub is not installed, or the upload failed.
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
