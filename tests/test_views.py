"""Several looks at one image are averaged as softmax outputs, whatever they are, however many at once, on either device."""

import weakref

import numpy as np
import pytest
from PIL import Image

import minicnn as mc
from minicnn import data
from minicnn.backend import to_device
from minicnn.data.picture import Picture
from minicnn.data.transforms import CenterCrop, Compose, MeanPixel, RandomCrop, Resize, paper_test, paper_train
from minicnn.data.views import TenCrops, average_predictions, multi_scale_views, predict, ten_crops

SIZE = 24
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, shape, dtype=np.uint8) for shape in ((30, 40, 3), (50, 28, 3), (27, 27, 3), (33, 64, 3), (40, 41, 3))]
ARITHMETIC = MeanPixel([120, 110, 100])


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
    """A small network with everything in it that evaluation could get wrong."""

    def __init__(self, classes=4):
        self.conv = mc.nn.Conv2d(3, 6, 5, stride=3)
        self.dropout = mc.nn.Dropout(0.5)
        self.linear = mc.nn.Linear(6 * 7 * 7, classes)
        for p in self.parameters():
            p.data[...] = np.random.default_rng(p.size).normal(0, 0.03, p.shape)

    def forward(self, x):
        return self.linear(self.dropout(mc.ops.relu(self.conv(x * 0.1)).flatten()))


def softmax(model, views):
    """Each view by itself, (n, H, W, C) -> (n, classes)."""
    rows = []
    model.eval()
    with mc.no_grad():
        for view in views:
            x = to_device(np.ascontiguousarray(view.transpose(2, 0, 1))[None], model.linear.weight.device)
            logits = model(mc.Tensor(x)).numpy()[0].astype(float)
            rows.append(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())
    return np.array(rows)


# ---- which views

@pytest.mark.parametrize("shape", [(30, 40), (41, 29), (24, 24), (24, 100), (90, 80)])
@pytest.mark.parametrize("channels", [1, 3])
def test_ten_crops_are_corners_centre_and_mirrors_pixel_by_pixel(shape, channels):
    image = RNG.integers(0, 256, (*shape, channels), dtype=np.uint8)
    H, W = shape
    crops = ten_crops(image, SIZE)
    assert crops.shape == (10, SIZE, SIZE, channels)
    tops, lefts = (0, 0, H - SIZE, H - SIZE, round((H - SIZE) / 2)), (0, W - SIZE, 0, W - SIZE, round((W - SIZE) / 2))
    for n in range(5):
        for i in range(SIZE):
            for j in range(SIZE):
                pixel = image[tops[n] + i, lefts[n] + j]
                assert (crops[n, i, j] == pixel).all()
                assert (crops[n + 5, i, SIZE - 1 - j] == pixel).all()
    np.testing.assert_array_equal(crops[4], CenterCrop(SIZE)(image))


@pytest.mark.parametrize("shape", [(30, 40), (90, 200)])           # all of it computed, and only the crops
def test_ten_crops_of_a_photograph_that_is_still_to_be_scaled(shape):
    picture = Resize(shape[0])(Picture(Image.fromarray(RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8))))
    want = ten_crops(np.asarray(picture), SIZE).astype(int)
    assert np.abs(ten_crops(picture, SIZE) - want).max() <= 2


def test_ten_crops_of_the_longest_picture_compute_only_the_crops():
    crops = ten_crops(Resize(256)(np.full((20_000, 1, 3), 9, np.uint8)), 227)          # all of it: 4 GB
    assert crops.shape == (10, 227, 227, 3)
    assert (crops == 9).all()


def test_ten_crops_are_torchvisions(tv_functional):
    for shape in ((30, 40), (41, 29), (24, 24)):
        image = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
        theirs = np.stack([np.asarray(crop) for crop in tv_functional.ten_crop(Image.fromarray(image), SIZE)])
        ours = ten_crops(image, SIZE)
        np.testing.assert_array_equal(ours[:5], theirs[:5])
        np.testing.assert_array_equal(ours[[6, 5, 8, 7]], theirs[5:9])          # they mirror the image, we the crops: left is right
        if (shape[1] - SIZE) % 2 == 0:
            np.testing.assert_array_equal(ours[9], theirs[9])


