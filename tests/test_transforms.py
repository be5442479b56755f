"""An image becomes an input as the papers say: every step against its definition, against Pillow, and where it is there, torchvision."""

import collections
import fractions
import math
import pickle
import warnings
import weakref

import numpy as np
import pytest
from PIL import Image

from minicnn import data
from minicnn.data import transforms as tf
from minicnn.data.picture import Picture
from minicnn.data.transforms import (
    CenterCrop,
    ColourJitter,
    Compose,
    MeanImage,
    MeanPixel,
    Normalize,
    PCAColour,
    RadialDistortion,
    RandomCrop,
    RandomMirror,
    RandomResizedCrop,
    Resize,
    Rotate,
    ScaleJitter,
    Stretch,
    ToArray,
    Translate,
    all_terms,
    paper_test,
    paper_train,
    torchvision_test,
)
from minicnn.data.transforms.colour import IMAGENET_VALUES, IMAGENET_VECTORS, recoloured
from minicnn.data.transforms.lens import bent
from minicnn.data.transforms.motions import rotated, stretched, translated
from minicnn.data.transforms.step import Step

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
MEAN, STD = np.array([123.7, 116.3, 103.5]), np.array([58.4, 57.1, 57.4])
COVARIANCE = np.array([[3000.0, 2500, 2000], [2500, 2800, 2400], [2000, 2400, 3100]])

# One of every kind, and an image for it.
STEPS = {
    "Resize": Resize(10), "ScaleJitter": ScaleJitter(5, 40), "CenterCrop": CenterCrop(7), "RandomCrop": RandomCrop(9, padding=2, within=14),
    "RandomResizedCrop": RandomResizedCrop(8, (0.3, 0.9), (0.5, 1.5)), "RandomMirror": RandomMirror(), "Rotate": Rotate(30, fill=9),
    "Translate": Translate(0.3, fill=7), "Stretch": Stretch(1.4), "RadialDistortion": RadialDistortion(0.25),
    "Normalize": Normalize(MEAN, STD), "MeanPixel": MeanPixel([0.1, 1 / 3, 104]), "MeanImage": MeanImage(PHOTO / 3), "ToArray": ToArray(),
    "PCAColour": PCAColour(COVARIANCE / 7, sigma=0.2), "ColourJitter": ColourJitter(0.4, 0.3, 0.2),
    "Compose": Compose(Resize(10), RandomCrop(8), PCAColour(COVARIANCE), Normalize(0.1, 3)),
}


class Items:
    """A data set of these images, all of class 0."""

    def __init__(self, *images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], 0


@pytest.fixture(scope="module")
def photos():
    return dict(data.photos())


@pytest.fixture(scope="module")
def tv():
    """torchvision's transforms."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torchvision import transforms
            from torchvision.transforms import functional  # noqa: F401
        except (ImportError, RuntimeError, OSError) as error:           # not there, or not for the torch that is
            pytest.skip(f"no torchvision: {error}")
    return transforms


def smooth(height, width, channels=3):
    """A smooth photograph of bytes: what is sampled between its pixels is near them."""
    y, x = np.mgrid[:height, :width]
    return np.stack([128 + 100 * np.sin((c + 1) * y / height + x / width * (3 - c)) for c in range(channels)], axis=2).astype(np.uint8)


# ---- of every step

def test_every_kind_of_step_is_tested_here():
    kinds = {name for name, value in vars(tf).items() if isinstance(value, type) and issubclass(value, Step)}
    assert kinds == set(STEPS)
    assert kinds <= set(tf.__all__)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_says_how_it_was_made_and_survives_pickling(name):
    step = STEPS[name]
    copies = [pickle.loads(pickle.dumps(step))]
    if name != "MeanImage":                     # an image is too long for a repr: that tells its shape
        copies.append(eval(repr(step), vars(tf).copy()))
    for copy in copies:
        assert repr(copy) == repr(step)
        np.testing.assert_array_equal(np.asarray(copy(PHOTO, np.random.default_rng(3))), np.asarray(step(PHOTO, np.random.default_rng(3))))
    assert repr(step).startswith(name + "(")
    assert "\n" not in repr(step)


def test_reprs():
    assert repr(STEPS["Compose"].steps[0]) == "Resize(size=10)"
    assert repr(STEPS["RandomCrop"]) == "RandomCrop(size=9, padding=2, within=14)"
    assert repr(MeanPixel([0.1, 2, 3])) == "MeanPixel(mean=[0.1, 2.0, 3.0])"
    assert repr(STEPS["MeanImage"]) == "MeanImage(mean_image=<array 20 x 30 x 3>)"
    assert repr(Compose(Resize(10), RandomMirror())) == "Compose(Resize(size=10), RandomMirror())"


@pytest.mark.parametrize("name", STEPS)
def test_a_step_draws_the_same_numbers_whatever_the_image_is(name):
    """Or what the next step does to an image would depend on that image's size."""
    step, photo = STEPS[name], Picture(Image.fromarray(PHOTO))
    images = [PHOTO, PHOTO[:, :20], photo, PHOTO.astype(np.float32), np.repeat(PHOTO, 11, axis=0)]
    if name == "ColourJitter":
        images.pop(3)                           # it wants bytes
    if name == "MeanImage":
        images = images[2:4]                    # it wants one size
    states = []
    for image in images:
        rng = np.random.default_rng(5)
        step(image, rng)
        states.append(rng.bit_generator.state)
    assert all(state == states[0] for state in states)
    assert (states[0] != np.random.default_rng(5).bit_generator.state) == step.random


