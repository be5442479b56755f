"""Predictions and test-time augmentation: softmax outputs averaged over crops, in batches of any size, on either device."""

import weakref

import numpy as np
import pytest
from PIL import Image

import minicnn as mc
from minicnn import data
from minicnn.backend.arrays import to_device
from minicnn.data.lazy_image import LazyImage
from minicnn.data.transforms import CenterCrop, Compose, RandomCrop, Resize, SubtractMean, alexnet_test, alexnet_train
from minicnn.train.evaluation import (
    TenCrop,
    average_predictions,
    classification_metrics,
    correct,
    evaluate,
    multi_scale_ten_crop,
    predict,
    predict_batches,
    ten_crop,
)

SIZE = 24
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, shape, dtype=np.uint8) for shape in ((30, 40, 3), (50, 28, 3), (27, 27, 3), (33, 64, 3), (40, 41, 3))]
NORMALIZE = SubtractMean([120, 110, 100])


class Items:
    """A data set of the images; item i is of class i % 3."""

    in_memory = True

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, i):
        return IMAGES[i], i % 3

    def name(self, i):
        return f"photo {i}.jpg"


class Net(mc.nn.Module):
    """A small network with dropout, which evaluation must turn off."""

    def __init__(self, classes=4):
        self.conv = mc.nn.Conv2d(3, 6, 5, stride=3)
        self.dropout = mc.nn.Dropout(0.5)
        self.linear = mc.nn.Linear(6 * 7 * 7, classes)
        for p in self.parameters():
            p.data[...] = np.random.default_rng(p.size).normal(0, 0.03, p.shape)

    def forward(self, x):
        return self.linear(self.dropout(mc.ops.relu(self.conv(x * 0.1)).flatten()))


def softmax(model, views):
    """Each view in a forward pass of its own, (n, H, W, C) -> (n, classes)."""
    rows = []
    model.eval()
    with mc.no_grad():
        for view in views:
            x = to_device(np.ascontiguousarray(view.transpose(2, 0, 1))[None], model.linear.weight.device)
            logits = model(mc.Tensor(x)).numpy()[0].astype(float)
            rows.append(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())
    return np.array(rows)


# ---- crops

@pytest.mark.parametrize("shape", [(30, 40), (41, 29), (24, 24), (24, 100), (90, 80)])
@pytest.mark.parametrize("channels", [1, 3])
def test_ten_crops_are_corners_center_and_flips_pixel_by_pixel(shape, channels):
    image = RNG.integers(0, 256, (*shape, channels), dtype=np.uint8)
    H, W = shape
    crops = ten_crop(image, SIZE)
    assert crops.shape == (10, SIZE, SIZE, channels)
    tops, lefts = (0, 0, H - SIZE, H - SIZE, round((H - SIZE) / 2)), (0, W - SIZE, 0, W - SIZE, round((W - SIZE) / 2))
    for n in range(5):
        for i in range(SIZE):
            for j in range(SIZE):
                pixel = image[tops[n] + i, lefts[n] + j]
                assert (crops[n, i, j] == pixel).all()
                assert (crops[n + 5, i, SIZE - 1 - j] == pixel).all()
    np.testing.assert_array_equal(crops[4], CenterCrop(SIZE)(image))


@pytest.mark.parametrize("shape", [(30, 40), (90, 200)])           # computed whole, and crop by crop
def test_ten_crops_of_a_lazy_image(shape):
    picture = Resize(shape[0])(LazyImage(Image.fromarray(RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8))))
    want = ten_crop(np.asarray(picture), SIZE).astype(int)
    assert np.abs(ten_crop(picture, SIZE) - want).max() <= 2


def test_ten_crops_of_a_very_long_image_compute_only_the_crops():
    crops = ten_crop(Resize(256)(np.full((20_000, 1, 3), 9, np.uint8)), 227)          # all of it: 4 GB
    assert crops.shape == (10, 227, 227, 3)
    assert (crops == 9).all()