@pytest.fixture
def tv_functional():
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torchvision.transforms import functional
        except (ImportError, RuntimeError, OSError) as error:           # not there, or not for the torch that is
            pytest.skip(f"no torchvision: {error}")
    return functional


def test_views_of_several_scales_and_none_too_small():
    image = IMAGES[0]
    views = list(multi_scale_views(image, SIZE, sides=(10, 30, 60)))
    assert [v.shape for v in views] == [(10, SIZE, SIZE, 3)] * 3
    for got, side in zip(views, (SIZE, 30, 60), strict=True):                  # 10 is raised to 24
        np.testing.assert_array_equal(got, ten_crops(Resize(side)(image), SIZE))
    assert len(list(multi_scale_views(image, 227))) == 5
    stream = multi_scale_views(image, SIZE)
    assert iter(stream) is stream                                               # one scale at a time


def test_the_tall_image_holds_the_views_one_below_the_other():
    tall = TenCrops(SIZE)(IMAGES[0])
    assert tall.shape == (10 * SIZE, SIZE, 3)
    np.testing.assert_array_equal(tall.reshape(10, SIZE, SIZE, 3), ten_crops(IMAGES[0], SIZE))
    tall = TenCrops(SIZE, sides=(30, 10))(IMAGES[0])
    np.testing.assert_array_equal(tall.reshape(2, 10, SIZE, SIZE, 3), np.stack(list(multi_scale_views(IMAGES[0], SIZE, (30, 10)))))
    assert (TenCrops(SIZE, sides=(30, 10)).at_least, TenCrops(SIZE).at_least) == (30, None)
    assert repr(TenCrops(SIZE, [30, 10])) == "TenCrops(size=24, sides=(30, 24))"


# ---- what the model says of them

def test_softmax_outputs_are_averaged(device):
    model = Net().to(device)
    views = [ARITHMETIC(v) for v in multi_scale_views(IMAGES[0], SIZE, (30, 60))]
    each = softmax(model, np.concatenate(views))
    p = average_predictions(model, views)
    assert (p.shape, p.dtype, type(p)) == ((4,), np.float32, np.ndarray)
    np.testing.assert_allclose(p, each.mean(axis=0), rtol=1e-5)
    geometric = np.exp(np.log(each).mean(axis=0))
    assert np.abs(p - geometric / geometric.sum()).max() > 1e-4                 # averaging the logits is something else


def test_views_in_any_batches_and_any_packing_give_the_same():
    model = Net()
    views = [ARITHMETIC(v) for v in multi_scale_views(IMAGES[0], SIZE, (30, 60))]
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


def test_evaluation_leaves_the_model_as_it_was():
    model = Net().train()
    model.conv.eval()                           # a part that was frozen stays so
    views = [ARITHMETIC(ten_crops(IMAGES[0], SIZE))]
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


def test_a_function_is_a_model_too():
    p = average_predictions(lambda x: mc.ops.flatten(x)[:, :4] * 0.01, [ARITHMETIC(ten_crops(IMAGES[0], SIZE))])
    assert p.sum() == pytest.approx(1)


# ---- a whole data set

def views_of(image, views):
    if views == "1":
        return CenterCrop(SIZE)(Resize(27)(image))[None]
    if views == "10":
        return ten_crops(Resize(27)(image), SIZE)
    return np.concatenate(list(multi_scale_views(image, SIZE)))


@pytest.mark.parametrize("views", ["1", "10", "multi"])
def test_predictions_for_a_data_set_are_those_for_each_image(views, device):
    model = Net().to(device)
    p, labels = predict(model, Items(), paper_test(SIZE, mean=[120, 110, 100]), views, batch_size=4)
    assert (p.shape, p.dtype, labels.dtype) == ((5, 4), np.float32, np.int64)
    np.testing.assert_array_equal(labels, [0, 1, 2, 0, 1])
    for i, image in enumerate(IMAGES):
        np.testing.assert_allclose(p[i], softmax(model, ARITHMETIC(views_of(image, views))).mean(axis=0), rtol=1e-4)
    assert np.abs(p[0] - p[1]).max() > 1e-3                                     # and they are not all the same


