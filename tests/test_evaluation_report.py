"""The HTML report on scored maps."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from gconet_jax.evaluation import curves
from gconet_jax.evaluation.comparison import paired_bootstrap
from gconet_jax.evaluation.report import write_report
from gconet_jax.evaluation.scores import ImageScores, ScoredImage, SetScores
from gconet_jax.input_pipeline.files import DataError

CURVES = ('fmeasure', 'emeasure', 'iou', 'dice', 'precision', 'recall', 'false_positive_rate')
NASTY = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Texts, pictures and links of a page; fails on unbalanced tags."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.sources, self.alts = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == 'img':
            self.sources.append(dict(attrs)['src'])
            self.alts.append(dict(attrs)['alt'])
        if tag not in ('meta', 'img'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def random_run(folder, groups, seed, shift=0.0):
    """Return random scores of small pictures, which all methods share."""
    rng = np.random.default_rng(seed)
    images = []
    for group, count in groups.items():
        for i in range(count):
            photo = folder / f'{i}.png' if i else None
            images.append(
                ScoredImage(group, f'{i}', photo, folder / 'gt.png', folder / 'map.png', False)
            )
    n = len(images)
    scores = ImageScores._make(
        rng.uniform(0.1, 0.7, (n, 9) if name in CURVES else n) + shift
        for name in ImageScores._fields
    )
    confidence = np.zeros((n, 256))
    confidence[:, [0, 12, 13, 242, 243]] = 0.5, 0.1, 0.2, 0.1, 0.1
    scores = scores._replace(confidence=confidence)
    return SetScores('CoCA', 'eval-co-sod', tuple(images), scores)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(1, 4):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(tmp_path / f'{i}.png')
    truth = np.zeros((30, 40), np.uint8)
    truth[5:20, 10:30] = 255
    Image.fromarray(truth).save(tmp_path / 'gt.png')
    Image.fromarray(rng.integers(0, 256, (15, 20), np.uint8)).save(tmp_path / 'map.png')
    return tmp_path


@pytest.fixture
def board(folder):
    groups = {NASTY: 4, 'bee & co': 3, 'cat': 2}
    mine = [random_run(folder, groups, seed) for seed in (0, 1)]
    return {'CoCA': {'mine': mine, 'theirs <i>': [random_run(folder, groups, 2, 0.3)]}}


def page_of(board, path, **options):
    write_report(board, path, title='A <title>', **options)
    text = path.read_text(encoding='utf-8')
    return text, Page(text)


def test_page_stands_alone(board, tmp_path):
    text, page = page_of(board, tmp_path / 'new' / 'report.html', notes=['one & two', NASTY])
    assert list((tmp_path / 'new').iterdir()) == [tmp_path / 'new' / 'report.html']
    assert 'http' not in text
    assert not {'script', 'link', 'iframe'} & set(page.tags)
    assert not re.search(r'url\(|@import| on\w+=', text)
    assert all(source.startswith('data:image/') for source in page.sources)
    assert '<script' not in text
    assert '<title>A &lt;title&gt;</title>' in text
    assert '<li>one &amp; two</li>' in text
    assert '<td>theirs &lt;i&gt;</td>' in text
    assert NASTY in page.texts


def test_pictures_decode(board, tmp_path):
    _, page = page_of(board, tmp_path / 'report.html')
    kinds = [source.split(';')[0] for source in page.sources]
    assert kinds.count('data:image/svg+xml') == 4
    assert kinds.count('data:image/jpeg') == 5 + 4  # half of the 9 images count as the worst
    for source in page.sources:
        content = base64.b64decode(source.split(',')[1], validate=True)
        if 'svg' in source[:20]:
            assert b'</svg>' in content
        else:
            picture = Image.open(io.BytesIO(content))
            assert picture.size == (4 * 147 + 3 * curves.GAP, curves.TILE)  # 4 tiles of ratio 4:3


def test_images_go_from_worst_to_best(board, tmp_path):
    first = board['CoCA']['mine'][0]
    first.scores.smeasure[:] = [0.5, np.nan, 0.9, 0.1, 0.4, 0.3, 0.8, 0.7, 0.6]
    _, page = page_of(board, tmp_path / 'report.html')
    order = [3, 5, 4, 0, 2, 6, 7, 8]
    expected = [f'{first.images[i].group}/{first.images[i].name}' for i in order]
    assert page.alts[4:] == expected
    assert 'Worst images by S of mine, run 1' in page.texts


def test_groups_go_from_worst_to_best(board, tmp_path):
    for run in board['CoCA']['mine']:
        run.scores.smeasure[:] = [np.nan] * 4 + [0.6, np.nan, 0.8, 0.2, 0.4]
    text, _ = page_of(board, tmp_path / 'report.html')
    table = text[text.index('<th>group</th>') :]
    rows = re.findall(r'<tr><td>(.*?)</td><td>(\d)</td><td>(.*?)</td>', table)
    assert [(row[0], row[1], row[2][-5:]) for row in rows] == [
        ('cat', '2', '0.300'),
        ('bee &amp; co', '3', '0.700'),
        (NASTY.replace('<', '&lt;').replace('>', '&gt;').replace('"', '&quot;'), '4', 'nan'),
    ]
    assert 'width: 30.0%' in rows[0][2]


def test_many_groups_fold(folder, tmp_path):
    run = random_run(folder, {f'g{i:03}': 1 for i in range(160)}, 0)
    text, _ = page_of({'x': {'mine': [run]}}, tmp_path / 'report.html')
    assert '... 145 between' in text
    assert '<summary>All 160 groups</summary>' in text
    assert text.count('<td>g') == 15 + 160
    assert 'Differences' not in text, 'there is one method'


def test_numbers_of_the_page(board, tmp_path):
    text, page = page_of(board, tmp_path / 'report.html')
    mine, (theirs,) = board['CoCA'].values()
    mae = [run.scores.mae.mean() for run in mine]
    assert f'{np.mean(mae):.3f} ± {np.std(mae, ddof=1):.3f}' in ' '.join(page.texts)
    assert '<td>paper, best (DUTS_class + COCO-SEG)</td><td>0.814</td>' in text
    # 12 / 255 is within 0.05 of 0 and 243 / 255 of 1; 13 / 255 and 242 / 255 are not.
    assert 'Pixels within 0.05 of 0 or 1: 70.0 % for mine, 70.0 % for theirs &lt;i&gt;.' in text
    found = paired_bootstrap(mine, [theirs])
    for metric, name, verdict in [('mae', 'MAE', 'worse'), ('max_emeasure', 'max E', 'better')]:
        value, low, high = (f'{number:+.3f}' for number in found[metric])
        row = f'<td>{name}</td><td>{value}</td><td>{low} to {high}</td><td>yes, {verdict}</td>'
        assert row in text


def test_missing_photograph_is_blank_and_missing_map_an_error(board, folder, tmp_path):
    blank = board['CoCA']['mine'][0].images[0]
    assert blank.image is None
    picture = Image.open(io.BytesIO(base64.b64decode(curves.strip(blank).split(',')[1])))
    assert np.ptp(np.asarray(picture)[:, :140]) <= 2
    (folder / 'map.png').unlink()
    with pytest.raises(DataError, match=r'map\.png'):
        page_of(board, tmp_path / 'report.html')
    assert not (tmp_path / 'report.html').exists()


def test_colours_of_errors():
    pixels, truth = Image.new('L', (1, 1), 255), Image.new('L', (1, 1), 0)
    assert curves.error(pixels, truth).getpixel((0, 0)) == (255, 0, 0)
    assert curves.error(truth, pixels).getpixel((0, 0)) == (0, 0, 255)
    assert curves.error(pixels, pixels).getpixel((0, 0)) == (255, 255, 255)


def test_styles_of_many_methods_differ():
    assert len({curves.style(i) for i in range(21)}) == 21


def test_same_scores_give_the_same_page(board, tmp_path):
    assert page_of(board, tmp_path / 'a.html')[0] == page_of(board, tmp_path / 'b.html')[0]


def test_every_smeasure_undefined(board, tmp_path):
    for runs in board['CoCA'].values():
        for run in runs:
            run.scores.smeasure[:] = np.nan
    text, page = page_of(board, tmp_path / 'report.html')
    assert 'S is undefined under eval-co-sod for 9 of 9 images' in text
    assert len(page.alts) == 4, 'no image can be called the worst'