def test_ten_crops_are_torchvisions(tv_functional):
    for shape in ((30, 40), (41, 29), (24, 24)):
        image = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
        theirs = np.stack([np.asarray(crop) for crop in tv_functional.ten_crop(Image.fromarray(image), SIZE)])
        ours = ten_crop(image, SIZE)
        np.testing.assert_array_equal(ours[:5], theirs[:5])
        np.testing.assert_array_equal(ours[[6, 5, 8, 7]], theirs[5:9])          # it flips the image, we flip the crops: left is right
        if (shape[1] - SIZE) % 2 == 0:
            np.testing.assert_array_equal(ours[9], theirs[9])


@pytest.fixture
def tv_functional():
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torchvision.transforms import functional
        except (ImportError, RuntimeError, OSError) as error:           # missing, or built for another torch
            pytest.skip(f"no torchvision: {error}")
    return functional


def test_multi_scale_ten_crop_raises_scales_that_are_too_small():
    image = IMAGES[0]
    views = list(multi_scale_ten_crop(image, SIZE, scales=(10, 30, 60)))
    assert [v.shape for v in views] == [(10, SIZE, SIZE, 3)] * 3
    for got, scale in zip(views, (SIZE, 30, 60), strict=True):                  # 10 is raised to 24
        np.testing.assert_array_equal(got, ten_crop(Resize(scale)(image), SIZE))
    assert len(list(multi_scale_ten_crop(image, 227))) == 5
    stream = multi_scale_ten_crop(image, SIZE)
    assert iter(stream) is stream                                               # one scale at a time


def test_ten_crop_stacks_the_crops_vertically():
    tall = TenCrop(SIZE)(IMAGES[0])
    assert tall.shape == (10 * SIZE, SIZE, 3)
    np.testing.assert_array_equal(tall.reshape(10, SIZE, SIZE, 3), ten_crop(IMAGES[0], SIZE))
    tall = TenCrop(SIZE, scales=(30, 10))(IMAGES[0])
    np.testing.assert_array_equal(tall.reshape(2, 10, SIZE, SIZE, 3), np.stack(list(multi_scale_ten_crop(IMAGES[0], SIZE, (30, 10)))))
    assert (TenCrop(SIZE, scales=(30, 10)).min_size, TenCrop(SIZE).min_size) == (30, None)
    assert repr(TenCrop(SIZE, [30, 10])) == "TenCrop(size=24, scales=(30, 24))"


# ---- the average over the views of one image

def test_softmax_outputs_are_averaged(device):
    model = Net().to(device)
    views = [NORMALIZE(v) for v in multi_scale_ten_crop(IMAGES[0], SIZE, (30, 60))]
    each = softmax(model, np.concatenate(views))
    p = average_predictions(model, views)
    assert (p.shape, p.dtype, type(p)) == ((4,), np.float32, np.ndarray)
    np.testing.assert_allclose(p, each.mean(axis=0), rtol=1e-5)
    geometric = np.exp(np.log(each).mean(axis=0))
    assert np.abs(p - geometric / geometric.sum()).max() > 1e-4                 # averaging the logits would be something else


def test_views_in_batches_of_any_size_and_any_grouping_give_the_same_average():
    model = Net()
    views = [NORMALIZE(v) for v in multi_scale_ten_crop(IMAGES[0], SIZE, (30, 60))]
    want = average_predictions(model, views, batch_size=20)
    for size in (1, 7, 1000):
        np.testing.assert_allclose(average_predictions(model, iter(views), size), want, rtol=1e-5)
    np.testing.assert_allclose(average_predictions(model, [one for some in views for one in some]), want, rtol=1e-5)
    np.testing.assert_array_equal(average_predictions(model, views, 20), want)