@pytest.mark.parametrize("name", STEPS)
def test_a_step_seeded_twice_does_the_same_and_leaves_its_image_alone(name):
    step, before = STEPS[name], PHOTO.copy()
    results = [np.asarray(step(PHOTO, np.random.default_rng(seed))) for seed in (0, 0, *range(1, 30))]
    np.testing.assert_array_equal(results[0], results[1])
    assert any(not np.array_equal(results[0], other) for other in results[2:]) == step.random
    np.testing.assert_array_equal(PHOTO, before)


@pytest.mark.parametrize("name", [name for name in STEPS if name not in ("ColourJitter",)])
def test_floats_go_the_same_way_as_bytes(name):
    bytes_first = np.asarray(STEPS[name](PHOTO, np.random.default_rng(3)))
    floats = np.asarray(STEPS[name](PHOTO.astype(np.float32), np.random.default_rng(3)))
    assert floats.dtype == np.float32
    assert floats.shape == bytes_first.shape
    np.testing.assert_allclose(floats, bytes_first, atol=1.01)           # bytes are rounded, in Pillow once per direction


@pytest.mark.parametrize("name", [name for name in STEPS if name not in ("Normalize", "PCAColour", "MeanImage", "MeanPixel", "Compose")])
def test_grey_images_stay_grey(name):
    grey = STEPS[name](PHOTO[..., :1], np.random.default_rng(3))
    assert grey.shape[2] == 1
    as_colours = np.asarray(STEPS[name](np.repeat(PHOTO[..., :1], 3, axis=2), np.random.default_rng(3)))
    np.testing.assert_allclose(np.asarray(grey)[..., 0], as_colours[..., 0], atol=1)


MISTAKES = [
    (lambda: Resize(0), "Resize: size is a whole number of pixels, at least 1, not 0"),
    (lambda: Resize(2.5), "Resize: size is a whole number of pixels, at least 1, not 2.5"),
    (lambda: CenterCrop(True), "CenterCrop: size is a whole number of pixels"),
    (lambda: ScaleJitter(480, 256), "ScaleJitter: high is a whole number of pixels, at least 480, not 256"),
    (lambda: RandomCrop(10, padding=-1), "RandomCrop: padding is a whole number of pixels, at least 0, not -1"),
    (lambda: RandomCrop(10, within=9), "RandomCrop: within is a whole number of pixels, at least 10, not 9"),
    (lambda: RandomResizedCrop(10, scale=(0, 1)), r"scale\[0\] is a number from 0 to 1 \(and not 0\), not 0"),
    (lambda: RandomResizedCrop(10, scale=(0.5, 0.2)), r"scale\[1\] is a number from 0.5 to 1, not 0.2"),
    (lambda: RandomResizedCrop(10, ratio=2), r"ratio is a pair \(least, greatest\), not 2"),
    (lambda: Rotate(-3), "Rotate: degrees is a number from 0 to 180, not -3"),
    (lambda: Rotate(float("nan")), "Rotate: degrees is a number from 0 to 180, not nan"),
    (lambda: Rotate(3, fill=1000), "Rotate: fill is a number from -255 to 255, not 1000"),
    (lambda: Translate("half"), "Translate: fraction is a number from 0 to 1, not 'half'"),
    (lambda: Stretch(0.5), "Stretch: ratio is a number from 1 to 10, not 0.5"),
    (lambda: RadialDistortion(0.5), "RadialDistortion: strength is a number from 0 to 0.3, not 0.5"),
    (lambda: ColourJitter(contrast=-0.1), "ColourJitter: contrast is a number from 0 to 1, not -0.1"),
    (lambda: MeanPixel([[1, 2], [3, 4]]), "MeanPixel: mean is one number, or one for each channel"),
    (lambda: MeanPixel(np.nan), "MeanPixel: mean is one number, or one for each channel, not nan"),
    (lambda: Normalize(0, [1, 0]), "Normalize: std is positive"),
    (lambda: PCAColour(np.ones((2, 3))), "PCAColour: a covariance is a square of numbers"),
    (lambda: PCAColour(np.triu(COVARIANCE)), "PCAColour: a covariance is symmetric"),
    (lambda: PCAColour(-COVARIANCE), "PCAColour: a covariance has no negative eigenvalues"),
    (lambda: PCAColour(COVARIANCE, sigma=-1), "PCAColour: sigma is a number from 0 to 10, not -1"),
    (lambda: MeanImage(MEAN), "MeanImage: an image is uint8 or float32"),
    (lambda: MeanImage.fit(Items(), 8), "MeanImage.fit: no images to look at"),
    (lambda: PCAColour.fit(Items(PHOTO[:1, :1])), "one pixel has none"),
    (lambda: tf.channel_statistics(Items(PHOTO, PHOTO[..., :1])), "image 1 has 1 channels, those before have 3"),
    (lambda: Resize(5)(PHOTO[0]), r"Resize: an image is uint8 or float32 \(H, W, channels\) .*, not uint8 of shape \(30, 3\)"),
    (lambda: Resize(5)(PHOTO[:0]), r"with some pixels, not uint8 of shape \(0, 30, 3\)"),
    (lambda: Resize(5)(PHOTO.astype(np.float64)), "an image is uint8 or float32"),
    (lambda: RandomResizedCrop(5)(None, RNG), "RandomResizedCrop: an image is .* not None"),
    (lambda: CenterCrop(21)(PHOTO), r"CenterCrop: a 21 x 21 crop does not fit into an image of 20 x 30; put Resize\(21\) or more"),
    (lambda: RandomCrop(25, padding=2)(PHOTO, RNG), "RandomCrop: a 25 x 25 crop does not fit into an image of 24 x 34"),
    (lambda: STEPS["MeanImage"](PHOTO[:8, :9]), "MeanImage: an image of 8 x 9 x 3 minus a mean image of 20 x 30 x 3; put Resize"),
    (lambda: ColourJitter(0.1)(PHOTO.astype(np.float32), RNG), "ColourJitter: bytes with 1 or 3 channels are wanted, not float32 with 3"),
    (lambda: MeanPixel(MEAN)(PHOTO[..., :1]), "MeanPixel: numbers for 3 channels, but the image has 1"),
    (lambda: PCAColour(COVARIANCE)(PHOTO[..., :1], RNG), "PCAColour: numbers for 3 channels, but the image has 1"),
    (lambda: all_terms([Normalize(1), Normalize(MEAN, STD)], None, channels=1), "Normalize: numbers for 3 channels, but the image has 1"),
    (lambda: paper_train(0), "size is a whole number of pixels"),
]


