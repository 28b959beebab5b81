"""Run the commands of the documentation on small data, and list those skipped, with reasons.

    python -m tests.run_docs_commands [PART]

The commands run in a temporary folder, with synthetic groups instead of the public sets and a run
of one step instead of the runs that pages name. Training commands are made small. All other
commands keep the words of the page, except for data paths. With PART, only commands that contain it
run. Returns 1 if a command failed.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data import synthetic
from tests import doc_blocks

ROOT = doc_blocks.ROOT
BASE = 'runs/duts_coco'
# Data paths on the pages -> paths here.
PLACES = {
    '/data/cosod': 'cosod',
    '/downloads/cosod': 'cosod',
    'FOLDER': BASE,
}
# Flags that make a training command small; they replace the values of the page.
SMALL = {
    '--config.data.image_size': '32',
    '--config.data.max_images': '2',
    '--config.data.group_sizes': '(2,)',
    '--config.data.workers': '0',
    '--config.train.steps': '1',
    '--config.run.picture_every': '0',
}
DROPPED = ('--config.train.backbone_weights',)  # ImageNet weights are not available here
LEFT_OUT = {
    r'^(python|gconet-jax) \S+$': 'a name, or runs until it is stopped',
    r'\.\.\.': 'a pattern',
    r'^make ': 'a target of its own: minutes, or these tests',
    r'^pip ': 'changes the environment',
    r'benchmarks/': 'a measurement, for an idle machine',
    r'--coordinator|--processes': 'needs several machines',
    r'--push': 'needs the hub',
    r'--calibrate': 'needs ImageNet weights',
    r'PASCAL|--maps=blob|runs/first|runs/identity': 'needs sets that are not here',
}


def main(part: str = '') -> int:
    """Run the commands and return the exit status."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        prepare(here)
        for command in doc_blocks.commands():
            text = shlex.join(command.words)
            if part not in text:
                continue
            reason = next((why for what, why in LEFT_OUT.items() if re.search(what, text)), '')
            if reason:
                print(f'left out  {command}\n          {reason}', flush=True)
                continue
            words = small(command.words) if is_training(command.words) else list(command.words)
            make_runs(here, words)
            failed += not run(here, words, str(command))
    print(f'{failed} failed')
    return 1 if failed else 0


def prepare(here: Path) -> None:
    """Create sets, photos, maps, weights and a run under the names that the pages use."""
    for name in ('train.py', 'evaluate.py', 'predict.py', 'configs', 'gconet_jax'):
        (here / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / 'data', here / 'data')
    synthetic.generate(here / 'base', size=64, train=(3, 3), test=(2, 3))
    for kind in ('images', 'gts'):
        for name in ('DUTS_class', 'COCO-SEG', 'COCO-9k'):
            shutil.copytree(here / 'base' / kind / 'synthetic_train', here / 'cosod' / kind / name)
        for name in ('CoCA', 'CoSOD3k', 'CoSal2015'):
            shutil.copytree(here / 'base' / kind / 'synthetic_test', here / 'cosod' / kind / name)
    shutil.copytree(here / 'cosod', here / 'data' / 'sets', dirs_exist_ok=True)  # default root
    photos = next((here / 'base' / 'images' / 'synthetic_test').iterdir())
    for name in ('photos', 'five'):
        shutil.copytree(photos, here / name)
    for name in ('GCoNet', 'GICD', 'mine', 'theirs'):
        shutil.copytree(here / 'cosod' / 'gts', here / 'maps' / name)
    base = ('python', 'train.py', '--config=configs/duts_coco.py', '--config.data.root=cosod')
    assert run(here, [*small(base), f'--workdir={BASE}'], 'base run')
    assert run(here, ['gconet-jax', 'convert', BASE, 'gconet.pth'], 'base weights')
    (here / 'model.pth').symlink_to('gconet.pth')


def is_training(words: tuple[str, ...]) -> bool:
    return words[1] == 'train.py' or words[:2] == ('gconet-jax', 'train')


def small(words: tuple[str, ...]) -> list[str]:
    """Return a training command of one step, with its own folder."""
    kept = [word for word in words if not word.startswith((*SMALL, *DROPPED))]
    kept = [word.replace('--workdir=runs/', '--workdir=trained/') for word in kept]
    return [*kept, *(f'{name}={value}' for name, value in SMALL.items())]


def make_runs(here: Path, words: list[str]) -> None:
    """Link the run of `prepare` under each name in runs/ that a command reads."""
    if is_training(tuple(words)):
        return
    read = [word for word in words if word.startswith(('--workdir=', '--model='))]
    read += words[2:3] if words[:2] == ['gconet-jax', 'convert'] else []
    for name in re.findall(r'runs/[\w/]+', ' '.join(read)):
        if not (here / name / 'config.json').exists():
            (here / name).mkdir(parents=True)
            shutil.copy(here / BASE / 'config.json', here / name)
            (here / name / 'checkpoints').symlink_to(here / BASE / 'checkpoints')


def run(here: Path, words: list[str], name: str) -> bool:
    for place, ours in PLACES.items():
        words = [re.sub(rf'(?<![\w/]){place}(?!\w)', ours, word) for word in words]
    if words[0] == 'gconet-jax':
        words = ['-c', 'import sys; from gconet_jax.cli import main; sys.exit(main())', *words[1:]]
    else:
        words = words[1:]
    cache = Path(tempfile.gettempdir()) / f'gconet-jax-tests-{os.getuid()}'
    env = {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': str(cache)}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *words], cwd=here, env=os.environ | env, capture_output=True, text=True
    )
    seconds = time.monotonic() - began
    print(f'{"failed" if done.returncode else "ran":9} {name} ({seconds:.0f} s)', flush=True)
    if done.returncode:
        print((done.stderr or done.stdout)[-2000:])
    return done.returncode == 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
