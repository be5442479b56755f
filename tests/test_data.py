"""Data sets and loader: every image arrives once, in the right order, and bad data is named."""

import gzip

import numpy as np
import pytest
from PIL import Image

import minicnn as mc
from minicnn import data
from minicnn.data import transforms as tf


@pytest.fixture
def folder(tmp_path):
    """Two classes with three small photographs each."""
    photos = data.photos()
    for i, name in enumerate(("cats", "rockets")):
        (tmp_path / name).mkdir()
        for j in range(3):
            Image.fromarray(photos[3 * i + j][1]).resize((60 + 10 * j, 50)).save(tmp_path / name / f"{j}.{'png' if j else 'jpg'}")
    return tmp_path


def test_fashion_mnist_is_included():
    train, test = data.FashionMNIST("train"), data.FashionMNIST("test")
    assert (len(train), len(test)) == (8000, 2000)
    image, label = train[0]
    assert (image.shape, image.dtype) == ((28, 28, 1), np.uint8)
    assert 0 <= label < 10
    np.testing.assert_array_equal(np.bincount(train.labels), 800)
    np.testing.assert_array_equal(np.bincount(test.labels), 200)
    assert train.classes[9] == "Ankle boot"
    with pytest.raises(data.DataError, match='"train" or "test"'):
        data.FashionMNIST("val")


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_original_fashion_mnist_files(tmp_path):
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.array([3, 9], np.uint8))
    test = data.FashionMNIST("test", root=tmp_path)
    np.testing.assert_array_equal(test[1][0][..., 0], images[1])
    assert test[1][1] == 9
    with pytest.raises(data.DataError, match="train-images-idx3-ubyte.gz: cannot be read"):
        data.FashionMNIST("train", root=tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(data.DataError, match="cannot be read"):
        data.FashionMNIST("test", root=tmp_path)
    path.write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x05abc"))
    with pytest.raises(data.DataError, match="truncated or damaged"):
        data.FashionMNIST("test", root=tmp_path)
    path.write_bytes(gzip.compress(b"hello"))
    with pytest.raises(data.DataError, match="not an idx file"):
        data.FashionMNIST("test", root=tmp_path)


def test_cifar10_binary_files(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    labels = np.array([0, 9, 4, 4], np.uint8)
    (tmp_path / "test_batch.bin").write_bytes(b"".join(bytes([k]) + p.tobytes() for k, p in zip(labels, pixels, strict=True)))
    test = data.CIFAR10(tmp_path, "test")
    assert (len(test), test.classes[9]) == (4, "truck")
    np.testing.assert_array_equal(test[1][0], pixels[1].transpose(1, 2, 0))
    assert test[1][1] == 9
    with pytest.raises(data.DataError, match="data_batch_1.bin: cannot be read"):
        data.CIFAR10(tmp_path, "train")
    (tmp_path / "test_batch.bin").write_bytes(b"\0" * 3072)
    with pytest.raises(data.DataError, match="must be a whole number of CIFAR-10 records of 3073 bytes, got 3072 bytes"):
        data.CIFAR10(tmp_path, "test")
    (tmp_path / "test_batch.bin").write_bytes(b"\x20" * 3073)
    with pytest.raises(data.DataError, match="labels must be 0 to 9 for 10 classes, got 32"):
        data.CIFAR10(tmp_path, "test")


def test_image_folder(folder):
    (folder / "cats" / "notes.txt").write_text("no image")
    (folder / ".hidden").mkdir()
    images = data.ImageFolder(folder)
    assert images.classes == ["cats", "rockets"]
    assert list(images.labels) == [0, 0, 0, 1, 1, 1]
    image, label = images[4]
    assert (image.shape, image.dtype, label) == ((50, 70, 3), np.uint8, 1)
    np.testing.assert_array_equal(image, np.asarray(Image.open(folder / "rockets" / "1.png")))


def test_bad_folders_are_named(folder, tmp_path):
    with pytest.raises(data.DataError, match="missing: no such folder"):
        data.ImageFolder(folder / "missing")
    with pytest.raises(data.DataError, match="no sub-folders"):
        data.ImageFolder(folder / "cats")
    with pytest.raises(data.DataError, match="sub-folders differ from the given classes .*; missing: dogs; unexpected: rockets"):
        data.ImageFolder(folder, classes=["cats", "dogs"])
    (folder / "empty").mkdir()
    with pytest.raises(data.DataError, match="empty: no images in this class"):
        data.ImageFolder(folder)
    one = tmp_path / "one"
    (one / "only").mkdir(parents=True)
    with pytest.raises(data.DataError, match="at least two classes.*got only the class 'only'"):
        data.ImageFolder(one)


def test_an_unreadable_image_is_named_also_from_the_loader(folder):
    bad = folder / "cats" / "1.png"
    bad.write_bytes(bad.read_bytes()[:100])
    images = data.ImageFolder(folder)
    with pytest.raises(data.DataError, match=r"cats/1\.png: this image cannot be read"):
        images[1]
    loader = data.DataLoader(images, 3, tf.Compose(tf.Resize(40), tf.CenterCrop(32), tf.Normalize(128)), shuffle=True)
    with pytest.raises(data.DataError, match=r"cats/1\.png"):
        list(loader.epoch(0))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png")
    grey = Image.fromarray(np.full((8, 9), 200, np.uint8))
    picture = Image.fromarray(np.full((8, 9), 200, np.uint16)) if mode == "I;16" else grey.convert("RGB").convert(mode)
    picture.save(path)
    image = data.datasets.read_image(path)
    assert (image.shape, image.dtype) == ((8, 9, 3), np.uint8)


def test_exif_orientation_is_applied(tmp_path):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6                            # to be rotated by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = data.datasets.read_image(tmp_path / "a.png")
    assert image.shape == (6, 4, 3)
    assert (image[:, -1] == 255).all()


def test_batches_are_the_same_for_any_number_of_workers():
    train = data.FashionMNIST("train")
    transform = tf.Compose(tf.RandomCrop(28, padding=2), tf.RandomHorizontalFlip(), tf.Normalize(128, 64))

    def batches(workers, epoch, start=0, seed=5):
        return list(data.DataLoader(train, 64, transform, shuffle=True, seed=seed, workers=workers).epoch(epoch, start))[:5]

    one, three = batches(1, 0), batches(3, 0)
    for (x, y), (x3, y3) in zip(one, three, strict=True):
        np.testing.assert_array_equal(x, x3)
        np.testing.assert_array_equal(y, y3)
    assert not np.array_equal(one[0][1], batches(1, 1)[0][1])               # another epoch, another order
    assert not np.array_equal(one[0][1], batches(1, 0, seed=6)[0][1])
    np.testing.assert_array_equal(one[3][0], batches(2, 0, start=3)[0][0])  # from the middle of the epoch
    x, y = one[0]
    assert (x.shape, x.dtype, y.dtype) == ((64, 1, 28, 28), np.float32, np.int64)


def test_augmentation_differs_from_epoch_to_epoch():
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    dataset = data.datasets.ArrayDataset(images, np.zeros(64, int), ["a"])
    loader = data.DataLoader(dataset, 64, tf.Compose(tf.RandomHorizontalFlip(), tf.Normalize(0)), seed=1)
    first, second = next(loader.epoch(0))[0], next(loader.epoch(1))[0]
    flipped = [not np.array_equal(a, b) for a, b in zip(first, second, strict=True)]
    assert 15 < sum(flipped) < 49


def test_an_epoch_has_every_image_once():
    train = data.FashionMNIST("test")
    loader = data.DataLoader(train, 300, tf.Normalize(0), shuffle=True)
    sizes = [len(y) for _, y in loader.epoch(0)]
    assert sizes == [300] * 6 + [200]
    assert len(loader) == 7
    np.testing.assert_array_equal(np.sort(loader.order(0)), np.arange(2000))
    assert len(list(data.DataLoader(train, 300, tf.Normalize(0), drop_last=True))) == 6


def test_memory_is_channels_last():
    x, _ = next(data.DataLoader(data.FashionMNIST("test"), 8, lambda image, rng: np.repeat(image, 3, axis=2)).epoch(0))
    assert x.shape == (8, 3, 28, 28)
    assert x.transpose(0, 2, 3, 1).flags.c_contiguous


def test_leaving_an_epoch_early_stops_the_workers():
    import threading
    before = threading.active_count()
    for _ in data.DataLoader(data.FashionMNIST("test"), 10, tf.Normalize(0)).epoch(0):
        break
    assert threading.active_count() == before


def test_loader_mistakes_are_named():
    test = data.FashionMNIST("test")
    with pytest.raises(ValueError, match="batch_size must be an int of at least 1, got 0"):
        data.DataLoader(test, 0, tf.Normalize(0))
    with pytest.raises(ValueError, match="2000 images make no batch of 4000"):
        data.DataLoader(test, 4000, tf.Normalize(0), drop_last=True)
    with pytest.raises(ValueError, match='on_error must be "raise", "skip" or "warn", got \'report\''):
        data.DataLoader(test, 10, on_error="report")
    with pytest.raises(ValueError, match=r"workers must be an int of at least 0 \(processes\), got -1"):
        data.DataLoader(test, 10, workers=-1)
    with pytest.raises(ValueError, match="one shape and dtype"):
        sizes = iter(range(1000))
        list(data.DataLoader(test, 10, lambda image, rng: image[:10 + next(sizes)]))
    with pytest.raises(ValueError, match=r"an image must be \(H, W, channels\), got shape \(28, 28\) after Compose"):
        list(data.DataLoader(test, 10, lambda image, rng: image[..., 0]))


def test_habits_from_pytorch_work_or_get_a_hint():
    test = data.FashionMNIST("test")
    for name, message in (("num_workers", r"unexpected argument num_workers= \(write workers=\)"),
                          ("pin_memory", "copies from pinned memory"), ("batches", "unexpected argument batches=$")):
        with pytest.raises(TypeError, match=message):
            data.DataLoader(test, 10, **{name: 4})
    with pytest.raises(TypeError, match=r"write  for epoch in range\(epochs\):  for images, labels in loader\.epoch\(epoch\):"):
        iter(data.DataLoader(test, 10, tf.Normalize(0), shuffle=True))
    images, _ = next(iter(data.DataLoader(test, 10, [tf.ToFloat(), tf.Normalize([0.5], [0.5])])))         # a list, as for Compose
    np.testing.assert_allclose(images[0, 0], (test[0][0][..., 0] / 255 - 0.5) / 0.5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 32, 40), (1, 28, 28)])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_of_chw_images_gets_one_clear_error(shape, workers):
    dataset, (_, H, W) = [(np.zeros(shape, np.uint8), 0)] * 4, shape
    for transform in (None, tf.CenterCrop(20)):
        with pytest.raises(ValueError, match=rf"must be \(H, W, channels\), got \({shape[0]}, {H}, {W}\), which looks like"):
            list(data.DataLoader(dataset, 2, transform, workers=workers))


