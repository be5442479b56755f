"""Transforms: each against its definition, against Pillow, and against torchvision where that is installed."""

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
from minicnn.data.lazy_image import LazyImage
from minicnn.data.transforms import (
    CenterCrop,
    ColorJitter,
    Compose,
    MeanImage,
    Normalize,
    PCAColorJitter,
    RandomAspect,
    RandomCrop,
    RandomHorizontalFlip,
    RandomRadialDistortion,
    RandomResizedCrop,
    RandomRotation,
    RandomTranslate,
    Resize,
    ScaleJitter,
    SubtractMean,
    ToFloat,
    alexnet_test,
    alexnet_train,
    compose_affine,
    torchvision_test,
)
from minicnn.data.transforms.base import Transform
from minicnn.data.transforms.color import IMAGENET_VALUES, IMAGENET_VECTORS, adjust_color
from minicnn.data.transforms.geometric import distort, rotate, stretch, translate

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
MEAN, STD = np.array([123.7, 116.3, 103.5]), np.array([58.4, 57.1, 57.4])
COVARIANCE = np.array([[3000.0, 2500, 2000], [2500, 2800, 2400], [2000, 2400, 3100]])

# One of every kind.
STEPS = {type(step).__name__: step for step in (
    Resize(10), ScaleJitter(5, 40), CenterCrop(7), RandomCrop(9, padding=2, within=14), RandomResizedCrop(8, (0.3, 0.9), (0.5, 1.5)),
    RandomHorizontalFlip(), RandomRotation(30, fill=9), RandomTranslate(0.3, fill=7), RandomAspect(1.4), RandomRadialDistortion(0.25),
    Normalize(MEAN, STD), SubtractMean([0.1, 1 / 3, 104]), MeanImage(PHOTO / 3), ToFloat(),
    PCAColorJitter(COVARIANCE / 7, sigma=0.2), ColorJitter(0.4, 0.3, 0.2),
    Compose(Resize(10), RandomCrop(8), PCAColorJitter(COVARIANCE), Normalize(0.1, 3)),
)}


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
    """torchvision's transforms, skipped where they are missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torchvision import transforms
            from torchvision.transforms import functional  # noqa: F401
        except (ImportError, RuntimeError, OSError) as error:           # missing, or built for another torch
            pytest.skip(f"no torchvision: {error}")
    return transforms


def smooth(height, width, channels=3):
    """A smooth photograph of bytes: values sampled between its pixels are near them."""
    y, x = np.mgrid[:height, :width]
    return np.stack([128 + 100 * np.sin((c + 1) * y / height + x / width * (3 - c)) for c in range(channels)], axis=2).astype(np.uint8)


# ---- every transform

def test_every_transform_is_tested_here():
    kinds = {name for name, value in vars(tf).items() if isinstance(value, type) and issubclass(value, Transform)}
    assert kinds == set(STEPS)
    assert kinds <= set(tf.__all__)


@pytest.mark.parametrize("name", STEPS)
def test_a_repr_makes_the_transform_again_and_so_does_a_pickle(name):
    step = STEPS[name]
    copies = [pickle.loads(pickle.dumps(step))]
    if name != "MeanImage":                     # an image is too long for a repr: it has the shape only
        copies.append(eval(repr(step), vars(tf).copy()))
    for copy in copies:
        assert repr(copy) == repr(step)
        np.testing.assert_array_equal(np.asarray(copy(PHOTO, np.random.default_rng(3))), np.asarray(step(PHOTO, np.random.default_rng(3))))
    assert repr(step).startswith(name + "(")
    assert "\n" not in repr(step)


def test_reprs():
    assert repr(STEPS["Compose"].steps[0]) == "Resize(size=10)"
    assert repr(STEPS["RandomCrop"]) == "RandomCrop(size=9, padding=2, within=14)"
    assert repr(SubtractMean([0.1, 2, 3])) == "SubtractMean(mean=[0.1, 2.0, 3.0])"
    assert repr(STEPS["MeanImage"]) == "MeanImage(mean_image=<array 20 x 30 x 3>)"
    assert repr(Compose(Resize(10), RandomHorizontalFlip())) == "Compose(Resize(size=10), RandomHorizontalFlip(p=0.5))"


@pytest.mark.parametrize("name", STEPS)
def test_a_transform_draws_the_same_numbers_whatever_the_image_is(name):
    """Otherwise what the next transform does to an image would depend on that image's size."""
    step, photo = STEPS[name], LazyImage(Image.fromarray(PHOTO))
    images = [PHOTO, PHOTO[:, :20], photo, PHOTO.astype(np.float32), np.repeat(PHOTO, 11, axis=0)]
    if name == "ColorJitter":
        images.pop(3)                           # for bytes only
    if name == "MeanImage":
        images = images[2:4]                    # for one size
    states = []
    for image in images:
        rng = np.random.default_rng(5)
        step(image, rng)
        states.append(rng.bit_generator.state)
    assert all(state == states[0] for state in states)
    assert (states[0] != np.random.default_rng(5).bit_generator.state) == step.random


@pytest.mark.parametrize("name", STEPS)
def test_a_transform_is_deterministic_for_a_seed_and_does_not_change_its_input(name):
    step, before = STEPS[name], PHOTO.copy()
    results = [np.asarray(step(PHOTO, np.random.default_rng(seed))) for seed in (0, 0, *range(1, 30))]
    np.testing.assert_array_equal(results[0], results[1])
    assert any(not np.array_equal(results[0], other) for other in results[2:]) == step.random
    np.testing.assert_array_equal(PHOTO, before)


