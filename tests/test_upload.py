"""A GPU gets the batches that a CPU gets, whatever travels there, in whatever order, and whoever leaves early."""

import sys

import numpy as np
import pytest

from minicnn import data
from minicnn.backend import device_of, to_device
from minicnn.data import transforms as tf
from minicnn.data.loader import finish
from minicnn.data.upload import Uploader

RNG = np.random.default_rng(0)
COLOUR = data.datasets.ArrayDataset(RNG.integers(0, 256, (23, 12, 14, 3), dtype=np.uint8), RNG.integers(0, 5, 23), "abcde")
GREY = data.datasets.ArrayDataset(RNG.integers(0, 256, (10, 7, 300, 1), dtype=np.uint8), RNG.integers(0, 5, 10), "abcde")
MEAN, STD = np.array([123.7, 116.3, 103.5]), np.array([58.4, 57.1, 57.4])
COVARIANCE = np.cov(RNG.normal(0, 50, (3, 100)))


class AsFloats:
    """A step of one's own, whose pixels are no bytes any more."""

    def __call__(self, image, rng):
        return np.sqrt(image, dtype=np.float32) + rng.random(dtype=np.float32)


CASES = {
    "crop, mirror and normalise":   (COLOUR, tf.Compose(tf.RandomCrop(9), tf.RandomMirror(), tf.Normalize(MEAN, STD))),
    "one mean":                     (COLOUR, tf.Compose(tf.RandomMirror(), tf.Normalize(120.5))),
    "colour shifted":               (COLOUR, tf.Compose(tf.RandomMirror(), tf.PCAColour(COVARIANCE), tf.Normalize(MEAN, STD))),
    "normalised twice":             (COLOUR, tf.Compose(tf.CenterCrop(5), tf.Normalize(MEAN, STD), tf.Normalize(0.1, 3))),
    "floats":                       (COLOUR, tf.Compose(tf.CenterCrop(6), AsFloats(), tf.RandomMirror(), tf.Normalize(MEAN, STD))),
    "arithmetic in the middle":     (COLOUR, tf.Compose(tf.Normalize(MEAN, STD), tf.RandomMirror(), tf.RandomCrop(6))),
    "mirrored twice":               (COLOUR, tf.Compose(tf.RandomMirror(), tf.RandomCrop(6), tf.RandomMirror())),
    "scaled":                       (COLOUR, tf.Compose(tf.RandomMirror(), tf.Resize(8), tf.CenterCrop(8), tf.Normalize(MEAN))),
    "one column":                   (COLOUR, tf.Compose(tf.RandomCrop(1), tf.RandomMirror(), tf.Normalize(MEAN))),
    "no pixels chosen":             (GREY, tf.Normalize(128, 64)),
    "wider than a block":           (GREY, tf.Compose(tf.RandomMirror(), tf.Normalize(128, 64))),
    "as it comes":                  (GREY, None),
}


def loaders(dataset, batch_size, transform=None, **more):
    """The same loader for the GPU and for the CPU."""
    return [data.DataLoader(dataset, batch_size, transform, seed=3, device=device, **more) for device in ("gpu", "cpu")]


def same(got, want):
    """A batch of the GPU has the bits of the CPU's, and lies in memory in the same order."""
    (images, labels), (wanted, wanted_labels) = got, want
    assert device_of(images) == "gpu"
    assert type(labels) is np.ndarray
    assert images.dtype == np.float32
    assert images.strides == wanted.strides
    assert np.ptp(wanted) > 0
    np.testing.assert_array_equal(images.get(), wanted)
    np.testing.assert_array_equal(labels, wanted_labels)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 100])
@pytest.mark.parametrize("case", CASES)
def test_the_same_bits(cupy, case, batch_size):
    """In batches of any size, the last one shorter; in two epochs."""
    dataset, transform = CASES[case]
    there, here = loaders(dataset, batch_size, transform, shuffle=True)
    for epoch in (0, 1):
        batches = list(zip(there.epoch(epoch), here.epoch(epoch), strict=True))
        assert sum(len(labels) for (_, labels), _ in batches) == len(dataset)
        for got, want in batches:               # all of them are still there when the last one has come
            same(got, want)


def test_batches_prepared_by_other_processes_travel_too(cupy):
    there, here = loaders(COLOUR, 4, tf.Compose(tf.RandomCrop(9), tf.RandomMirror(), tf.Normalize(MEAN, STD)), shuffle=True, workers=2)
    for epoch in (0, 1):
        for got, want in zip(list(there.epoch(epoch)), here.epoch(epoch), strict=True):
            same(got, want)
    there.close()
    here.close()


def test_from_the_middle_of_an_epoch(cupy):
    there, here = loaders(COLOUR, 4, tf.RandomMirror(), shuffle=True)
    got, want = list(there.epoch(2, start=3)), list(here.epoch(2))[3:]
    assert len(got) == 3
    for batch in zip(got, want, strict=True):
        same(*batch)
    assert list(there.epoch(2, start=6)) == []


def test_an_epoch_can_be_left_and_begun_again(cupy):
    there, here = loaders(COLOUR, 3, tf.RandomMirror(), shuffle=True)
    for many in (1, 2, 5):
        kept = []
        for batch in there.epoch(many):
            kept.append(batch)
            if len(kept) == many:
                break
        for got, want in zip(kept, here.epoch(many), strict=False):
            same(got, want)
    batches = there.epoch(0)
    next(batches)
    batches.close()
    for got, want in zip(there.epoch(0), here.epoch(0), strict=True):
        same(got, want)