def test_statistics_of_pixels_of_0_to_1_are_refused_for_bytes():
    test = data.FashionMNIST("test")
    with pytest.raises(ValueError, match=r"Normalize\(mean=\[0.286\], std=\[0.353\]\).*bytes of 0 to 255; put ToFloat\(\) before it"):
        list(data.DataLoader(test, 10, tf.Normalize([0.286], [0.353])))
    binary = data.datasets.ArrayDataset(test.images[:20] // 128, test.labels[:20], test.classes)        # bytes of 0 and 1: no mistake
    images, _ = next(iter(data.DataLoader(binary, 20, tf.Normalize([0.2], [0.4]))))
    assert images.max() == pytest.approx(2)


def test_resize_takes_the_shorter_side():
    image = np.zeros((50, 100, 3), np.uint8)
    assert tf.Resize(20)(image).shape == (20, 40, 3)
    assert tf.Resize(20)(image.transpose(1, 0, 2)).shape == (40, 20, 3)
    assert tf.Resize(20)(image[..., :1]).shape == (20, 40, 1)
    assert tf.Resize(50)(image) is image
    photo = data.photos()[0][1]
    want = np.asarray(Image.fromarray(photo).resize((256, 256 * photo.shape[0] // photo.shape[1]), Image.Resampling.BILINEAR))
    if photo.shape[1] <= photo.shape[0]:
        np.testing.assert_array_equal(tf.Resize(256)(photo), want)


def test_crops_and_flip():
    image = np.arange(5 * 7).reshape(5, 7, 1).astype(np.uint8)
    np.testing.assert_array_equal(tf.CenterCrop(3)(image), image[1:4, 2:5])
    rng = np.random.default_rng(0)
    corners = {int(tf.RandomCrop(3)(image, rng)[0, 0, 0]) for _ in range(300)}
    assert corners == {7 * i + j for i in range(3) for j in range(5)}           # every position, and no other
    padded = tf.RandomCrop(5, padding=2)
    assert any((padded(image, rng) == 0).any() for _ in range(20))
    both = {tf.RandomHorizontalFlip()(image, rng).tobytes() for _ in range(20)}
    assert both == {image.tobytes(), image[:, ::-1].tobytes()}
    with pytest.raises(ValueError, match=r"CenterCrop: a 6 x 6 crop does not fit into an image of 5 x 7; put Resize\(6\)"):
        tf.CenterCrop(6)(image)


def test_normalize_and_statistics():
    train = data.FashionMNIST("train")
    mean, std = tf.channel_statistics(train, max_images=10_000)
    assert mean[0] == pytest.approx(train.images.mean(), rel=1e-6)
    assert std[0] == pytest.approx(train.images.std(), rel=1e-6)
    y = tf.Normalize(mean, std)(train[0][0])
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, (train[0][0] - mean) / std, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="std must be positive"):
        tf.Normalize(0, 0)


def test_the_included_photographs():
    photos = data.photos()
    assert [name for name, _ in photos] == ["astronaut", "chelsea", "china", "coffee", "flower", "hubble", "retina", "rocket"]
    assert all(photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3 for _, photo in photos)


def test_data_is_imported_on_first_use():
    assert mc.data is data
    with pytest.raises(AttributeError, match="minicnn has no 'datum'"):
        _ = mc.datum
