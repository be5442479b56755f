"""Batches travel to the GPU while it computes the one before.

An image goes as bytes, a quarter of its size as floats, and only the crop that was asked for. It is put into pinned memory, which
the GPU can fetch from by itself; the fetching runs on a stream of its own, beside the computation. What is arithmetic on every
pixel (mirror, colour, mean, scale) happens there, in one kernel.

Two batches take turns in two buffers. What waits for what:

    copying batch i into buffer i % 2     waits until batch i - 2 has been turned into floats, out of the same buffer
    turning batch i into floats           waits until batch i is copied

Both are waits of one stream for another. Python only waits before it writes to pinned memory that batch i - 2 may still be read
from, so it is never more than two batches ahead of the GPU.
"""

import numpy as np

from minicnn import gpu
from minicnn.backend import device_number


class Uploader:
    """Moves batches to one GPU: `start` a batch, do other work, `finish` it; `close` at the end."""

    def __init__(self, device):
        import cupy
        self.device = cupy.cuda.Device(device_number(device))
        with self.device:
            self.beside = cupy.cuda.Stream(non_blocking=True)
        self.buffers = [Buffer(), Buffer()]

    def start(self, images, how):
        """Begin to copy a batch: images (n, H, W, C), and what is to be done to each, (n, 1 + 2*C). Returns what `finish` wants."""
        self.buffers.reverse()                      # they take turns
        buffer = self.buffers[0]
        with self.device:
            for name, array in (("images", images), ("how", how)):
                buffer.make_room(name, array.shape, array.dtype)
            if buffer.copied:
                buffer.copied.synchronize()         # batch i - 2 has left the pinned memory
                self.beside.wait_event(buffer.read)
            here = buffer.put({"images": images, "how": how}, self.beside)
            buffer.copied = self.beside.record(event())
        return buffer, here

    def finish(self, started):
        """The images of a batch, (N, C, H, W) float32 in channels-last memory, an array of its own on the GPU."""
        import cupy
        buffer, (images, how) = started
        with self.device:
            computing = cupy.cuda.get_current_stream()
            computing.wait_event(buffer.copied)
            N, H, W, C = images.shape
            if images.dtype == np.uint8:
                floats = cupy.empty(images.shape, np.float32)
                gpu.run("data/images.cu", "finish", N * H, W * C, images, how, floats, H, C, dtype=np.float32)
            else:
                floats = images.copy()
            buffer.read = computing.record(event())
        return floats.transpose(0, 3, 1, 2)

    def close(self):
        """Wait until nothing travels any more: the memory is going to be used for something else."""
        self.beside.synchronize()


class Buffer:
    """Room for one batch, in pinned memory and on the GPU; it grows when it must."""

    def __init__(self):
        self.pinned, self.there = {}, {}
        self.copied = self.read = None              # events: the pinned memory has been read; the GPU's copy has been read

    def make_room(self, name, shape, dtype):
        import cupy
        import cupyx
        old = self.pinned.get(name)
        if old is None or len(old) < shape[0] or old.shape[1:] != shape[1:] or old.dtype != dtype:
            cupy.cuda.Device().synchronize()        # rare: nothing may still be using the old ones
            self.pinned[name], self.there[name] = cupyx.empty_pinned(shape, dtype), cupy.empty(shape, dtype)

    def put(self, arrays, stream):
        """Copy into pinned memory now, and from there to the GPU on this stream. Returns the arrays there."""
        there = []
        for name, array in arrays.items():
            pinned, copy = self.pinned[name][:len(array)], self.there[name][:len(array)]
            pinned[...] = array
            copy.set(pinned, stream=stream)
            there.append(copy)
        return there


def event():
    import cupy
    return cupy.cuda.Event(disable_timing=True)
