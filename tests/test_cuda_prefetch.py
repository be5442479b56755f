"""The batches on a GPU have the bits of those on the CPU, for all shapes and dtypes, and also when an epoch is left early."""

import numpy as np
import pytest

from minicnn import data
from minicnn.backend.arrays import device_of, to_device
from minicnn.data import cuda_prefetch
from minicnn.data import transforms as tf
from minicnn.data.cuda_prefetch import CudaPrefetcher
from minicnn.data.loader import normalize_batch

RNG = np.random.default_rng(0)
RGB = data.datasets.ArrayDataset(RNG.integers(0, 256, (23, 12, 14, 3), dtype=np.uint8), RNG.integers(0, 5, 23), "abcde")
GREY = data.datasets.ArrayDataset(RNG.integers(0, 256, (10, 7, 300, 1), dtype=np.uint8), RNG.integers(0, 5, 10), "abcde")
MEAN, STD = np.array([123.7, 116.3, 103.5]), np.array([58.4, 57.1, 57.4])
COVARIANCE = np.cov(RNG.normal(0, 50, (3, 100)))


class AsFloats:
    """A custom transform whose pixels are not bytes."""

    def __call__(self, image, rng):
        return np.sqrt(image, dtype=np.float32) + rng.random(dtype=np.float32)


CASES = {
    "crop, flip and normalize":      (RGB, tf.Compose(tf.RandomCrop(9), tf.RandomHorizontalFlip(), tf.Normalize(MEAN, STD))),
    "one mean":                     (RGB, tf.Compose(tf.RandomHorizontalFlip(), tf.Normalize(120.5))),
    "color shift":                   (RGB, tf.Compose(tf.RandomHorizontalFlip(), tf.PCAColorJitter(COVARIANCE), tf.Normalize(MEAN, STD))),
    "normalized twice":              (RGB, tf.Compose(tf.CenterCrop(5), tf.Normalize(MEAN, STD), tf.Normalize(0.1, 3))),
    "floats":                       (RGB, tf.Compose(tf.CenterCrop(6), AsFloats(), tf.RandomHorizontalFlip(), tf.Normalize(MEAN, STD))),
    "normalized before the crop":    (RGB, tf.Compose(tf.Normalize(MEAN, STD), tf.RandomHorizontalFlip(), tf.RandomCrop(6))),
    "flipped twice":                 (RGB, tf.Compose(tf.RandomHorizontalFlip(), tf.RandomCrop(6), tf.RandomHorizontalFlip())),
    "resized":                       (RGB, tf.Compose(tf.RandomHorizontalFlip(), tf.Resize(8), tf.CenterCrop(8), tf.Normalize(MEAN))),
    "one column":                   (RGB, tf.Compose(tf.RandomCrop(1), tf.RandomHorizontalFlip(), tf.Normalize(MEAN))),
    "affine only":                   (GREY, tf.Normalize(128, 64)),
    "wider than a block":           (GREY, tf.Compose(tf.RandomHorizontalFlip(), tf.Normalize(128, 64))),
    "no transform":                  (GREY, None),
}


def loaders(dataset, batch_size, transform=None, **more):
    """The same loader for the GPU and for the CPU."""
    return [data.DataLoader(dataset, batch_size, transform, seed=3, device=device, **more) for device in ("gpu", "cpu")]


def same(got, want):
    """A batch on the GPU has the bits and the memory order of the CPU's."""
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
    on_gpu, on_cpu = loaders(dataset, batch_size, transform, shuffle=True)
    for epoch in (0, 1):
        batches = list(zip(on_gpu.epoch(epoch), on_cpu.epoch(epoch), strict=True))
        assert sum(len(labels) for (_, labels), _ in batches) == len(dataset)
        for got, want in batches:               # all of them still hold their values when the last one has come
            same(got, want)


def test_batches_prepared_by_workers(cupy):
    transform = tf.Compose(tf.RandomCrop(9), tf.RandomHorizontalFlip(), tf.Normalize(MEAN, STD))
    on_gpu, on_cpu = loaders(RGB, 4, transform, shuffle=True, workers=2)
    for epoch in (0, 1):
        for got, want in zip(list(on_gpu.epoch(epoch)), on_cpu.epoch(epoch), strict=True):
            same(got, want)
    on_gpu.close()
    on_cpu.close()


def test_from_the_middle_of_an_epoch(cupy):
    on_gpu, on_cpu = loaders(RGB, 4, tf.RandomHorizontalFlip(), shuffle=True)
    got, want = list(on_gpu.epoch(2, start=3)), list(on_cpu.epoch(2))[3:]
    assert len(got) == 3
    for batch in zip(got, want, strict=True):
        same(*batch)
    assert list(on_gpu.epoch(2, start=6)) == []


def test_an_epoch_can_be_left_early_and_begun_again(cupy):
    on_gpu, on_cpu = loaders(RGB, 3, tf.RandomHorizontalFlip(), shuffle=True)
    for many in (1, 2, 5):
        received = []
        for batch in on_gpu.epoch(many):
            received.append(batch)
            if len(received) == many:
                break
        for got, want in zip(received, on_cpu.epoch(many), strict=False):
            same(got, want)
    batches = on_gpu.epoch(0)
    next(batches)
    batches.close()
    for got, want in zip(on_gpu.epoch(0), on_cpu.epoch(0), strict=True):
        same(got, want)


def test_two_epochs_at_a_time(cupy):
    """Their buffers are separate: neither overwrites the other's batches."""
    on_gpu, on_cpu = loaders(RGB, 5, tf.RandomHorizontalFlip(), shuffle=True)
    one, two = on_gpu.epoch(0), on_gpu.epoch(1)
    received = [(next(one), next(two)) for _ in range(len(on_gpu))]
    for (first, second), want, want_second in zip(received, on_cpu.epoch(0), on_cpu.epoch(1), strict=True):
        same(first, want)
        same(second, want_second)