@pytest.mark.parametrize("mistake, message", MISTAKES, ids=[message[:40] for _, message in MISTAKES])
def test_mistakes_get_one_clear_message(mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake()


def test_a_list_of_steps_and_missing_dice_are_mistakes_too():
    with pytest.raises(TypeError, match=r"write Compose\(first, second\), without a list"):
        Compose([Resize(5)])
    with pytest.raises(TypeError, match=r"Compose\(RandomMirror\(\)\) has chance in it: call it as transform\(image, numpy.random"):
        Compose(RandomMirror())(PHOTO)


# ---- how large, and which part

@pytest.mark.parametrize("name", ["china", "retina", "rocket", "coffee"])
@pytest.mark.parametrize("size", [64, 256, 700])
def test_resize_is_pillows_of_the_whole_picture_and_a_crop_computes_the_same(photos, name, size):
    photo = photos[name]
    H, W = photo.shape[:2]
    h, w = (size, int(size * W / H)) if H < W else (int(size * H / W), size)
    whole = np.asarray(Image.fromarray(photo).resize((w, h), Image.Resampling.BILINEAR))
    for image in (photo, Picture(Image.fromarray(photo))):
        picture = Resize(size)(image)
        assert picture.shape == (h, w, 3)
        np.testing.assert_array_equal(np.asarray(picture), whole)
        piece = CenterCrop(60)(picture)
        top, left = round((h - 60) / 2), round((w - 60) / 2)
        difference = np.abs(piece.astype(int) - whole[top:top + 60, left:left + 60])
        assert difference.max() <= 2                # Pillow rounds where the crop begins to float32
        assert difference.mean() < 0.1              # a pixel beside it would be off by far more


def test_scale_jitter_draws_every_side_equally():
    rng, jitter = np.random.default_rng(0), ScaleJitter(20, 29)
    sides = collections.Counter(min(jitter(PHOTO, rng).shape[:2]) for _ in range(5000))
    assert sorted(sides) == list(range(20, 30))
    assert all(abs(n - 500) < 5 * math.sqrt(450) for n in sides.values())
    assert (ScaleJitter().low, ScaleJitter().high) == (256, 480)


def test_random_crops_within_come_from_everywhere_in_the_middle_and_from_nowhere_else():
    image = np.arange(8 * 20, dtype=np.uint8).reshape(8, 20, 1)             # the middle 6 x 6: rows 1..6, columns 7..12
    rng = np.random.default_rng(0)
    corners = collections.Counter(int(RandomCrop(4, within=6)(image, rng)[0, 0, 0]) for _ in range(4500))
    assert sorted(corners) == [20 * row + column for row in (1, 2, 3) for column in (7, 8, 9)]
    assert all(abs(n - 500) < 5 * math.sqrt(500) for n in corners.values())
    narrow = {RandomCrop(4, within=12)(image, rng).tobytes() for _ in range(2000)}          # lower than `within`: all of its height
    assert len(narrow) == 5 * 9


def test_random_resized_crop_draws_area_and_shape_uniformly_and_every_place():
    """Where every part fits, the first of the ten draws decides: area is uniform, and so is the logarithm of width / height."""
    H, W, step, rng = 400, 500, RandomResizedCrop(224, (0.1, 0.3), (0.5, 2)), np.random.default_rng(0)
    parts = np.array([step.part(H, W, rng.random((10, 4))) for _ in range(4000)], float)
    top, left, h, w = parts.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= H).all()
    assert (left + w <= W).all()
    for sample in ((h * w / (H * W) - 0.1) / 0.2, np.log(w / h) / np.log(4) + 0.5, top / (H - h), left / (W - w)):
        distance = np.abs(np.sort(sample) - (np.arange(4000) + 0.5) / 4000).max()           # Kolmogorov's
        assert distance < 1.95 / math.sqrt(4000)            # exceeded by chance once in a thousand
    areas_apart = np.corrcoef(h * w, np.log(w / h))[0, 1]
    assert abs(areas_apart) < 5 / math.sqrt(4000)