@pytest.mark.parametrize("views", ["1", "10", "multi"])
def test_predictions_are_the_same_each_time_and_for_any_batch_size(views):
    model, transform = Net(), paper_test(SIZE, mean=100)
    p, _ = predict(model, Items(), transform, views, batch_size=20)
    np.testing.assert_array_equal(predict(model, Items(), transform, views, batch_size=20)[0], p)
    for size in (1, 1000):
        np.testing.assert_allclose(predict(model, Items(), transform, views, batch_size=size)[0], p, rtol=1e-5)


def photographs(folder):
    for i, image in enumerate(IMAGES):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / "ab"[i % 2] / f"{i}.png")
    return data.ImageFolder(folder)


def test_predictions_from_files_with_and_without_workers(tmp_path):
    photos, model, transform = photographs(tmp_path), Net(), paper_test(SIZE, mean=100)
    p, labels = predict(model, photos, transform, "10", workers=0)
    again, _ = predict(model, photos, transform, "10", workers=2)
    np.testing.assert_array_equal(again, p)
    np.testing.assert_array_equal(labels, [0, 0, 0, 1, 1])
    views = ten_crops(Resize(27)(IMAGES[2]), SIZE).astype(np.float32) - 100          # a/2.png comes second
    np.testing.assert_allclose(p[1], softmax(model, views).mean(axis=0), rtol=1e-4)


def test_a_file_that_cannot_be_looked_at_is_named(tmp_path):
    photos = photographs(tmp_path)
    for workers, error in ((0, ValueError), (2, RuntimeError)):
        with pytest.raises(error, match=r"a.2\.png: .*CenterCrop: a 28 x 28 crop does not fit into an image of 27 x 27"):
            predict(Net(), photos, Compose(CenterCrop(28), Resize(SIZE), MeanPixel(0)), batch_size=1, workers=workers)
    (tmp_path / "b" / "3.png").write_bytes(b"no picture")
    with pytest.raises(data.DataError, match=r"b.3\.png"):
        predict(Net(), photos, paper_test(SIZE), "multi", workers=0)


@pytest.mark.parametrize("call, message", [
    (lambda: ten_crops(IMAGES[0], 31), "ten_crops: a 31 x 31 crop does not fit into an image of 30 x 40"),
    (lambda: ten_crops(IMAGES[0], 0), "ten_crops: size is a whole number of pixels, at least 1, not 0"),
    (lambda: list(multi_scale_views(IMAGES[0], SIZE, (0,))), "multi_scale_views: side is a whole number of pixels"),
    (lambda: TenCrops(SIZE, ()), "no sides, no views"),
    (lambda: average_predictions(Net(), []), "average_predictions: no views"),
    (lambda: average_predictions(Net(), ten_crops(IMAGES[0], SIZE)), r"a view is float32 \(H, W, C\), not uint8 \(24, 24, 3\)"),
    (lambda: predict(Net(), Items(), paper_test(SIZE), views=10), 'views is "1", "10" or "multi", not 10'),
    (lambda: predict(Net(), Items(), paper_train(SIZE)), "one for training, with chance in it: Compose"),
    (lambda: predict(Net(), Items(), Compose(Resize(SIZE), ARITHMETIC), "10"), "in the place of the CenterCrop, before the arithmetic"),
    (lambda: predict(Net(), Items(), Compose(CenterCrop(SIZE)), "multi"), "in the place of Resize and CenterCrop"),
    (lambda: predict(Net(), Items(), RandomCrop(SIZE)), "with chance in it"),
    (lambda: predict(Net(), Items(), paper_test(SIZE), batch_size=0), "predict: batch_size is a whole number"),
], ids=lambda value: value[:30] if isinstance(value, str) else "")
def test_mistakes_get_one_clear_message(call, message):
    with pytest.raises(ValueError, match=message):
        call()
