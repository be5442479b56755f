"""Prefetching to the GPU: the next batch is copied there while the GPU processes the previous one.

Images travel as bytes, a quarter of the size of floats, and only the pixels of the crop. They are copied into pinned memory, and
from there to the GPU on a separate stream, concurrently with the computation. The affine transform of every pixel (flip, color,
mean, scale) is applied on the GPU, by one kernel.

Two staging buffers alternate. Dependencies:

    copying batch i into buffer i % 2     waits until batch i - 2 has been normalized, out of the same buffer
    normalizing batch i                   waits until batch i is copied

Both are waits of one stream for another (events). Python itself only waits before it writes to pinned memory from which batch i - 2
may still be copied, so it is never more than two batches ahead of the GPU.
"""

from typing import Any

import numpy as np

from minicnn.backend import cuda
from minicnn.backend.arrays import device_number


class CudaPrefetcher:
    """Copies batches to one GPU: `start` a batch, do other work, `finish` it; `close` at the end.

    Args:
        device: "gpu", or "gpu:1" and so on.
    """

    def __init__(self, device: str) -> None:
        import cupy
        self.device = cupy.cuda.Device(device_number(device))
        with self.device:
            self.copy_stream = cupy.cuda.Stream(non_blocking=True)
        self.buffers = [StagingBuffer(), StagingBuffer()]

    def start(self, images: np.ndarray, affine_params: np.ndarray) -> Any:
        """Begin to copy a batch: images (n, H, W, C), affine_params (n, 1 + 2 * C). Returns the argument for `finish`.

        Both arrays may be overwritten as soon as this returns.
        """
        self.buffers.reverse()                      # they alternate
        buffer = self.buffers[0]
        with self.device:
            for name, array in (("images", images), ("affine_params", affine_params)):
                buffer.ensure_capacity(name, array.shape, array.dtype)
            if buffer.copied:
                buffer.copied.synchronize()         # batch i - 2 has left the pinned memory
                self.copy_stream.wait_event(buffer.normalized)
            device_arrays = buffer.put({"images": images, "affine_params": affine_params}, self.copy_stream)
            buffer.copied = self.copy_stream.record(event())
        return buffer, device_arrays

    def finish(self, started: Any) -> Any:
        """The images of a batch, (n, C, H, W) float32 in channels-last memory, in a new array on the GPU."""
        import cupy
        buffer, (images, affine_params) = started
        with self.device:
            compute_stream = cupy.cuda.get_current_stream()
            compute_stream.wait_event(buffer.copied)
            N, H, W, C = images.shape
            if images.dtype == np.uint8:
                floats = cupy.empty(images.shape, np.float32)
                cuda.launch_rows("data/images.cu", "normalize_batch", N * H, W * C, images, affine_params, floats, H, C, dtype=np.float32)
            else:                                   # floats: the sample loader has applied the transform already
                floats = images.copy()
            buffer.normalized = compute_stream.record(event())
        return floats.transpose(0, 3, 1, 2)

    def close(self) -> None:
        """Wait until all copies are done: after that their memory may be reused."""
        self.copy_stream.synchronize()


class StagingBuffer:
    """Memory for one batch, pinned on the CPU and on the GPU; it grows as needed."""

    def __init__(self):
        self.pinned, self.device_arrays = {}, {}
        self.copied = self.normalized = None        # events: the pinned memory has been read; the GPU's copy has been read

    def ensure_capacity(self, name, shape, dtype):
        """Allocate new memory for the array `name` if it does not fit into the existing memory."""
        import cupy
        import cupyx
        old = self.pinned.get(name)
        if old is None or len(old) < shape[0] or old.shape[1:] != shape[1:] or old.dtype != dtype:
            cupy.cuda.Device().synchronize()        # rare: nothing may still be using the old memory
            self.pinned[name], self.device_arrays[name] = cupyx.empty_pinned(shape, dtype), cupy.empty(shape, dtype)

    def put(self, arrays, stream):
        """Copy arrays into pinned memory now, and from there to the GPU on this stream. Returns the arrays on the GPU."""
        on_device = []
        for name, array in arrays.items():
            pinned, device_array = self.pinned[name][:len(array)], self.device_arrays[name][:len(array)]
            pinned[...] = array
            device_array.set(pinned, stream=stream)
            on_device.append(device_array)
        return on_device


def event():
    import cupy
    return cupy.cuda.Event(disable_timing=True)