def test_no_more_views_than_a_batch_are_in_memory():
    alive, most = weakref.WeakSet(), []

    class Traced(np.ndarray):
        __hash__ = object.__hash__

    def views():
        for i in range(40):
            view = np.full((SIZE, SIZE, 3), i, np.float32).view(Traced)
            alive.add(view)
            most.append(sum(1 for v in alive if v.base is not None))
            yield view

    average_predictions(Net(), views(), batch_size=5)
    assert len(most) == 40
    assert max(most) <= 2 * 5 + 2


def test_evaluation_restores_the_mode_of_each_submodule():
    model = Net().train()
    model.conv.eval()                           # a frozen submodule stays so
    views = [NORMALIZE(ten_crop(IMAGES[0], SIZE))]
    first, second = average_predictions(model, views), average_predictions(model, views)
    np.testing.assert_array_equal(first, second)                                # no dropout
    assert (model.training, model.dropout.training, model.conv.training) == (True, True, False)
    assert all(p.grad is None for p in model.parameters())

    def fails(x):
        raise RuntimeError("broken")

    model.forward = fails
    with pytest.raises(RuntimeError, match="broken"):
        average_predictions(model, views)
    assert (model.training, model.conv.training) == (True, False)


def test_a_function_can_be_the_model():
    p = average_predictions(lambda x: mc.ops.flatten(x)[:, :4] * 0.01, [NORMALIZE(ten_crop(IMAGES[0], SIZE))])
    assert p.sum() == pytest.approx(1)


# ---- a whole data set

def crops_of(image, tta):
    if tta == "1":
        return CenterCrop(SIZE)(Resize(27)(image))[None]
    if tta == "10":
        return ten_crop(Resize(27)(image), SIZE)
    return np.concatenate(list(multi_scale_ten_crop(image, SIZE)))


@pytest.mark.parametrize("tta", ["1", "10", "multi"])
def test_predictions_for_a_data_set_are_those_for_each_image(tta, device):
    model = Net().to(device)
    p, labels = predict(model, Items(), alexnet_test(SIZE, mean=[120, 110, 100]), tta, batch_size=4)
    assert (p.shape, p.dtype, labels.dtype) == ((5, 4), np.float32, np.int64)
    np.testing.assert_array_equal(labels, [0, 1, 2, 0, 1])
    for i, image in enumerate(IMAGES):
        np.testing.assert_allclose(p[i], softmax(model, NORMALIZE(crops_of(image, tta))).mean(axis=0), rtol=1e-4)
    assert np.abs(p[0] - p[1]).max() > 1e-3                                     # and they are not all the same


@pytest.mark.parametrize("tta", ["1", "10", "multi"])
def test_predictions_are_the_same_each_time_and_for_any_batch_size(tta):
    model, transform = Net(), alexnet_test(SIZE, mean=100)
    p, _ = predict(model, Items(), transform, tta, batch_size=20)
    np.testing.assert_array_equal(predict(model, Items(), transform, tta, batch_size=20)[0], p)
    for size in (1, 1000):
        np.testing.assert_allclose(predict(model, Items(), transform, tta, batch_size=size)[0], p, rtol=1e-5)


def test_metrics_against_their_definitions():
    rng = np.random.default_rng(3)
    p, labels = rng.dirichlet(np.ones(8), 50).astype(np.float32), rng.integers(0, 8, 50)
    ranks = np.array([sorted(range(8), key=lambda c: -row[c]).index(label) for row, label in zip(p, labels, strict=True)])
    metrics = classification_metrics(p, labels)
    assert metrics == {"loss": pytest.approx(-np.log(p[np.arange(50), labels]).mean()), "images": 50,
                       "top1": pytest.approx(100 * (ranks == 0).mean()), "top5": pytest.approx(100 * (ranks < 5).mean())}
    np.testing.assert_array_equal(correct(p, labels), ranks == 0)
    certain = classification_metrics(np.array([[0.0, 1.0]], np.float32), np.array([0]))         # probability 0: a finite loss
    assert (np.isfinite(certain["loss"]), certain["top1"], certain["top5"]) == (True, 0, 100)