@pytest.mark.parametrize("name", sorted(set(STEPS) - {"ColorJitter"}))
def test_floats_are_transformed_like_bytes(name):
    bytes_first = np.asarray(STEPS[name](PHOTO, np.random.default_rng(3)))
    floats = np.asarray(STEPS[name](PHOTO.astype(np.float32), np.random.default_rng(3)))
    assert floats.dtype == np.float32
    assert floats.shape == bytes_first.shape
    np.testing.assert_allclose(floats, bytes_first, atol=1.01)           # bytes are rounded, in Pillow once per direction


@pytest.mark.parametrize("name", sorted(set(STEPS) - {"Normalize", "PCAColorJitter", "MeanImage", "SubtractMean", "Compose"}))
def test_grey_images_stay_grey(name):
    grey = STEPS[name](PHOTO[..., :1], np.random.default_rng(3))
    assert grey.shape[2] == 1
    as_rgb = np.asarray(STEPS[name](np.repeat(PHOTO[..., :1], 3, axis=2), np.random.default_rng(3)))
    np.testing.assert_allclose(np.asarray(grey)[..., 0], as_rgb[..., 0], atol=1)


MISTAKES = [
    (lambda: Resize(0), "Resize: size must be an int of at least 1, got 0"),
    (lambda: Resize(2.5), "Resize: size must be an int of at least 1, got 2.5"),
    (lambda: CenterCrop(True), "CenterCrop: size must be an int of at least 1, got True"),
    (lambda: ScaleJitter(480, 256), "ScaleJitter: high must be an int of at least 480, got 256"),
    (lambda: RandomCrop(10, padding=-1), "RandomCrop: padding must be an int of at least 0, got -1"),
    (lambda: RandomCrop(10, within=9), "RandomCrop: within must be an int of at least 10, got 9"),
    (lambda: Resize((9, 9)), r"Resize: size must be one int, the shorter side, got \(9, 9\); for square images put CenterCrop after it"),
    (lambda: CenterCrop((5, 6)), r"CenterCrop: crops are square: size must be an int \(or a pair of equal ints\), got \(5, 6\)"),
    (lambda: RandomHorizontalFlip(1.5), "RandomHorizontalFlip: p must be a number from 0 to 1, got 1.5"),
    (lambda: RandomResizedCrop(10, scale=(0, 1)), r"scale\[0\] must be a number from 0 to 1 \(except 0\), got 0"),
    (lambda: RandomResizedCrop(10, scale=(0.5, 0.2)), r"scale\[1\] must be a number from 0.5 to 1, got 0.2"),
    (lambda: RandomResizedCrop(10, ratio=2), r"ratio must be a pair \(least, greatest\), got 2"),
    (lambda: RandomRotation(-3), "RandomRotation: degrees must be a number from 0 to 180, got -3"),
    (lambda: RandomRotation(float("nan")), "RandomRotation: degrees must be a number from 0 to 180, got nan"),
    (lambda: RandomRotation(3, fill=1000), "RandomRotation: fill must be a number from -255 to 255, got 1000"),
    (lambda: RandomTranslate("half"), "RandomTranslate: fraction must be a number from 0 to 1, got 'half'"),
    (lambda: RandomAspect(0.5), "RandomAspect: ratio must be a number from 1 to 10, got 0.5"),
    (lambda: RandomRadialDistortion(0.5), "RandomRadialDistortion: strength must be a number from 0 to 0.3, got 0.5"),
    (lambda: ColorJitter(contrast=-0.1), "ColorJitter: contrast must be a number from 0 to 1, got -0.1"),
    (lambda: SubtractMean([[1, 2], [3, 4]]), "SubtractMean: mean must be one finite number, or one per channel"),
    (lambda: SubtractMean(np.nan), "SubtractMean: mean must be one finite number, or one per channel, got nan"),
    (lambda: Normalize(0, [1, 0]), "Normalize: std must be positive"),
    (lambda: PCAColorJitter(np.ones((2, 3))), "PCAColorJitter: covariance must be a square of finite numbers"),
    (lambda: PCAColorJitter(np.triu(COVARIANCE)), "PCAColorJitter: covariance must be symmetric"),
    (lambda: PCAColorJitter(-COVARIANCE), "PCAColorJitter: covariance must have no negative eigenvalue"),
    (lambda: PCAColorJitter(COVARIANCE, sigma=-1), "PCAColorJitter: sigma must be a number from 0 to 10, got -1"),
    (lambda: MeanImage(MEAN), "MeanImage: an image must be a non-empty uint8 or float32 array"),
    (lambda: MeanImage.fit(Items(), 8), "MeanImage.fit: needs one image or more, got a data set of 0 and max_images=None"),
    (lambda: PCAColorJitter.fit(Items(PHOTO[:1, :1])), "needs two pixels or more, got 1"),
    (lambda: tf.channel_statistics(Items(PHOTO, PHOTO[..., :1])),
     "all images must have the same channels, but image 1 has 1, those before 3"),
    (lambda: Resize(5)(PHOTO[0]), r"Resize: an image must be a .* array \(H, W, channels\), got uint8 of shape \(30, 3\)"),
    (lambda: Resize(5)(PHOTO[:0]), r"must be a non-empty .* got uint8 of shape \(0, 30, 3\)"),
    (lambda: Resize(5)(PHOTO.astype(np.float64)), "an image must be a non-empty uint8 or float32 array"),
    (lambda: RandomResizedCrop(5)(None, RNG), "RandomResizedCrop: an image must be .* got None"),
    (lambda: Resize(5)(PHOTO.transpose(2, 0, 1)),
     r"Resize: an image must be \(H, W, channels\), got \(3, 20, 30\), which looks like \(channels, H, W\)"),
    (lambda: CenterCrop(5)(PHOTO[:20, :20, :1].transpose(2, 0, 1)),
     r"CenterCrop: .* got \(1, 20, 20\), which looks like \(channels, H, W\)"),
    (lambda: Normalize(tf.IMAGENET_MEAN, tf.IMAGENET_STD)(PHOTO),
     r"Normalize\(mean=.*\): a std below 1 is for .* put ToFloat\(\) before it"),
    (lambda: CenterCrop(21)(PHOTO), r"CenterCrop: a 21 x 21 crop does not fit into an image of 20 x 30; put Resize\(21\) or more"),
    (lambda: RandomCrop(25, padding=2)(PHOTO, RNG), "RandomCrop: a 25 x 25 crop does not fit into an image of 24 x 34"),
    (lambda: STEPS["MeanImage"](PHOTO[:8, :9]),
     "MeanImage: the image must have the size of the mean image, 20 x 30 x 3, got 8 x 9 x 3; put Resize"),
    (lambda: ColorJitter(0.1)(PHOTO.astype(np.float32), RNG),
     "ColorJitter: an image must be uint8 with 1 or 3 channels, got float32 with 3"),
    (lambda: SubtractMean(MEAN)(PHOTO[..., :1]), "SubtractMean: expects 3 channels, but the image has 1"),
    (lambda: PCAColorJitter(COVARIANCE)(PHOTO[..., :1], RNG), "PCAColorJitter: expects 3 channels, but the image has 1"),
    (lambda: compose_affine([Normalize(1), Normalize(MEAN, STD)], None, channels=1), "Normalize: expects 3 channels, but the image has 1"),
    (lambda: alexnet_train(0), "size must be an int of at least 1"),
]


