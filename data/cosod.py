"""TFDS builders of the co-saliency sets.

The sets are DUTS_class, COCO-9k, COCO-SEG, CoCA, CoSOD3k, CoSal2015, iCoseg, MSRC and Image Pair.
The builders need no TensorFlow and write ArrayRecord.

`python data/prepare.py` runs them; TFDS itself can too:

    import data.cosod, tensorflow_datasets as tfds
    tfds.builder('coca', data_dir='data/sets').download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir='/downloads/cosod'))
"""

import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image
from tqdm import tqdm

from data.verify import published_counts, verified
from gconet_jax.input_pipeline.files import ImageFile, open_image
from gconet_jax.input_pipeline.groups import Group, load_groups, skippable_by
from gconet_jax.input_pipeline.layouts import prepared_name

DRIVE = 'https://drive.google.com/drive/folders/1jRJKv56QSa3gOp4w_64tVmzNMT_te-Kv'
SHARD = 512  # images per shard
RESEARCH = 'The authors state no licence; the images belong to their owners. Research use.'


class CoSODBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Base class of the builders, for a set of groups of images.

    Attributes:
        DATASET: name of the set in configs.
        SPLIT: 'train' or 'test', according to its usual purpose.
        GROUPS, IMAGES: published counts; None where the publications disagree.
    """

    VERSION = tfds.core.Version('1.0.0')
    DATASET = ''
    SPLIT = ''
    GROUPS: int | None = None
    IMAGES: int | None = None
    HOMEPAGE = ''
    LICENCE = RESEARCH
    CITATION = ''

    def __init__(self, *, skip_bad: bool = False, **arguments: Any) -> None:
        """Create the builder; with `skip_bad` unusable images are skipped instead of raising."""
        self._skip_bad = skip_bad
        arguments['file_format'] = 'array_record'
        super().__init__(**arguments)

    @property
    def MANUAL_DOWNLOAD_INSTRUCTIONS(self) -> str:  # noqa: N802 - TFDS's name
        """Where the archive is, and what to do with it."""
        return (
            f'{self.DATASET} has to be downloaded by hand: {self.DATASET} at {DRIVE} (the GCoNet+ '
            f"authors' collection; the set's own page is {self.HOMEPAGE}). Unpack it, and give the "
            'folder that holds images/ and gts/, or that of the set, as the source.'
        )

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f'{self.DATASET}: groups of images, each with the mask of the object that '
            'its group shares. Masks are 0 to 255.',
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(None, None, 3)),
                    'mask': tfds.features.Image(shape=(None, None, 1)),
                    'group': tfds.features.ClassLabel(),
                    'name': tfds.features.Text(),
                }
            ),
            homepage=self.HOMEPAGE,
            license=self.LICENCE,
            citation=self.CITATION,
            metadata=tfds.core.MetadataDict(),
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Any]]:
        source = Path(dl_manager.manual_dir)
        journal = Path(self.data_dir_root) / f'.{prepared_name(self.DATASET)}.verified'
        with skippable_by('--skip-bad'):
            groups = load_groups(source, self.DATASET, skip_bad=self._skip_bad)
            published_counts(source, self.DATASET, groups, self.GROUPS, self.IMAGES)
            groups = verified(groups, journal, skip_bad=self._skip_bad)
        info: Any = self.info
        info.features['group'].names = [group.name for group in groups]
        # The order of the records, so that a reader knows the groups without opening records.
        info.metadata['groups'] = [
            [group.name, [image.stem for image in group.images]] for group in groups
        ]
        places = [(group, i) for group in groups for i in range(len(group.images))]
        bar = tqdm(total=len(places), desc=f'writing {self.DATASET}', unit='image')
        shards = [places[i : i + SHARD] for i in range(0, len(places), SHARD)]
        return {self.SPLIT: [functools.partial(_examples, shard, bar) for shard in shards]}


def _examples(
    places: list[tuple[Group, int]], bar: tqdm
) -> Iterator[tuple[str, dict[str, object]]]:
    for group, i in places:
        image, mask = group.images[i], group.masks[i]
        yield (
            f'{group.name}/{image.stem}',
            {
                'image': _encoded(image, 'RGB'),
                'mask': _encoded(mask, 'L'),
                'group': group.name,
                'name': image.stem,
            },
        )
        bar.update()


def _encoded(file: ImageFile, mode: str) -> bytes:
    """Return the file unchanged if readers expect its format and mode, or else as PNG."""
    content = file.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        if image.format in ('JPEG', 'PNG') and image.mode == mode:
            return content
    buffer = io.BytesIO()
    open_image(file, mode).save(buffer, 'PNG')
    return buffer.getvalue()


class DUTSClass(CoSODBuilder):
    """Salient objects of DUTS by class (Zhang et al., 2020)."""

    name = 'duts_class'
    DATASET, SPLIT, GROUPS, IMAGES = 'DUTS_class', 'train', 291, 8250
    HOMEPAGE = 'https://mmcheng.net/gicd/'
    CITATION = """@inproceedings{zhang2020gicd,
  title = {Gradient-Induced Co-Saliency Detection},
  author = {Zhang, Zhao and Jin, Wenda and Xu, Jun and Cheng, Ming-Ming},
  booktitle = {ECCV}, year = {2020}}"""


class COCO9k(CoSODBuilder):
    """9,213 images of COCO in 65 groups."""

    name = 'coco_9k'
    DATASET, SPLIT, GROUPS, IMAGES = 'COCO-9k', 'train', 65, 9213
    HOMEPAGE = 'https://cocodataset.org/'
    CITATION = """@inproceedings{wei2017group,
  title = {Group-wise Deep Co-saliency Detection},
  author = {Wei, Lina and Zhao, Shanshan and El Farouk Bourahla, Omar and Li, Xi and Wu, Fei},
  booktitle = {IJCAI}, year = {2017}}"""


class COCOSEG(CoSODBuilder):
    """About 200,000 images of COCO in 78 groups."""

    name = 'coco_seg'
    DATASET, SPLIT, GROUPS = 'COCO-SEG', 'train', 78
    HOMEPAGE = 'https://cocodataset.org/'
    CITATION = """@inproceedings{wang2019robust,
  title = {Robust Deep Co-Saliency Detection With Group Semantic},
  author = {Wang, Chong and Zha, Zheng-Jun and Liu, Dong and Xie, Hongtao},
  booktitle = {AAAI}, year = {2019}}"""


class CoCA(CoSODBuilder):
    """The hardest of the test sets: every image also shows objects other than the shared one."""

    name = 'coca'
    DATASET, SPLIT, GROUPS, IMAGES = 'CoCA', 'test', 80, 1295
    HOMEPAGE = 'https://mmcheng.net/gicd/'
    CITATION = DUTSClass.CITATION


class CoSOD3k(CoSODBuilder):
    """160 groups in the wild."""

    name = 'cosod3k'
    DATASET, SPLIT, GROUPS, IMAGES = 'CoSOD3k', 'test', 160, 3316
    HOMEPAGE = 'http://dpfan.net/CoSOD3K/'
    CITATION = """@article{fan2022rethinking,
  title = {Re-thinking Co-Salient Object Detection},
  author = {Fan, Deng-Ping and Li, Tengpeng and Lin, Zheng and Ji, Ge-Peng and Zhang, Dingwen and
    Cheng, Ming-Ming and Fu, Huazhu and Shen, Jianbing},
  journal = {IEEE TPAMI}, year = {2022}}"""


class CoSal2015(CoSODBuilder):
    """50 groups."""

    name = 'cosal2015'
    DATASET, SPLIT, GROUPS, IMAGES = 'CoSal2015', 'test', 50, 2015
    HOMEPAGE = 'https://github.com/ZhengPeng7/GCoNet_plus'
    CITATION = """@article{zhang2016detection,
  title = {Detection of Co-salient Objects by Looking Deep and Wide},
  author = {Zhang, Dingwen and Han, Junwei and Li, Chao and Wang, Jingdong and Li, Xuelong},
  journal = {IJCV}, year = {2016}}"""


class ICoseg(CoSODBuilder):
    """38 groups, mostly of one scene each."""

    name = 'icoseg'
    DATASET, SPLIT, GROUPS, IMAGES = 'iCoseg', 'test', 38, 643
    HOMEPAGE = 'http://chenlab.ece.cornell.edu/projects/touch-coseg/'
    CITATION = """@inproceedings{batra2010icoseg,
  title = {iCoseg: Interactive Co-segmentation with Intelligent Scribble Guidance},
  author = {Batra, Dhruv and Kowdle, Adarsh and Parikh, Devi and Luo, Jiebo and Chen, Tsuhan},
  booktitle = {CVPR}, year = {2010}}"""


class MSRC(CoSODBuilder):
    """Object classes; publications use 7 to 14 of its groups."""

    name = 'msrc'
    DATASET, SPLIT = 'MSRC', 'test'
    HOMEPAGE = 'https://www.microsoft.com/en-us/research/project/image-understanding/'
    CITATION = """@inproceedings{winn2005object,
  title = {Object Categorization by Learned Universal Visual Dictionary},
  author = {Winn, John and Criminisi, Antonio and Minka, Thomas},
  booktitle = {ICCV}, year = {2005}}"""


class ImagePair(CoSODBuilder):
    """Pairs of images, the first co-saliency set."""

    name = 'image_pair'
    DATASET, SPLIT, GROUPS, IMAGES = 'ImagePair', 'test', 105, 210
    HOMEPAGE = 'https://doi.org/10.1109/TIP.2011.2156803'
    CITATION = """@article{li2011cosaliency,
  title = {A Co-Saliency Model of Image Pairs},
  author = {Li, Hongliang and Ngan, King Ngi},
  journal = {IEEE TIP}, year = {2011}}"""


BUILDERS = {
    builder.DATASET: builder
    for builder in (DUTSClass, COCO9k, COCOSEG, CoCA, CoSOD3k, CoSal2015, ICoseg, MSRC, ImagePair)
}