def test_evaluate_is_the_metrics_of_the_predictions():
    model, transform = Net().train(), alexnet_test(SIZE, mean=100)
    loader = data.DataLoader(Items(), 2, transform)
    p, labels = predict(model, Items(), transform, batch_size=2)
    for got, want in zip(predict_batches(model, loader), (p, labels), strict=True):
        np.testing.assert_array_equal(got, want)
    assert evaluate(model, loader) == classification_metrics(p, labels)
    assert model.dropout.training


def photographs(folder):
    for i, image in enumerate(IMAGES):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / "ab"[i % 2] / f"{i}.png")
    return data.ImageFolder(folder)


def test_predictions_from_files_with_and_without_workers(tmp_path):
    photos, model, transform = photographs(tmp_path), Net(), alexnet_test(SIZE, mean=100)
    p, labels = predict(model, photos, transform, "10", workers=0)
    again, _ = predict(model, photos, transform, "10", workers=2)
    np.testing.assert_array_equal(again, p)
    np.testing.assert_array_equal(labels, [0, 0, 0, 1, 1])
    views = ten_crop(Resize(27)(IMAGES[2]), SIZE).astype(np.float32) - 100          # a/2.png comes second
    np.testing.assert_allclose(p[1], softmax(model, views).mean(axis=0), rtol=1e-4)


def test_an_unusable_file_is_named(tmp_path):
    photos = photographs(tmp_path)
    for workers, error in ((0, ValueError), (2, RuntimeError)):
        with pytest.raises(error, match=r"a.2\.png: .*CenterCrop: a 28 x 28 crop does not fit into an image of 27 x 27"):
            predict(Net(), photos, Compose(CenterCrop(28), Resize(SIZE), SubtractMean(0)), batch_size=1, workers=workers)
    (tmp_path / "b" / "3.png").write_bytes(b"no picture")
    with pytest.raises(data.DataError, match=r"b.3\.png"):
        predict(Net(), photos, alexnet_test(SIZE), "multi", workers=0)


@pytest.mark.parametrize("call, message", [
    (lambda: ten_crop(IMAGES[0], 31), "ten_crop: a 31 x 31 crop does not fit into an image of 30 x 40"),
    (lambda: ten_crop(IMAGES[0], 0), "ten_crop: size must be an int of at least 1, got 0"),
    (lambda: list(multi_scale_ten_crop(IMAGES[0], SIZE, (0,))), "multi_scale_ten_crop: scale must be an int of at least 1, got 0"),
    (lambda: TenCrop(SIZE, ()), "needs one scale or more, got none"),
    (lambda: average_predictions(Net(), []), "average_predictions: needs one view or more, got none"),
    (lambda: average_predictions(Net(), ten_crop(IMAGES[0], SIZE)), r"a view must be a float32 array \(H, W, C\), got uint8 \(24, 24, 3\)"),
    (lambda: predict(Net(), Items(), alexnet_test(SIZE), tta=10), 'tta must be "1", "10" or "multi", got 10'),
    (lambda: predict(Net(), Items(), alexnet_train(SIZE)), "transform must not be random, got Compose.*; use a test transform"),
    (lambda: predict(Net(), Items(), Compose(Resize(SIZE), NORMALIZE), "10"),
     'tta="10" replaces CenterCrop, which must come right before the normalization'),
    (lambda: predict(Net(), Items(), Compose(CenterCrop(SIZE)), "multi"), 'tta="multi" replaces Resize and CenterCrop'),
    (lambda: predict(Net(), Items(), RandomCrop(SIZE)), "transform must not be random"),
    (lambda: predict(Net(), Items(), alexnet_test(SIZE), batch_size=0), "predict: batch_size must be an int of at least 1, got 0"),
], ids=lambda value: value[:30] if isinstance(value, str) else "")
def test_mistakes_get_one_clear_message(call, message):
    with pytest.raises(ValueError, match=message):
        call()