@pytest.mark.parametrize("mistake, message", MISTAKES, ids=[message[:40] for _, message in MISTAKES])
def test_mistakes_get_one_clear_message(mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake()


def test_wrong_types_are_refused():
    with pytest.raises(TypeError, match=r"Compose: a transform must be a function of \(image, rng\), got 5"):
        Compose(Resize(5), 5)
    with pytest.raises(TypeError, match=r"Compose: a transform must be a function of \(image, rng\), got \[Resize"):
        Compose([Resize(5)], [CenterCrop(5)])
    with pytest.raises(TypeError, match=r"Compose\(RandomHorizontalFlip\(p=0.5\)\) is random: call it as transform\(image, numpy.random"):
        Compose(RandomHorizontalFlip())(PHOTO)


def test_habits_from_torchvision_work_or_get_a_hint():
    for steps in ([Resize(10), CenterCrop(8)], (Resize(10), CenterCrop(8)), [Compose([Resize(10)]), CenterCrop(8)]):
        assert repr(Compose(steps)) == "Compose(Resize(size=10), CenterCrop(size=8))"
    assert Compose([]).steps == ()
    for crop in (CenterCrop((8, 8)), RandomCrop([8, 8]), RandomResizedCrop((8, 8))):
        assert crop.size == 8
        assert crop(PHOTO, np.random.default_rng(0)).shape == (8, 8, 3)
    flips = [RandomHorizontalFlip(p) for p in (0, 0.5, 1)]
    flipped = [sum(flip(PHOTO, np.random.default_rng(i)) is not PHOTO for i in range(400)) for flip in flips]
    assert (flipped[0], flipped[2]) == (0, 400)
    assert 160 < flipped[1] < 240
    imagenet = Compose([ToFloat(), Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    np.testing.assert_allclose(imagenet(PHOTO), (PHOTO / 255 - tf.IMAGENET_MEAN) / tf.IMAGENET_STD, rtol=1e-5, atol=1e-6)
    with pytest.raises(AttributeError, match=r"minicnn.data.transforms has no 'ToTensor': write ToFloat\(\)"):
        _ = tf.ToTensor
    with pytest.raises(AttributeError, match="minicnn.data.transforms has no 'Grayscale'$"):
        _ = tf.Grayscale


# ---- resizing and cropping

@pytest.mark.parametrize("name", ["china", "retina", "rocket", "coffee"])
@pytest.mark.parametrize("size", [64, 256, 700])
def test_resize_is_pillows_and_a_crop_computes_the_same_pixels(photos, name, size):
    photo = photos[name]
    H, W = photo.shape[:2]
    h, w = (size, int(size * W / H)) if H < W else (int(size * H / W), size)
    whole = np.asarray(Image.fromarray(photo).resize((w, h), Image.Resampling.BILINEAR))
    for image in (photo, LazyImage(Image.fromarray(photo))):
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


def test_random_crops_within_the_center_have_every_position_equally_often():
    image = np.arange(8 * 20, dtype=np.uint8).reshape(8, 20, 1)             # the central 6 x 6: rows 1..6, columns 7..12
    rng = np.random.default_rng(0)
    corners = collections.Counter(int(RandomCrop(4, within=6)(image, rng)[0, 0, 0]) for _ in range(4500))
    assert sorted(corners) == [20 * row + column for row in (1, 2, 3) for column in (7, 8, 9)]
    assert all(abs(n - 500) < 5 * math.sqrt(500) for n in corners.values())
    narrow = {RandomCrop(4, within=12)(image, rng).tobytes() for _ in range(2000)}          # lower than `within`: all of its height
    assert len(narrow) == 5 * 9


def test_random_resized_crop_draws_area_ratio_and_position_uniformly():
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
    correlation = np.corrcoef(h * w, np.log(w / h))[0, 1]
    assert abs(correlation) < 5 / math.sqrt(4000)


def test_random_resized_crop_tries_again_and_falls_back_to_the_center():
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


@pytest.mark.parametrize("kind", ["array", "lazy", "grey", "floats"])
def test_random_resized_crop_resizes_the_part_that_was_drawn(kind):
    photo = smooth(90, 120)
    image = {"array": photo, "lazy": LazyImage(Image.fromarray(photo)), "grey": photo[..., :1], "floats": photo.astype(np.float32)}[kind]
    step, draws = RandomResizedCrop(32), np.random.default_rng(4).random((10, 4))
    top, left, h, w = step.part(90, 120, draws)
    channel = Image.fromarray(np.asarray(image)[..., 0]).crop((left, top, left + w, top + h)).resize((32, 32), Image.Resampling.BILINEAR)
    got = step(image, np.random.default_rng(4))
    assert got.shape == (32, 32, image.shape[2])
    np.testing.assert_allclose(got[..., 0], np.asarray(channel), atol=2)         # at the border it includes neighbors of the part
    np.testing.assert_allclose(got[2:-2, 2:-2, 0], np.asarray(channel)[2:-2, 2:-2], atol=1)


def test_random_resized_crop_tries_ten_times():
    class FakeGenerator:
        def random(self, shape):
            draws = np.full(shape, 0.05)        # of 100 x 130 almost all, and high: does not fit
            draws[-1] = (0, 0.9, 0, 0)          # the last does
            assert shape == (10, 4)
            return draws

    columns = np.broadcast_to(np.arange(130, dtype=np.float32)[None, :, None], (100, 130, 1))
    cut = RandomResizedCrop(10, (0.9, 1.0))(columns, FakeGenerator())
    assert cut.min() < 10
    assert cut.max() < 122                      # from the left edge on, and not the fallback, which is all


@pytest.mark.parametrize("height, width", [(45, 60), (45, 110)])
def test_random_resized_crop_of_a_lazy_image_is_that_of_its_pixels(height, width):
    picture = LazyImage(Image.fromarray(smooth(90, 120))).resized(height, width)
    step = RandomResizedCrop(16)
    got, want = (step(image, np.random.default_rng(4)) for image in (picture, np.asarray(picture)))
    np.testing.assert_allclose(got, want.astype(float), atol=3)


def test_only_the_pixels_of_the_crop_are_computed():
    computed = []

    class Counted(LazyImage):
        def resized(self, height, width):
            return Counted(self.image, height, width)

        def pixels(self, top, left, bottom, right):
            computed.append((bottom - top) * (right - left))
            return super().pixels(top, left, bottom, right)

    picture = Counted(Image.fromarray(smooth(600, 900)))
    jitter = Compose(RandomAspect(1.3), ScaleJitter(), RandomCrop(227), RandomHorizontalFlip())
    for transform in (alexnet_train(), alexnet_test(), torchvision_test(227), jitter):
        assert transform(picture, np.random.default_rng(0)).shape == (227, 227, 3)
    assert computed == [227 * 227] * 4


# ---- geometric

def test_amounts_of_zero_change_nothing():
    for image in (PHOTO, PHOTO[..., :1], PHOTO.astype(np.float32)):
        for identity in (RandomRotation(0), RandomTranslate(0), RandomAspect(1), RandomRadialDistortion(0), ColorJitter()):
            if not (isinstance(identity, ColorJitter) and image.dtype != np.uint8):
                np.testing.assert_array_equal(identity(image, np.random.default_rng(0)), image)


def test_rotation_by_90_degrees_is_counter_clockwise_and_exact():
    for image in (PHOTO[:, :20], PHOTO[:, :20, :1], PHOTO[:, :20].astype(np.float32)):
        np.testing.assert_array_equal(rotate(image, 90), np.rot90(image))
        np.testing.assert_array_equal(rotate(image, 180), image[::-1, ::-1])
    rotated = rotate(PHOTO, 90, fill=200)              # 20 x 30: cut off at two sides, filled at two
    assert rotated.shape == PHOTO.shape
    np.testing.assert_array_equal(rotated[:, 5:25], np.rot90(PHOTO)[5:25])
    assert (rotated[:, :5] == 200).all()
    assert (rotated[:, 25:] == 200).all()


def test_rotation_about_the_center_by_any_angle():
    """A linear image is known between its pixels: each output pixel has the value at the rotated position."""
    y, x = np.mgrid[:60, :80].astype(np.float32) + 0.5
    image = (3 * x + 2 * y)[..., None]
    got, angle = rotate(image, 25, fill=-1)[..., 0], np.radians(25)
    from_x = np.cos(angle) * (x - 40) - np.sin(angle) * (y - 30) + 40
    from_y = np.sin(angle) * (x - 40) + np.cos(angle) * (y - 30) + 30
    inside = (from_x > 1) & (from_x < 79) & (from_y > 1) & (from_y < 59)
    assert 0.5 < inside.mean() < 0.95
    np.testing.assert_allclose(got[inside], (3 * from_x + 2 * from_y)[inside], atol=0.01)
    assert (got[(from_x < 0) | (from_x > 80) | (from_y < 0) | (from_y > 60)] == -1).all()


def test_translation_by_whole_pixels():
    for image in (PHOTO, LazyImage(Image.fromarray(PHOTO)), PHOTO.astype(np.float32)):
        moved = translate(image, 3, -4, fill=9)
        np.testing.assert_array_equal(moved[3:, :-4], PHOTO[:-3, 4:])
        assert (moved[:3] == 9).all()
        assert (moved[:, -4:] == 9).all()
        assert moved.dtype == image.dtype
    assert (translate(PHOTO, 20, 0, fill=1) == 1).all()
    assert (translate(PHOTO, -20, 30, fill=1) == 1).all()


def test_translation_covers_all_four_directions():
    image, rng = np.full((11, 21, 1), 5, np.uint8), np.random.default_rng(0)
    image[5, 10] = 255
    positions = [divmod(int(RandomTranslate(0.2)(image, rng).argmax()), 21) for _ in range(2000)]
    rows, columns = ({position[i] for position in positions} for i in (0, 1))
    assert rows == {3, 4, 5, 6, 7}
    assert columns == set(range(6, 15))


def test_random_aspect_makes_one_side_longer_and_none_shorter():
    rng = np.random.default_rng(0)
    shapes = np.array([RandomAspect(1.5)(PHOTO, rng).shape[:2] for _ in range(2000)])
    assert (shapes >= (20, 30)).all()
    assert (shapes <= (30, 45)).all()
    assert ((shapes == (20, 30)).any(axis=1)).all()
    assert 800 < (shapes[:, 0] > 20).sum() < 1100
    assert {20, 30} <= set(shapes[:, 0])
    assert {30, 45} <= set(shapes[:, 1])
    heights = np.array([RandomAspect(4)(PHOTO, rng).shape[0] for _ in range(2000)])
    assert abs(np.median(heights[heights > 20]) - 40) < 4                       # as often to less than double as to more
    want = np.asarray(Image.fromarray(PHOTO).resize((30, 26), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(np.asarray(stretch(PHOTO, 1.3, 1)), want)


@pytest.mark.parametrize("k", [-0.3, -0.1, 0.1, 0.3])
def test_radial_distortion_against_its_formula(k):
    """The image holds each pixel's distance from the center; distorted, all pixels at one distance have one value, that of the formula."""
    H, W = 61, 81
    y, x = np.mgrid[:H, :W].astype(np.float32)
    R = math.hypot(H, W) / 2
    r = np.hypot(y - 30, x - 40)
    cone, angle = distort(r[..., None].astype(np.float32), k)[..., 0], np.arctan2(y - 30, x - 40)
    where = r * (1 + k * (r / R) ** 2) / (1 + max(k, 0))
    assert (where[r > 3] != r[r > 3]).all()
    np.testing.assert_allclose(cone[r > 3], where[r > 3], atol=0.1)
    assert cone[30, 40] == 0
    directions = distort(np.stack([np.cos(angle), np.sin(angle)], axis=2).astype(np.float32), k)
    far = r > 12
    np.testing.assert_allclose(directions[far], np.stack([np.cos(angle), np.sin(angle)], axis=2)[far], atol=0.02)      # directions stay


@pytest.mark.parametrize("k", [-0.3, 0.3])
def test_radial_distortion_samples_nothing_outside_the_image(k):
    image = smooth(40, 30)
    assert distort(image, k).dtype == np.uint8
    assert distort(image, k).min() >= image.min()
    assert distort(image, k).max() <= image.max()
    np.testing.assert_allclose(distort(image, k), distort(image.astype(np.float32), k), atol=0.5)
    np.testing.assert_array_equal(distort(image, k)[::-1, ::-1], distort(image[::-1, ::-1], k))
    corners = (0, 0, -1, -1), (0, -1, 0, -1)
    if k > 0:
        np.testing.assert_allclose(distort(image.astype(np.float32), k)[corners], image[corners], atol=5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_radial_distortion_of_thin_images(shape):
    image = np.full((*shape, 3), 77, np.uint8)
    np.testing.assert_array_equal(distort(image, 0.2), image)


# ---- normalization and color

def test_normalizations_against_their_formulas():
    for step, want in [(Normalize(MEAN, STD), (PHOTO - MEAN) / STD), (Normalize(7), PHOTO - 7.0), (SubtractMean(MEAN), PHOTO - MEAN),
                       (SubtractMean(100), PHOTO - 100.0), (ToFloat(), PHOTO / 255)]:
        for image in (PHOTO, PHOTO.astype(np.float32), LazyImage(Image.fromarray(PHOTO))):
            y = step(image)
            assert y.dtype == np.float32
            np.testing.assert_allclose(y, want, rtol=1e-6, atol=1e-5)


def test_the_mean_image_is_the_mean_of_the_central_crops():
    images = [RNG.integers(0, 256, shape, dtype=np.uint8) for shape in ((8, 8, 3), (8, 13, 3), (11, 8, 3))]
    want = (images[0].astype(float) + images[1][:, 2:10] + images[2][2:10]) / 3         # 2.5 and 1.5 to even numbers
    mean = MeanImage.fit(Items(*images), 8)
    np.testing.assert_allclose(mean.mean_image, want, rtol=1e-6)
    np.testing.assert_allclose(mean(images[0]), images[0] - want, atol=1e-4)
    assert not hasattr(mean, "scale_and_shift")           # it differs from pixel to pixel
    np.testing.assert_allclose(MeanImage.fit(Items(*images), 8, max_images=1).mean_image, images[0])
    floats = MeanImage.fit(Items(*[image.astype(np.float32) for image in images]), 8)
    np.testing.assert_allclose(floats.mean_image, want, rtol=1e-6)


def test_the_mean_image_loads_photographs_no_larger_than_needed():
    class Lazy(Items):
        def load(self, i, min_size):
            assert min_size == 8
            return LazyImage(Image.fromarray(self.images[i])), 0

    assert MeanImage.fit(Lazy(PHOTO, PHOTO), 8).mean_image.shape == (8, 8, 3)


def test_pca_color_jitter_is_the_papers_sum():
    """p1 a1 l1 + p2 a2 l2 + p3 a3 l3 on every pixel; the roots of the l, since those are squares. The a are Gaussian."""
    values, vectors = np.linalg.eigh(COVARIANCE)
    draws = np.random.default_rng(7).normal(0, 0.1, 3)
    shift = sum(draws[i] * np.sqrt(values[i]) * vectors[:, i] for i in range(3))
    y = PCAColorJitter(COVARIANCE)(PHOTO, np.random.default_rng(7))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, PHOTO + shift, rtol=1e-6)
    assert np.abs(shift).max() > 1


def test_pca_color_shifts_have_the_covariance_of_the_colors():
    """Of many shifts the mean is zero, and the covariance is sigma^2 times that of the training set."""
    transform, rng, n = PCAColorJitter(COVARIANCE, sigma=0.3), np.random.default_rng(1), 20_000
    shifts = np.array([transform.scale_and_shift(rng)[0] for _ in range(n)], np.float64)
    deviations = 0.3 * np.sqrt(np.diag(COVARIANCE))
    assert (np.abs(shifts.mean(axis=0)) < 5 * deviations / np.sqrt(n)).all()
    np.testing.assert_allclose(np.cov(shifts.T), 0.09 * COVARIANCE, rtol=0.05)


def test_pca_color_jitter_of_grey_images_stays_grey():
    """All channels of the training set are equal: one eigenvalue is not zero, and rounding makes none of the others negative."""
    shift, _ = PCAColorJitter(np.full((3, 3), 2000.0)).scale_and_shift(np.random.default_rng(0))
    assert np.isfinite(shift).all()
    assert abs(shift[0]) > 0.1
    np.testing.assert_allclose(shift, shift[0], rtol=1e-4)


def test_pca_color_jitter_is_fitted_to_all_pixels_exactly():
    images = [RNG.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((5, 9), (30, 20), (1, 1))]
    pixels = np.concatenate([image.reshape(-1, 3) for image in images])
    np.testing.assert_allclose(PCAColorJitter.fit(Items(*images)).covariance, np.cov(pixels.T.astype(float)), rtol=1e-12)
    np.testing.assert_allclose(PCAColorJitter.fit(Items(*images), max_images=1).covariance, np.cov(images[0].reshape(-1, 3).T), rtol=1e-12)
    nearly_white = np.full((2000, 1000, 3), 255, np.uint8)                  # float32 sums, or a squared mean, would lose this
    nearly_white[7, 7, 0] = 254
    n = 2_000_000
    want = fractions.Fraction(1, n)             # of one that differs by 1 among n: (1 - 1/n) / (n - 1)
    assert PCAColorJitter.fit(Items(nearly_white)).covariance[0, 0] == float(want)


def test_pca_color_jitter_is_fitted_with_one_image_in_memory_at_a_time():
    alive, most = weakref.WeakSet(), []

    class Traced(np.ndarray):
        __hash__ = object.__hash__

    class Dataset:
        def __len__(self):
            return 20

        def __getitem__(self, i):
            image = np.full((4, 4, 3), i, np.uint8).view(Traced)
            alive.add(image)
            most.append(len(alive))
            return image, 0

    PCAColorJitter.fit(Dataset())
    assert len(most) == 20
    assert max(most) <= 2


def test_the_imagenet_shift_is_that_of_published_code():
    """For pixels of 0 to 1 it adds  vectors @ (a * values), with a of N(0, 0.1); here for pixels of 0 to 255."""
    jitter = PCAColorJitter.imagenet()
    each = 255 * np.array(IMAGENET_VECTORS) * IMAGENET_VALUES           # columns: what a = (1, 0, 0), (0, 1, 0), (0, 0, 1) adds
    np.testing.assert_allclose(jitter.components @ jitter.components.T, each @ each.T, atol=1e-6)
    np.testing.assert_allclose(np.sort(np.linalg.norm(jitter.components, axis=0))[::-1], 255 * np.array(IMAGENET_VALUES), rtol=2e-3)
    rng = np.random.default_rng(0)
    shifts = np.array([jitter.scale_and_shift(rng)[0] for _ in range(20_000)], float)
    np.testing.assert_allclose(np.cov(shifts.T), 0.01 * each @ each.T, rtol=0.06)
    assert 4 < np.sqrt((shifts ** 2).sum(axis=1).mean()) < 7            # some 5 levels of 255


def test_the_circulating_values_are_variances():
    """With them as eigenvalues each channel spreads by 0.28, as ImageNet's pixels do; with them as deviations by 0.13."""
    covariance = np.array(IMAGENET_VECTORS) @ np.diag(IMAGENET_VALUES) @ np.array(IMAGENET_VECTORS).T
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), 0.28, atol=0.012)


@pytest.mark.parametrize("factor", [0, 0.5, 1.3])
def test_color_changes_against_their_formulas(factor):
    grey = np.rint(PHOTO @ np.array([0.299, 0.587, 0.114]))
    pixels = PHOTO.astype(float)
    for got, want in [(adjust_color(PHOTO, factor, 1, 1), factor * pixels),
                      (adjust_color(PHOTO, 1, factor, 1), grey.mean() + factor * (pixels - grey.mean())),
                      (adjust_color(PHOTO, 1, 1, factor), grey[..., None] + factor * (pixels - grey[..., None]))]:
        assert got.dtype == np.uint8
        np.testing.assert_allclose(got, np.clip(want, 0, 255), atol=2)


def test_color_jitter_draws_each_amount_from_its_range():
    white, rng = np.full((1, 1, 1), 100, np.uint8), np.random.default_rng(0)
    values = np.array([ColorJitter(brightness=0.5)(white, rng)[0, 0, 0] for _ in range(2000)])
    assert values.min() in (50, 51)
    assert values.max() in (149, 150)
    assert abs(values.mean() - 100) < 3.5
    assert (ColorJitter(contrast=1, saturation=1)(white, rng) == 100).all()


# ---- Compose

def custom(image, rng):
    return image


@pytest.mark.parametrize("steps, want", [
    ([Resize(256), RandomCrop(227)], 256), ([ScaleJitter(), RandomCrop(227)], 480),
    ([RandomHorizontalFlip(), RandomRotation(9), Resize(100)], 100),
    ([CenterCrop(300), Resize(256)], None), ([RandomCrop(300), Resize(256)], None), ([custom, Resize(256)], None), ([], None),
    ([Normalize(0)], None), ([Compose(RandomHorizontalFlip(), Resize(64)), CenterCrop(56)], 64), ([MeanImage(PHOTO), Resize(5)], None),
    ([RandomResizedCrop(224)], math.ceil(224 / math.sqrt(0.08 * 0.75))), ([Resize(64), Resize(300)], 64)])
def test_how_large_a_photograph_must_be_decoded(steps, want):
    assert Compose(*steps).min_size == want


def test_the_smallest_part_of_the_smallest_photograph_has_enough_pixels():
    step = RandomResizedCrop(50, (0.2, 0.8), (0.5, 1.25))
    for H, W in ((step.min_size, step.min_size), (step.min_size, 3 * step.min_size)):
        for shape in (0, 1):
            *_, h, w = step.part(H, W, np.array([[0, shape, 0.5, 0.5]] * 10))
            assert min(h, w) >= 49.5


def test_split_affine_of_nested_transforms():
    select, affine = Compose(Resize(5), Normalize(1), RandomHorizontalFlip(), Compose(PCAColorJitter(COVARIANCE), ToFloat())).split_affine()
    assert repr(select) == "Compose(Resize(size=5), Normalize(mean=1.0, std=1.0), RandomHorizontalFlip(p=0.5))"
    assert [type(step) for step in affine] == [PCAColorJitter, ToFloat]
    assert [type(step) for step in Compose(MeanImage(PHOTO)).split_affine()[0].steps] == [MeanImage]


CHAINS = {
    "nothing":          [],
    "one":              [Normalize(MEAN, STD)],
    "a number":         [Normalize(120, 3)],
    "two":              [Normalize(MEAN, STD), Normalize(-0.3, 0.5)],
    "the paper's":      [PCAColorJitter(COVARIANCE), Normalize(MEAN)],
    "reversed":         [Normalize(MEAN, STD), PCAColorJitter(COVARIANCE / 5000)],
    "three":            [PCAColorJitter(COVARIANCE), Normalize(MEAN, STD), PCAColorJitter(COVARIANCE, 0.5)],
    "subtract mean":    [PCAColorJitter(COVARIANCE), SubtractMean(MEAN), ToFloat()],
}


@pytest.mark.parametrize("chain", CHAINS)
def test_compose_affine_is_the_transforms_one_by_one(chain):
    """And draws the same numbers."""
    one_by_one, at_once = np.random.default_rng(5), np.random.default_rng(5)
    want = Compose(*CHAINS[chain])(PHOTO, one_by_one)
    add, divide = compose_affine(CHAINS[chain], at_once)
    np.testing.assert_allclose((PHOTO + add) / divide, want, rtol=0, atol=1e-6 * np.abs(want).max())
    assert np.dtype(add.dtype) == np.dtype(divide.dtype) == np.float32
    assert one_by_one.random() == at_once.random()


@pytest.mark.parametrize("selecting, affine", [
    ([], [Normalize(MEAN)]), ([RandomCrop(5)], []),
    ([RandomCrop(8), RandomHorizontalFlip()], [PCAColorJitter(COVARIANCE), Normalize(MEAN, STD)]),
    ([Normalize(MEAN), RandomCrop(4)], [Normalize(0, 2)]), ([], []),
])
def test_split_affine_takes_the_affine_transforms_at_the_end(selecting, affine):
    """The two halves, called one after the other with one generator, are the whole."""
    whole = Compose(*selecting, *affine)
    select, rest = whole.split_affine()
    assert select.steps == tuple(selecting)
    assert list(rest) == affine
    one_by_one, apart = np.random.default_rng(5), np.random.default_rng(5)
    want = whole(PHOTO, one_by_one)
    image = select(PHOTO, apart)
    add, divide = compose_affine(rest, apart)
    np.testing.assert_allclose((image + add) / divide, want, rtol=0, atol=1e-6 * np.abs(want).max())
    assert one_by_one.random() == apart.random()
    if not any(isinstance(step, Normalize) for step in selecting):
        assert image.dtype == np.uint8
        assert image.size == 0 or np.shares_memory(image, PHOTO)            # a view: nothing has been computed


def test_transforms_that_select_pixels_are_not_affine():
    for step in (Resize(9), RandomCrop(3), RandomHorizontalFlip()):
        assert Compose(step).split_affine()[1] in ([], ())


# ---- presets

def test_alexnet_train_crops_flips_and_subtracts():
    """30 x 30 positions within the central 256 x 256 pixels, flipped or not, minus the mean, plus a color shift."""
    columns = np.broadcast_to(np.arange(500)[None, :, None] / 2, (256, 500, 3)).astype(np.uint8)            # a value shows its column
    rng, left, flipped = np.random.default_rng(0), set(), 0
    for _ in range(1500):
        row = alexnet_train(227, mean=0)(columns, rng)[0, :, 0]
        flipped += row[0] > row[-1]
        left.add(int(row.min()))
    assert left == {column // 2 for column in range(122, 152)}
    assert 650 < flipped < 850
    plain = alexnet_train(mean=0)(columns, np.random.default_rng(1))
    np.testing.assert_allclose(alexnet_train(mean=MEAN)(columns, np.random.default_rng(1)), plain - MEAN, atol=1e-4)
    np.testing.assert_allclose(alexnet_train()(columns, np.random.default_rng(1)), plain - 255 * np.array(tf.IMAGENET_MEAN), atol=1e-4)
    shift = alexnet_train(mean=0, color=PCAColorJitter(COVARIANCE))(columns, np.random.default_rng(1)) - plain
    assert np.abs(shift).min() > 0.1
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0, 0], shift.shape), atol=1e-4)


def test_the_shorter_side_is_in_proportion_to_the_crop():
    assert [tf.shorter_side(size) for size in (224, 227, 112, 64, 448)] == [256, 256, 128, 73, 512]
    for size in (64, 224, 227):
        for transform in (alexnet_train(size), alexnet_test(size), torchvision_test(size)):
            assert transform.min_size == tf.shorter_side(size)
            assert transform(smooth(90, 120), np.random.default_rng(0)).shape == (size, size, 3)
    assert alexnet_train().random
    assert not alexnet_test().random
    assert not torchvision_test().random


@pytest.mark.parametrize("shape", [(1, 1, 3), (20_000, 1, 3), (1, 20_000, 3), (1, 1, 1), (500, 300, 1)])
def test_alexnets_transforms_take_images_of_any_shape(shape):
    """Even the longest: only the pixels of the crop are computed, of 5,120,000 x 256."""
    image = np.full(shape, 90, np.uint8)
    for transform in (alexnet_train(227, mean=100), alexnet_test(227, mean=100)):
        for picture in (image, LazyImage(Image.fromarray(image[..., 0] if shape[2] == 1 else image))):
            y = transform(picture, np.random.default_rng(0))
            assert y.shape == (227, 227, shape[2])
            assert (y == -10).all()


def test_alexnet_train_in_a_loader(photos):
    images = Items(*photos.values())
    transform = alexnet_train(64, color=PCAColorJitter.fit(images))
    (x, _), = data.DataLoader(images, 8, transform, seed=3, workers=0)
    assert (x.shape, x.dtype) == ((8, 3, 64, 64), np.float32)
    for i, image in enumerate(images.images):
        rng = data.loader.random.generator(data.loader.random.SAMPLES, 0, i, seed=3)
        np.testing.assert_allclose(x[i].transpose(1, 2, 0), transform(image, rng), rtol=1e-5, atol=1e-4)


# ---- against torchvision, where both define the same

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


def test_torchvisions_colors_and_rotations(tv, photos):
    theirs, photo = tv.functional, photos["coffee"]
    picture = Image.fromarray(photo)
    for factor in (0.6, 1.4):
        np.testing.assert_array_equal(adjust_color(photo, factor, 1, 1), np.asarray(theirs.adjust_brightness(picture, factor)))
        np.testing.assert_array_equal(adjust_color(photo, 1, factor, 1), np.asarray(theirs.adjust_contrast(picture, factor)))
        np.testing.assert_array_equal(adjust_color(photo, 1, 1, factor), np.asarray(theirs.adjust_saturation(picture, factor)))
    rotated = theirs.rotate(picture, 17, tv.InterpolationMode.BILINEAR, fill=50)
    np.testing.assert_array_equal(rotate(photo, 17, fill=50), np.asarray(rotated))
