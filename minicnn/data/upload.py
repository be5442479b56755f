"""Batches travel to the GPU while it computes the one before.

An image goes as bytes, a quarter of its size as floats, and only the crop that was asked for. Whoever prepares it writes it into
pinned memory, which the GPU can fetch from by itself; the fetching runs on a stream of its own, beside the computation. What is
arithmetic on every pixel (mirror, colour, mean, scale) happens there, in one kernel.

Two batches take turns in two buffers. What waits for what:

    copying batch i into buffer i % 2     waits until batch i - 2 has been turned into floats, out of the same buffer
    turning batch i into floats           waits until batch i is copied

Both are waits of one stream for another; Python waits for neither.
"""

import numpy as np

from minicnn import gpu
from minicnn.backend import device_number


class Uploader:
    """Moves batches to one GPU: `start` a batch, do other work, `finish` it; `close` at the end."""

    def __init__(self, device):
        import cupy
        import cupyx  # noqa: F401 (here, and not first by several workers at once)
        self.device = cupy.cuda.Device(device_number(device))
        with self.device:
            self.beside = cupy.cuda.Stream(non_blocking=True)
        self.buffers: list = [None, None]
        self.emptied: list = [None, None]       # events: the buffer has been read
        self.turn = 0
        self.travelling: list = []              # (event, pinned arrays that are still being read)

    def start(self, shares):
        """Begin to copy a batch, given as Pinned shares. Returns what `finish` wants."""
        import cupy
        turn, self.turn = self.turn, 1 - self.turn
        self.travelling = [(copied, kept) for copied, kept in self.travelling if not copied.done]
        count, shape = sum(len(s.images) for s in shares), shares[0].images.shape[1:]
        with self.device:
            images = self.buffer(turn, "images", count, shape, shares[0].images.dtype)
            how = self.buffer(turn, "how", count, shares[0].how.shape[1:], np.float32)
            if self.emptied[turn]:
                self.beside.wait_event(self.emptied[turn])
            first = 0
            for share in shares:
                part = slice(first, first + len(share.images))
                images[part].set(share.images, stream=self.beside)
                how[part].set(share.how, stream=self.beside)
                first = part.stop
            copied = self.beside.record(cupy.cuda.Event(disable_timing=True))
        self.travelling.append((copied, shares))
        return turn, images, how, copied

    def finish(self, started):
        """The images of a batch, (N, C, H, W) float32 in channels-last memory, an array of its own on the GPU."""
        import cupy
        turn, images, how, copied = started
        with self.device:
            here = cupy.cuda.get_current_stream()
            here.wait_event(copied)
            if images.dtype == np.uint8:
                N, H, W, C = images.shape
                floats = cupy.empty(images.shape, np.float32)
                gpu.run("data/images.cu", "finish", N * H, W * C, images, how, floats, H, C, dtype=np.float32)
            else:
                floats = images.astype(np.float32)
            self.emptied[turn] = here.record(cupy.cuda.Event(disable_timing=True))
        return floats.transpose(0, 3, 1, 2)

    def close(self):
        """Wait until nothing travels any more: the memory is going to be used for something else."""
        self.beside.synchronize()

    def buffer(self, turn, name, count, shape, dtype):
        """Room for `count` images on the GPU, kept from batch to batch."""
        import cupy
        buffers = self.buffers[turn] = self.buffers[turn] or {}
        old = buffers.get(name)
        if old is None or len(old) < count or old.shape[1:] != shape or old.dtype != dtype:
            cupy.cuda.Device().synchronize()            # rare: nothing may still be reading the old one
            buffers[name] = cupy.empty((count, *shape), dtype)
        return buffers[name][:count]


class Pinned:
    """A share of a batch in pinned memory: images (n, H, W, C), and what is to be done to each, (n, 1 + 2*C)."""

    def __init__(self, views, terms):
        import cupyx
        (H, W, C), as_bytes = views[0].shape, views[0].dtype == np.uint8
        self.images = cupyx.empty_pinned((len(views), H, W, C), np.uint8 if as_bytes else np.float32)
        self.how = cupyx.empty_pinned((len(views), 1 + 2 * C), np.float32)
        for image, how, view, (add, divide) in zip(self.images, self.how, views, terms, strict=True):
            if as_bytes:
                mirrored = view.strides[1] < 0          # a mirrored view of an array goes through it backwards
                image[...] = view[:, ::-1] if mirrored else view
                how[0], how[1:1 + C], how[1 + C:] = mirrored, add, divide
            else:                                       # floats already: nothing is left to do on the GPU
                image[...] = (view + add) / divide