def test_random_resized_crop_tries_again_and_falls_back_to_the_middle():
    step = RandomResizedCrop(10, (0.9, 1.0), (3 / 4, 4 / 3))
    draws = np.full((10, 4), 0.5)
    draws[3] = [0, 0.9, 0.0, 1.0]               # the first that fits into 100 x 130
    draws[:3, 1] = 0.05                         # too high
    h, w = round(math.sqrt(0.9 * 13000 / (3 / 4 * (16 / 9) ** 0.9))), round(math.sqrt(0.9 * 13000 * (3 / 4 * (16 / 9) ** 0.9)))
    assert w <= 130
    assert h <= 100
    draws[3, 3] = 0.999
    assert step.part(100, 130, draws) == (0, 130 - w, h, w)
    draws[:, 1] = 0.05
    assert step.part(100, 1000, draws) == (0, (1000 - 133) // 2, 100, 133)
    assert step.part(1000, 100, draws) == ((1000 - 133) // 2, 0, 133, 100)
    assert RandomResizedCrop(5, (1, 1), (1, 1)).part(30, 30, draws) == (0, 0, 30, 30)


@pytest.mark.parametrize("kind", ["array", "picture", "grey", "floats"])
def test_random_resized_crop_shows_the_part_that_was_drawn(kind):
    photo = smooth(90, 120)
    image = {"array": photo, "picture": Picture(Image.fromarray(photo)), "grey": photo[..., :1], "floats": photo.astype(np.float32)}[kind]
    step, draws = RandomResizedCrop(32), np.random.default_rng(4).random((10, 4))
    top, left, h, w = step.part(90, 120, draws)
    channel = Image.fromarray(np.asarray(image)[..., 0]).crop((left, top, left + w, top + h)).resize((32, 32), Image.Resampling.BILINEAR)
    got = step(image, np.random.default_rng(4))
    assert got.shape == (32, 32, image.shape[2])
    np.testing.assert_allclose(got[..., 0], np.asarray(channel), atol=2)         # at its border it sees the neighbours as well
    np.testing.assert_allclose(got[2:-2, 2:-2, 0], np.asarray(channel)[2:-2, 2:-2], atol=1)


def test_random_resized_crop_has_ten_tries():
    class Dice:
        def random(self, shape):
            draws = np.full(shape, 0.05)        # of 100 x 130 almost all, and high: does not fit
            draws[-1] = (0, 0.9, 0, 0)          # the last does
            assert shape == (10, 4)
            return draws

    columns = np.broadcast_to(np.arange(130, dtype=np.float32)[None, :, None], (100, 130, 1))
    cut = RandomResizedCrop(10, (0.9, 1.0))(columns, Dice())
    assert cut.min() < 10
    assert cut.max() < 122                      # from the left edge on, and not the fallback, which is all


@pytest.mark.parametrize("height, width", [(45, 60), (45, 110)])
def test_random_resized_crop_of_a_scaled_picture_is_that_of_its_pixels(height, width):
    picture = Picture(Image.fromarray(smooth(90, 120))).scaled(height, width)
    step = RandomResizedCrop(16)
    got, want = (step(image, np.random.default_rng(4)) for image in (picture, np.asarray(picture)))
    np.testing.assert_allclose(got, want.astype(float), atol=3)


def test_only_the_pixels_of_the_crop_are_computed():
    asked = []

    class Watched(Picture):
        def scaled(self, height, width):
            return Watched(self.image, height, width)

        def pixels(self, top, left, bottom, right):
            asked.append((bottom - top) * (right - left))
            return super().pixels(top, left, bottom, right)

    picture = Watched(Image.fromarray(smooth(600, 900)))
    jitter = Compose(Stretch(1.3), ScaleJitter(), RandomCrop(227), RandomMirror())
    for transform in (paper_train(), paper_test(), torchvision_test(227), jitter):
        assert transform(picture, np.random.default_rng(0)).shape == (227, 227, 3)
    assert asked == [227 * 227] * 4


# ---- turned, shifted, stretched, bent

def test_motions_of_nothing_change_nothing():
    for image in (PHOTO, PHOTO[..., :1], PHOTO.astype(np.float32)):
        for still in (Rotate(0), Translate(0), Stretch(1), RadialDistortion(0), ColourJitter()):
            if not (isinstance(still, ColourJitter) and image.dtype != np.uint8):
                np.testing.assert_array_equal(still(image, np.random.default_rng(0)), image)


def test_a_quarter_turn_is_counter_clockwise_and_exact():
    for image in (PHOTO[:, :20], PHOTO[:, :20, :1], PHOTO[:, :20].astype(np.float32)):
        np.testing.assert_array_equal(rotated(image, 90), np.rot90(image))
        np.testing.assert_array_equal(rotated(image, 180), image[::-1, ::-1])
    turned = rotated(PHOTO, 90, fill=200)               # 20 x 30: what is turned out is cut off, what is turned in is `fill`
    assert turned.shape == PHOTO.shape
    np.testing.assert_array_equal(turned[:, 5:25], np.rot90(PHOTO)[5:25])
    assert (turned[:, :5] == 200).all()
    assert (turned[:, 25:] == 200).all()


def test_rotation_about_the_centre_by_any_angle():
    """A smooth picture is known between its pixels: each new pixel shows the place that the rotation brings there."""
    y, x = np.mgrid[:60, :80].astype(np.float32) + 0.5
    image = (3 * x + 2 * y)[..., None]
    got, angle = rotated(image, 25, fill=-1)[..., 0], np.radians(25)
    from_x = np.cos(angle) * (x - 40) - np.sin(angle) * (y - 30) + 40
    from_y = np.sin(angle) * (x - 40) + np.cos(angle) * (y - 30) + 30
    inside = (from_x > 1) & (from_x < 79) & (from_y > 1) & (from_y < 59)
    assert 0.5 < inside.mean() < 0.95
    np.testing.assert_allclose(got[inside], (3 * from_x + 2 * from_y)[inside], atol=0.01)
    assert (got[(from_x < 0) | (from_x > 80) | (from_y < 0) | (from_y > 60)] == -1).all()


def test_translation_by_whole_pixels():
    for image in (PHOTO, Picture(Image.fromarray(PHOTO)), PHOTO.astype(np.float32)):
        moved = translated(image, 3, -4, fill=9)
        np.testing.assert_array_equal(moved[3:, :-4], PHOTO[:-3, 4:])
        assert (moved[:3] == 9).all()
        assert (moved[:, -4:] == 9).all()
        assert moved.dtype == image.dtype
    assert (translated(PHOTO, 20, 0, fill=1) == 1).all()
    assert (translated(PHOTO, -20, 30, fill=1) == 1).all()


def test_translation_reaches_both_ways_in_both_directions():
    image, rng = np.full((11, 21, 1), 5, np.uint8), np.random.default_rng(0)
    image[5, 10] = 255
    places = [divmod(int(Translate(0.2)(image, rng).argmax()), 21) for _ in range(2000)]
    rows, columns = ({place[i] for place in places} for i in (0, 1))
    assert rows == {3, 4, 5, 6, 7}
    assert columns == set(range(6, 15))


def test_stretching_makes_one_side_longer_and_none_shorter():
    rng = np.random.default_rng(0)
    shapes = np.array([Stretch(1.5)(PHOTO, rng).shape[:2] for _ in range(2000)])
    assert (shapes >= (20, 30)).all()
    assert (shapes <= (30, 45)).all()
    assert ((shapes == (20, 30)).any(axis=1)).all()
    assert 800 < (shapes[:, 0] > 20).sum() < 1100
    assert {20, 30} <= set(shapes[:, 0])
    assert {30, 45} <= set(shapes[:, 1])
    heights = np.array([Stretch(4)(PHOTO, rng).shape[0] for _ in range(2000)])
    assert abs(np.median(heights[heights > 20]) - 40) < 4                       # as often to less than double as to more
    want = np.asarray(Image.fromarray(PHOTO).resize((30, 26), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(np.asarray(stretched(PHOTO, 1.3, 1)), want)


@pytest.mark.parametrize("k", [-0.3, -0.1, 0.1, 0.3])
def test_a_lens_leaves_the_centre_and_makes_circles_of_circles(k):
    """The image holds each place's distance from the centre; bent, all pixels at one distance show one value, that of the formula."""
    H, W = 61, 81
    y, x = np.mgrid[:H, :W].astype(np.float32)
    R = math.hypot(H, W) / 2
    r = np.hypot(y - 30, x - 40)
    cone, angle = bent(r[..., None].astype(np.float32), k)[..., 0], np.arctan2(y - 30, x - 40)
    where = r * (1 + k * (r / R) ** 2) / (1 + max(k, 0))
    assert (where[r > 3] != r[r > 3]).all()
    np.testing.assert_allclose(cone[r > 3], where[r > 3], atol=0.1)
    assert cone[30, 40] == 0
    turned = bent(np.stack([np.cos(angle), np.sin(angle)], axis=2).astype(np.float32), k)
    far = r > 12
    np.testing.assert_allclose(turned[far], np.stack([np.cos(angle), np.sin(angle)], axis=2)[far], atol=0.02)      # directions stay


@pytest.mark.parametrize("k", [-0.3, 0.3])
def test_a_lens_leaves_no_corner_blank_and_no_value_that_was_not_there(k):
    image = smooth(40, 30)
    assert bent(image, k).dtype == np.uint8
    assert bent(image, k).min() >= image.min()
    assert bent(image, k).max() <= image.max()
    np.testing.assert_allclose(bent(image, k), bent(image.astype(np.float32), k), atol=0.5)
    np.testing.assert_array_equal(bent(image, k)[::-1, ::-1], bent(image[::-1, ::-1], k))
    corners = (0, 0, -1, -1), (0, -1, 0, -1)
    if k > 0:
        np.testing.assert_allclose(bent(image.astype(np.float32), k)[corners], image[corners], atol=5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_a_lens_before_a_thin_picture(shape):
    image = np.full((*shape, 3), 77, np.uint8)
    np.testing.assert_array_equal(bent(image, 0.2), image)


# ---- numbers and colours

def test_arithmetic_is_what_its_name_says():
    for step, want in [(Normalize(MEAN, STD), (PHOTO - MEAN) / STD), (Normalize(7), PHOTO - 7.0), (MeanPixel(MEAN), PHOTO - MEAN),
                       (MeanPixel(100), PHOTO - 100.0), (ToArray(), PHOTO / 255)]:
        for image in (PHOTO, PHOTO.astype(np.float32), Picture(Image.fromarray(PHOTO))):
            y = step(image)
            assert y.dtype == np.float32
            np.testing.assert_allclose(y, want, rtol=1e-6, atol=1e-5)


def test_the_mean_image_is_the_mean_of_the_middles():
    images = [RNG.integers(0, 256, shape, dtype=np.uint8) for shape in ((8, 8, 3), (8, 13, 3), (11, 8, 3))]
    want = (images[0].astype(float) + images[1][:, 2:10] + images[2][2:10]) / 3         # 2.5 and 1.5 to even numbers
    mean = MeanImage.fit(Items(*images), 8)
    np.testing.assert_allclose(mean.mean_image, want, rtol=1e-6)
    np.testing.assert_allclose(mean(images[0]), images[0] - want, atol=1e-4)
    assert not hasattr(mean, "terms")           # it is no arithmetic that is the same on every pixel
    np.testing.assert_allclose(MeanImage.fit(Items(*images), 8, most=1).mean_image, images[0])
    floats = MeanImage.fit(Items(*[image.astype(np.float32) for image in images]), 8)
    np.testing.assert_allclose(floats.mean_image, want, rtol=1e-6)


def test_the_mean_image_asks_for_photographs_no_larger_than_needed():
    class Lazy(Items):
        def picture(self, i, at_least):
            assert at_least == 8
            return Picture(Image.fromarray(self.images[i])), 0

    assert MeanImage.fit(Lazy(PHOTO, PHOTO), 8).mean_image.shape == (8, 8, 3)


def test_pca_colour_is_the_papers_sum():
    """p1 a1 l1 + p2 a2 l2 + p3 a3 l3 on every pixel; the roots of the l, since those are squares. The a are Gaussian."""
    values, vectors = np.linalg.eigh(COVARIANCE)
    draws = np.random.default_rng(7).normal(0, 0.1, 3)
    shift = sum(draws[i] * np.sqrt(values[i]) * vectors[:, i] for i in range(3))
    y = PCAColour(COVARIANCE)(PHOTO, np.random.default_rng(7))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, PHOTO + shift, rtol=1e-6)
    assert np.abs(shift).max() > 1


def test_pca_colours_shifts_vary_as_the_colours_do():
    """Of many shifts the mean is zero, and the covariance sigma^2 times that of the training set; not its square, nor an axis mixed up."""
    transform, rng, n = PCAColour(COVARIANCE, sigma=0.3), np.random.default_rng(1), 20_000
    shifts = np.array([transform.terms(rng)[0] for _ in range(n)], np.float64)
    deviations = 0.3 * np.sqrt(np.diag(COVARIANCE))
    assert (np.abs(shifts.mean(axis=0)) < 5 * deviations / np.sqrt(n)).all()
    np.testing.assert_allclose(np.cov(shifts.T), 0.09 * COVARIANCE, rtol=0.05)


def test_pca_colour_of_grey_pictures_stays_grey():
    """All colours of the training set are equal: one eigenvalue is not zero, and rounding makes none of the others negative."""
    shift, _ = PCAColour(np.full((3, 3), 2000.0)).terms(np.random.default_rng(0))
    assert np.isfinite(shift).all()
    assert abs(shift[0]) > 0.1
    np.testing.assert_allclose(shift, shift[0], rtol=1e-4)


def test_pca_colour_is_fitted_to_all_pixels_and_exactly():
    images = [RNG.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((5, 9), (30, 20), (1, 1))]
    pixels = np.concatenate([image.reshape(-1, 3) for image in images])
    np.testing.assert_allclose(PCAColour.fit(Items(*images)).covariance, np.cov(pixels.T.astype(float)), rtol=1e-12)
    np.testing.assert_allclose(PCAColour.fit(Items(*images), most=1).covariance, np.cov(images[0].reshape(-1, 3).T), rtol=1e-12)
    nearly_white = np.full((2000, 1000, 3), 255, np.uint8)                  # float32 sums, or a squared mean, would lose this
    nearly_white[7, 7, 0] = 254
    n = 2_000_000
    want = fractions.Fraction(1, n)             # of one that differs by 1 among n: (1 - 1/n) / (n - 1)
    assert PCAColour.fit(Items(nearly_white)).covariance[0, 0] == float(want)


def test_pca_colour_is_fitted_with_one_image_in_memory_at_a_time():
    alive, most = weakref.WeakSet(), []

    class Traced(np.ndarray):
        __hash__ = object.__hash__

    class Made:
        def __len__(self):
            return 20

        def __getitem__(self, i):
            image = np.full((4, 4, 3), i, np.uint8).view(Traced)
            alive.add(image)
            most.append(len(alive))
            return image, 0

    PCAColour.fit(Made())
    assert len(most) == 20
    assert max(most) <= 2


def test_the_imagenet_shift_is_that_of_published_code():
    """For pixels of 0 to 1 it adds  vectors @ (a * values), with a of N(0, 0.1); here for pixels of 0 to 255."""
    colour = PCAColour.imagenet()
    each = 255 * np.array(IMAGENET_VECTORS) * IMAGENET_VALUES           # columns: what a = (1, 0, 0), (0, 1, 0), (0, 0, 1) adds
    np.testing.assert_allclose(colour.components @ colour.components.T, each @ each.T, atol=1e-6)
    np.testing.assert_allclose(np.sort(np.linalg.norm(colour.components, axis=0))[::-1], 255 * np.array(IMAGENET_VALUES), rtol=2e-3)
    rng = np.random.default_rng(0)
    shifts = np.array([colour.terms(rng)[0] for _ in range(20_000)], float)
    np.testing.assert_allclose(np.cov(shifts.T), 0.01 * each @ each.T, rtol=0.06)
    assert 4 < np.sqrt((shifts ** 2).sum(axis=1).mean()) < 7            # some 5 levels of 255


def test_the_circulating_values_are_variances():
    """With them as eigenvalues each channel spreads by 0.28, as ImageNet's pixels do; with them as deviations by 0.13."""
    covariance = np.array(IMAGENET_VECTORS) @ np.diag(IMAGENET_VALUES) @ np.array(IMAGENET_VECTORS).T
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), 0.28, atol=0.012)


@pytest.mark.parametrize("factor", [0, 0.5, 1.3])
def test_colour_changes_against_their_formulas(factor):
    grey = np.rint(PHOTO @ np.array([0.299, 0.587, 0.114]))
    pixels = PHOTO.astype(float)
    for got, want in [(recoloured(PHOTO, factor, 1, 1), factor * pixels),
                      (recoloured(PHOTO, 1, factor, 1), grey.mean() + factor * (pixels - grey.mean())),
                      (recoloured(PHOTO, 1, 1, factor), grey[..., None] + factor * (pixels - grey[..., None]))]:
        assert got.dtype == np.uint8
        np.testing.assert_allclose(got, np.clip(want, 0, 255), atol=2)


def test_colour_jitter_draws_each_amount_from_its_range():
    white, rng = np.full((1, 1, 1), 100, np.uint8), np.random.default_rng(0)
    values = np.array([ColourJitter(brightness=0.5)(white, rng)[0, 0, 0] for _ in range(2000)])
    assert values.min() in (50, 51)
    assert values.max() in (149, 150)
    assert abs(values.mean() - 100) < 3.5
    assert (ColourJitter(contrast=1, saturation=1)(white, rng) == 100).all()


# ---- chains

def lazy(image, rng):
    return image


@pytest.mark.parametrize("steps, want", [
    ([Resize(256), RandomCrop(227)], 256), ([ScaleJitter(), RandomCrop(227)], 480), ([RandomMirror(), Rotate(9), Resize(100)], 100),
    ([CenterCrop(300), Resize(256)], None), ([RandomCrop(300), Resize(256)], None), ([lazy, Resize(256)], None), ([], None),
    ([Normalize(0)], None), ([Compose(RandomMirror(), Resize(64)), CenterCrop(56)], 64), ([MeanImage(PHOTO), Resize(5)], None),
    ([RandomResizedCrop(224)], math.ceil(224 / math.sqrt(0.08 * 0.75))), ([Resize(64), Resize(300)], 64)])
def test_how_large_a_photograph_must_be_decoded(steps, want):
    assert Compose(*steps).at_least == want


def test_the_smallest_part_of_the_smallest_photograph_has_enough_pixels():
    step = RandomResizedCrop(50, (0.2, 0.8), (0.5, 1.25))
    for H, W in ((step.at_least, step.at_least), (step.at_least, 3 * step.at_least)):
        for shape in (0, 1):
            *_, h, w = step.part(H, W, np.array([[0, shape, 0.5, 0.5]] * 10))
            assert min(h, w) >= 49.5


def test_what_is_arithmetic_at_the_end_is_put_off():
    choose, arithmetic = Compose(Resize(5), Normalize(1), RandomMirror(), Compose(PCAColour(COVARIANCE), ToArray())).without_arithmetic()
    assert repr(choose) == "Compose(Resize(size=5), Normalize(mean=1.0, std=1.0), RandomMirror())"
    assert [type(step) for step in arithmetic] == [PCAColour, ToArray]
    assert [type(step) for step in Compose(MeanImage(PHOTO)).without_arithmetic()[0].steps] == [MeanImage]


CHAINS = {
    "nothing":          [],
    "one":              [Normalize(MEAN, STD)],
    "a number":         [Normalize(120, 3)],
    "two":              [Normalize(MEAN, STD), Normalize(-0.3, 0.5)],
    "the papers":       [PCAColour(COVARIANCE), Normalize(MEAN)],
    "the other way":    [Normalize(MEAN, STD), PCAColour(COVARIANCE / 5000)],
    "three":            [PCAColour(COVARIANCE), Normalize(MEAN, STD), PCAColour(COVARIANCE, 0.5)],
    "mean pixel":       [PCAColour(COVARIANCE), MeanPixel(MEAN), ToArray()],
}


@pytest.mark.parametrize("chain", CHAINS)
def test_all_terms_are_what_the_steps_do_one_by_one(chain):
    """And as much is drawn."""
    one_by_one, at_once = np.random.default_rng(5), np.random.default_rng(5)
    want = Compose(*CHAINS[chain])(PHOTO, one_by_one)
    add, divide = all_terms(CHAINS[chain], at_once)
    np.testing.assert_allclose((PHOTO + add) / divide, want, rtol=0, atol=1e-6 * np.abs(want).max())
    assert np.dtype(add.dtype) == np.dtype(divide.dtype) == np.float32
    assert one_by_one.random() == at_once.random()


@pytest.mark.parametrize("pixels, arithmetic", [
    ([], [Normalize(MEAN)]), ([RandomCrop(5)], []), ([RandomCrop(8), RandomMirror()], [PCAColour(COVARIANCE), Normalize(MEAN, STD)]),
    ([Normalize(MEAN), RandomCrop(4)], [Normalize(0, 2)]), ([], []),
])
def test_arithmetic_at_the_end_is_set_apart(pixels, arithmetic):
    """Only at the end; and what is chosen, then computed, with one generator, is what the whole chain makes of an image."""
    whole = Compose(*pixels, *arithmetic)
    chosen, rest = whole.without_arithmetic()
    assert chosen.steps == tuple(pixels)
    assert list(rest) == arithmetic
    one_by_one, apart = np.random.default_rng(5), np.random.default_rng(5)
    want = whole(PHOTO, one_by_one)
    image = chosen(PHOTO, apart)
    add, divide = all_terms(rest, apart)
    np.testing.assert_allclose((image + add) / divide, want, rtol=0, atol=1e-6 * np.abs(want).max())
    assert one_by_one.random() == apart.random()
    if not any(isinstance(step, Normalize) for step in pixels):
        assert image.dtype == np.uint8
        assert image.size == 0 or np.shares_memory(image, PHOTO)            # a view: nothing has been computed


def test_steps_that_change_pixels_are_not_put_off():
    for step in (Resize(9), RandomCrop(3), RandomMirror()):
        assert Compose(step).without_arithmetic()[1] in ([], ())


# ---- the literature's

def test_the_papers_training_images():
    """30 x 30 places within the middle 256 x 256 pixels, mirrored or not, minus the mean, plus a colour."""
    columns = np.broadcast_to(np.arange(500)[None, :, None] / 2, (256, 500, 3)).astype(np.uint8)            # tells where a crop is from
    rng, left, mirrored = np.random.default_rng(0), set(), 0
    for _ in range(1500):
        row = paper_train(227, mean=0)(columns, rng)[0, :, 0]
        mirrored += row[0] > row[-1]
        left.add(int(row.min()))
    assert left == {column // 2 for column in range(122, 152)}
    assert 650 < mirrored < 850
    plain = paper_train(mean=0)(columns, np.random.default_rng(1))
    np.testing.assert_allclose(paper_train(mean=MEAN)(columns, np.random.default_rng(1)), plain - MEAN, atol=1e-4)
    np.testing.assert_allclose(paper_train()(columns, np.random.default_rng(1)), plain - 255 * np.array(tf.IMAGENET_MEAN), atol=1e-4)
    coloured = paper_train(mean=0, colour=PCAColour(COVARIANCE))(columns, np.random.default_rng(1)) - plain
    assert np.abs(coloured).min() > 0.1
    np.testing.assert_allclose(coloured, np.broadcast_to(coloured[0, 0], coloured.shape), atol=1e-4)


def test_the_proportion_of_photograph_and_crop():
    assert [tf.shorter_side(size) for size in (224, 227, 112, 64, 448)] == [256, 256, 128, 73, 512]
    for size in (64, 224, 227):
        for transform in (paper_train(size), paper_test(size), torchvision_test(size)):
            assert transform.at_least == tf.shorter_side(size)
            assert transform(smooth(90, 120), np.random.default_rng(0)).shape == (size, size, 3)
    assert paper_train().random
    assert not paper_test().random
    assert not torchvision_test().random


@pytest.mark.parametrize("shape", [(1, 1, 3), (20_000, 1, 3), (1, 20_000, 3), (1, 1, 1), (500, 300, 1)])
def test_odd_pictures_go_through_the_papers_chain(shape):
    """Even the longest: only the pixels of the crop are computed, of 5,120,000 x 256."""
    image = np.full(shape, 90, np.uint8)
    for transform in (paper_train(227, mean=100), paper_test(227, mean=100)):
        for picture in (image, Picture(Image.fromarray(image[..., 0] if shape[2] == 1 else image))):
            y = transform(picture, np.random.default_rng(0))
            assert y.shape == (227, 227, shape[2])
            assert (y == -10).all()


def test_the_papers_chain_through_a_loader(photos):
    images = Items(*photos.values())
    colour = PCAColour.fit(images)
    transform = paper_train(64, colour=colour)
    (x, _), = data.DataLoader(images, 8, transform, seed=3, workers=0)
    assert (x.shape, x.dtype) == ((8, 3, 64, 64), np.float32)
    for i, image in enumerate(images.images):
        rng = data.loader.random.generator(data.loader.random.SAMPLES, 0, i, seed=3)
        np.testing.assert_allclose(x[i].transpose(1, 2, 0), transform(image, rng), rtol=1e-5, atol=1e-4)


# ---- torchvision's, where both define the same

def test_torchvisions_test_images(tv, photos):
    theirs = tv.Compose([tv.Resize(256), tv.CenterCrop(224), tv.ToTensor(), tv.Normalize(tf.IMAGENET_MEAN, tf.IMAGENET_STD)])
    for photo in photos.values():
        difference = np.abs(torchvision_test()(photo) - theirs(Image.fromarray(photo)).numpy().transpose(1, 2, 0))
        assert difference.max() < 1.01 / 255 / 0.224             # one level of 255
        assert difference.mean() < 1e-3


def test_torchvisions_random_resized_crops(tv):
    """Parts have the same distribution, also where some do not fit at first: Kolmogorov's distance of two samples."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    n, step, rng = 4000, RandomResizedCrop(224), np.random.default_rng(0)
    for H, W in ((375, 500), (200, 1000), (90, 2000)):
        theirs = np.array([tv.RandomResizedCrop.get_params(torch.empty(3, H, W), step.scale, step.ratio) for _ in range(n)], float)
        ours = np.array([step.part(H, W, rng.random((10, 4))) for _ in range(n)], float)
        for a, b in zip(theirs.T, ours.T, strict=True):
            values = np.union1d(a, b)
            distance = np.abs(np.searchsorted(np.sort(a), values, "right") - np.searchsorted(np.sort(b), values, "right")).max() / n
            assert distance < 1.95 * math.sqrt(2 / n)


def test_torchvisions_colours_and_rotations(tv, photos):
    theirs, photo = tv.functional, photos["coffee"]
    picture = Image.fromarray(photo)
    for factor in (0.6, 1.4):
        np.testing.assert_array_equal(recoloured(photo, factor, 1, 1), np.asarray(theirs.adjust_brightness(picture, factor)))
        np.testing.assert_array_equal(recoloured(photo, 1, factor, 1), np.asarray(theirs.adjust_contrast(picture, factor)))
        np.testing.assert_array_equal(recoloured(photo, 1, 1, factor), np.asarray(theirs.adjust_saturation(picture, factor)))
    turned = theirs.rotate(picture, 17, tv.InterpolationMode.BILINEAR, fill=50)
    np.testing.assert_array_equal(rotated(photo, 17, fill=50), np.asarray(turned))