def test_two_epochs_at_a_time(cupy):
    """Each is on its own: what one uploads, the other does not overwrite."""
    there, here = loaders(COLOUR, 5, tf.RandomMirror(), shuffle=True)
    one, two = there.epoch(0), there.epoch(1)
    kept = [(next(one), next(two)) for _ in range(len(there))]
    for (first, second), want, want_second in zip(kept, here.epoch(0), here.epoch(1), strict=True):
        same(first, want)
        same(second, want_second)


class Spoiled(data.datasets.ArrayDataset):
    """Some images cannot be read."""

    bad = ()

    def __getitem__(self, i):
        if i in self.bad:
            raise data.DataError(f"{i}.jpg: this image cannot be read")
        return super().__getitem__(i)


def spoiled(*bad):
    dataset = Spoiled(COLOUR.images, COLOUR.labels, COLOUR.classes)
    dataset.bad = bad
    return dataset


def test_an_image_that_cannot_be_read_ends_the_epoch(cupy):
    there, here = loaders(spoiled(13), 4)
    with pytest.raises(data.DataError, match=r"13\.jpg: this image cannot be read"):
        list(there)
    there.dataset.bad = ()
    for got, want in zip(there, here, strict=True):         # and the next one is whole
        same(got, want)


def test_batches_that_lack_images(cupy):
    """Short ones and full ones by turns: the memory that they travel through grows."""
    there, here = loaders(spoiled(0, 1, 2, 4, 8, 9, 10, 19, 20), 4, tf.RandomMirror(), on_bad="skip")
    got, want = list(there), list(here)
    assert [len(labels) for _, labels in got] == [1, 3, 1, 4, 3, 2]
    for batch in zip(got, want, strict=True):
        same(*batch)


def batch(n, dtype, C=3, H=4, W=5):
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, H, W, C)).astype(dtype)
    how = np.concatenate([rng.integers(0, 2, (n, 1)), rng.normal(0, 9, (n, C)), rng.uniform(1, 9, (n, C))], axis=1).astype(np.float32)
    if dtype != "uint8":
        how[:] = [0] * (1 + C) + [1] * C            # floats come finished
    return images, how


def test_an_uploader_takes_what_comes(cupy):
    """Batches that grow, shrink, and change their shape and dtype; each is begun before the one before it is finished."""
    uploader, arrived = Uploader("gpu"), []
    batches = [batch(*what) for what in ((2, "uint8"), (3, "uint8"), (1, "uint8"), (5, "uint8"), (5, "float32"), (2, "uint8", 1),
                                         (2, "uint8", 4, 9, 2), (4, "float32", 1), (300, "uint8", 1, 2, 2))]
    before = None
    for images, how in batches:
        coming = uploader.start(images.copy(), how.copy())
        if before:
            arrived.append(uploader.finish(before))
        before = coming
    arrived.append(uploader.finish(before))
    uploader.close()
    for got, (images, how) in zip(arrived, batches, strict=True):
        np.testing.assert_array_equal(got.get(), finish(images, how))


def test_what_was_sent_may_be_overwritten_at_once(cupy):
    """The memory of a worker is used for its next batch as soon as `start` has returned."""
    uploader = Uploader("gpu")
    images, how = batch(4, "uint8")
    want = finish(images, how)
    started = uploader.start(images, how)
    images[:], how[:] = 0, 1
    np.testing.assert_array_equal(uploader.finish(started).get(), want)


def test_each_image_has_its_own_arithmetic(cupy):
    """By hand: (2, 2, 3) pixels, one image mirrored and one not."""
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    images = np.stack([pixels, pixels])
    how = np.array([[1, 0.5, 1, 2, 1, 2, 4], [0, 0, -1, -2, 1, 1, 0.5]], np.float32)
    uploader = Uploader("gpu")
    got = to_device(uploader.finish(uploader.start(images, how)), "cpu").transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(got[0], [[[3.5, 2.5, 1.75], [0.5, 1, 1]], [[9.5, 5.5, 3.25], [6.5, 4, 2.5]]])
    np.testing.assert_array_equal(got[1], [[[0, 0, 0], [3, 3, 6]], [[6, 6, 12], [9, 9, 18]]])


def test_the_order_of_the_copies_and_the_kernels(cupy, monkeypatch):
    """What an emulation cannot get wrong by itself: who waits for whom is looked at call by call."""
    upload, events, calls = sys.modules["minicnn.data.upload"], [], []

    class Event:
        def __init__(self):
            events.append(self)
            self.name = f"event {len(events)}"

        def synchronize(self):
            calls.append(f"Python waits for {self.name}")

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_event(self, event):
            calls.append(f"{self.name} waits for {event.name}")

        def record(self, event):
            calls.append(f"{self.name} records {event.name}")
            return event

    uploader, computing = Uploader("gpu"), Stream("computing")
    uploader.beside = Stream("copying")
    monkeypatch.setattr(upload, "event", Event)
    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda: computing)
    monkeypatch.setattr(upload.Buffer, "put", lambda self, arrays, stream: calls.append(f"{stream.name} copies") or
                        [cupy.asarray(a) for a in arrays.values()])
    monkeypatch.setattr(upload.gpu, "run", lambda *args, **more: calls.append("a kernel computes"))
    batches = [batch(2, "uint8")] * 3
    first, second = uploader.start(*batches[0]), uploader.start(*batches[1])
    uploader.finish(first)
    third = uploader.start(*batches[2])
    uploader.finish(second)
    uploader.finish(third)
    assert calls == [
        "copying copies", "copying records event 1",
        "copying copies", "copying records event 2",
        "computing waits for event 1", "a kernel computes", "computing records event 3",
        "Python waits for event 1", "copying waits for event 3", "copying copies", "copying records event 4",
        "computing waits for event 2", "a kernel computes", "computing records event 5",
        "computing waits for event 4", "a kernel computes", "computing records event 6"]