class Unreadable(data.datasets.ArrayDataset):
    """Some images cannot be read."""

    bad = ()

    def __getitem__(self, i):
        if i in self.bad:
            raise data.DataError(f"{i}.jpg: this image cannot be read")
        return super().__getitem__(i)


def unreadable(*bad):
    dataset = Unreadable(RGB.images, RGB.labels, RGB.classes)
    dataset.bad = bad
    return dataset


def test_an_image_that_cannot_be_read_ends_the_epoch(cupy):
    on_gpu, on_cpu = loaders(unreadable(13), 4)
    with pytest.raises(data.DataError, match=r"13\.jpg: this image cannot be read"):
        list(on_gpu)
    on_gpu.dataset.bad = ()
    for got, want in zip(on_gpu, on_cpu, strict=True):         # and the next epoch is complete
        same(got, want)


def test_batches_with_skipped_images(cupy):
    """Short and full batches alternate: the staging buffers grow."""
    on_gpu, on_cpu = loaders(unreadable(0, 1, 2, 4, 8, 9, 10, 19, 20), 4, tf.RandomHorizontalFlip(), on_error="skip")
    got, want = list(on_gpu), list(on_cpu)
    assert [len(labels) for _, labels in got] == [1, 3, 1, 4, 3, 2]
    for batch in zip(got, want, strict=True):
        same(*batch)


def batch(n, dtype, C=3, H=4, W=5):
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, H, W, C)).astype(dtype)
    flipped, add, divide = rng.integers(0, 2, (n, 1)), rng.normal(0, 9, (n, C)), rng.uniform(1, 9, (n, C))
    affine_params = np.concatenate([flipped, add, divide], axis=1).astype(np.float32)
    if dtype != "uint8":
        affine_params[:] = [0] * (1 + C) + [1] * C            # floats are normalized already
    return images, affine_params


def test_batches_of_changing_shape_and_dtype(cupy):
    """Batches that grow, shrink, and change their shape and dtype; each is begun before the one before it is finished."""
    prefetcher, arrived = CudaPrefetcher("gpu"), []
    batches = [batch(*what) for what in ((2, "uint8"), (3, "uint8"), (1, "uint8"), (5, "uint8"), (5, "float32"), (2, "uint8", 1),
                                         (2, "uint8", 4, 9, 2), (4, "float32", 1), (300, "uint8", 1, 2, 2))]
    previous = None
    for images, affine_params in batches:
        current = prefetcher.start(images.copy(), affine_params.copy())
        if previous:
            arrived.append(prefetcher.finish(previous))
        previous = current
    arrived.append(prefetcher.finish(previous))
    prefetcher.close()
    for got, (images, affine_params) in zip(arrived, batches, strict=True):
        np.testing.assert_array_equal(got.get(), normalize_batch(images, affine_params))


def test_the_arrays_may_be_overwritten_after_start(cupy):
    """The memory of a worker is used for its next batch as soon as `start` has returned."""
    prefetcher = CudaPrefetcher("gpu")
    images, affine_params = batch(4, "uint8")
    want = normalize_batch(images, affine_params)
    started = prefetcher.start(images, affine_params)
    images[:], affine_params[:] = 0, 1
    np.testing.assert_array_equal(prefetcher.finish(started).get(), want)


def test_each_image_has_its_own_affine_params(cupy):
    """By hand: (2, 2, 3) pixels, one image flipped and one not."""
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    images = np.stack([pixels, pixels])
    affine_params = np.array([[1, 0.5, 1, 2, 1, 2, 4], [0, 0, -1, -2, 1, 1, 0.5]], np.float32)
    prefetcher = CudaPrefetcher("gpu")
    got = to_device(prefetcher.finish(prefetcher.start(images, affine_params)), "cpu").transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(got[0], [[[3.5, 2.5, 1.75], [0.5, 1, 1]], [[9.5, 5.5, 3.25], [6.5, 4, 2.5]]])
    np.testing.assert_array_equal(got[1], [[[0, 0, 0], [3, 3, 6]], [[6, 6, 12], [9, 9, 18]]])


def test_the_order_of_the_copies_and_the_kernels(cupy, monkeypatch):
    """An emulation without real concurrency could not get it wrong, so the calls are recorded: what waits for what."""
    events, calls = [], []

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

    prefetcher, computing = CudaPrefetcher("gpu"), Stream("computing")
    prefetcher.copy_stream = Stream("copying")
    monkeypatch.setattr(cuda_prefetch, "event", Event)
    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda: computing)
    monkeypatch.setattr(cuda_prefetch.StagingBuffer, "put", lambda self, arrays, stream: calls.append(f"{stream.name} copies") or
                        [cupy.asarray(a) for a in arrays.values()])
    monkeypatch.setattr(cuda_prefetch.cuda, "launch_rows", lambda *args, **more: calls.append("a kernel computes"))
    batches = [batch(2, "uint8")] * 3
    first, second = prefetcher.start(*batches[0]), prefetcher.start(*batches[1])
    prefetcher.finish(first)
    third = prefetcher.start(*batches[2])
    prefetcher.finish(second)
    prefetcher.finish(third)
    assert calls == [
        "copying copies", "copying records event 1",
        "copying copies", "copying records event 2",
        "computing waits for event 1", "a kernel computes", "computing records event 3",
        "Python waits for event 1", "copying waits for event 3", "copying copies", "copying records event 4",
        "computing waits for event 2", "a kernel computes", "computing records event 5",
        "computing waits for event 4", "a kernel computes", "computing records event 6"]
