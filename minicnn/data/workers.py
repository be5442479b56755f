"""Worker processes that prepare batches in shared memory while the training computes.

Each is a separate Python process, so no interpreter lock is shared with the others or the training loop. Images are never sent through
a pipe: all processes map the same memory; a job has only the indices of the images to prepare, and its result only the unreadable ones.

A worker ends when its input pipe is closed, so none outlives the training program, even if that is killed. It ignores Ctrl-C, which the
training program handles.
"""

import contextlib
import mmap
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from typing import IO, Any

from minicnn.backend.threads import disable_malloc_trim
from minicnn.data.samples import SampleLoader, SharedBatchBuffers


class WorkerError(RuntimeError):
    """A loader process failed; the message has its traceback, or how it ended."""


class WorkerPool:
    """`count` processes that write samples into the slots of one shared memory.

    Args:
        count: number of processes.
        sample_loader: prepares the samples; it is pickled once, with its data set.
        buffers: the layout of the memory.

    Raises TypeError if the sample loader cannot be pickled, OSError if there is too little shared memory, WorkerError if a process fails.
    """

    def __init__(self, count: int, sample_loader: SampleLoader, buffers: SharedBatchBuffers) -> None:
        self.buffers, self.sample_loader = buffers, sample_loader
        self.replies: queue.SimpleQueue = queue.SimpleQueue()
        self.jobs: list[list[tuple]] = [[] for _ in range(count)]          # of each worker: submitted, and without a result yet
        self.processes: list[subprocess.Popen] = []
        self.readers: list[threading.Thread] = []
        file, path = shared_file(buffers.nbytes)
        self.memory = mmap.mmap(file.fileno(), buffers.nbytes)
        file.close()
        try:
            try:
                payload = pickle.dumps((sample_loader, buffers, path))
            except Exception as error:
                raise TypeError(f"DataLoader: the data set or the transform cannot be sent to worker processes ({error}); "
                                "define its class at the top of a module of its own, or use workers=0") from error
            for worker in range(count):
                self.start(worker, payload)
            for _ in range(count):
                self.next_result()                        # each has mapped the file, so it needs no name any more
        except BaseException:
            self.kill()
            raise
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def start(self, worker, payload):
        """Start a process, the thread that reads its replies, and its first job: to load the sample loader for all others."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, "-c", "from minicnn.data.workers import worker_main; worker_main()"],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self.processes.append(process)
        self.jobs[worker].append(("start",))
        self.readers.append(threading.Thread(target=self._read_replies, args=(worker, process), name=f"loader-{worker}", daemon=True))
        self.readers[-1].start()
        send(process, payload)

    def _read_replies(self, worker, process):
        """Put everything that a worker replies into the queue, and None when it ends; runs in a thread of its own."""
        with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError, ValueError):
            while True:
                self.replies.put((worker, pickle.load(process.stdout)))
        self.replies.put((worker, None))

    def submit(self, worker: int, slot: int, first: int, indices: list[int], epoch: int) -> None:
        """Have a worker prepare the images `indices` in rows `first`, first + 1, ... of a slot."""
        job = (slot, first, indices, epoch)
        self.jobs[worker].append(job)
        send(self.processes[worker], pickle.dumps(job))

    def next_result(self) -> Any:
        """Wait for the next result of a job: (slot, [(row, reason), ...]), see SampleLoader.load_into.

        Raises WorkerError if a worker failed or ended.
        """
        worker, reply = self.replies.get()
        if reply is None:
            raise WorkerError(self.describe_exit(worker))
        self.jobs[worker].pop(0)
        kind, result = reply
        if kind == "failed":
            raise WorkerError(f"a loader process failed:\n{result.rstrip()}")
        return result

    def describe_exit(self, worker):
        """How a worker process ended, and at which job."""
        code = self.processes[worker].wait()
        how = f"was killed by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"ended with exit code {code}"
        job: tuple = self.jobs[worker][0] if self.jobs[worker] else ()
        if job == ("start",):
            doing = "was starting"
        elif job:
            _, _, indices, _ = job
            doing = f"prepared these images: {', '.join(map(self.sample_loader.name, indices))}"
        else:
            doing = "had nothing to do"
        return f"a loader process {how} while it {doing}. If the system killed it, memory may have run out: use fewer workers"

    def pending(self) -> int:
        """The number of outstanding results."""
        return sum(map(len, self.jobs))

    def kill(self) -> None:
        """End the processes at once, in the middle of their jobs."""
        for process in self.processes:
            process.kill()
        self.close()

    def close(self) -> None:
        """End the processes after their current jobs."""
        for process in self.processes:
            with contextlib.suppress(OSError):
                pipe(process.stdin).close()
        for process in self.processes:
            process.wait()
        for process, reader in zip(self.processes, self.readers, strict=True):
            reader.join()
            pipe(process.stdout).close()


def send(process, message):
    """Send bytes to a worker: their length, then the bytes."""
    with contextlib.suppress(BrokenPipeError, ValueError):      # the worker has ended: `next_result` reports that
        pipe(process.stdin).write(len(message).to_bytes(8, "little") + message)
        pipe(process.stdin).flush()


def pipe(end: IO[bytes] | None) -> IO[bytes]:
    """The pipe to or from a process that was started with one."""
    assert end is not None
    return end


def shared_file(nbytes):
    """(file, path): an open file of this size, for other processes to map; in memory (/dev/shm) if the system has that."""
    for folder in ("/dev/shm", None):
        try:
            handle, path = tempfile.mkstemp(prefix="minicnn-", dir=folder)
        except OSError:
            continue
        file = os.fdopen(handle, "w+b")
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, nbytes)       # or the first write beyond the free space would kill the process
            else:
                file.truncate(nbytes)
            return file, path
        except OSError:
            file.close()
            os.unlink(path)
    raise OSError(f"DataLoader: no room for {nbytes / 1e6:.0f} MB of shared memory, neither in /dev/shm nor in {tempfile.gettempdir()}; "
                  "use a smaller batch_size, or workers=0")


def worker_main():
    """The program of a worker process: run the jobs it receives until its input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    disable_malloc_trim()                           # each photograph is allocated and freed: hundreds of pages
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)                                   # print() in a data set must not write to the pipe of replies

    def reply(kind, result):
        pickle.dump((kind, result), replies)
        replies.flush()

    try:
        sample_loader, buffers, path = pickle.loads(recv())
        with open(path, "r+b") as file:
            memory = mmap.mmap(file.fileno(), buffers.nbytes)
        arrays = [buffers.arrays(memory, slot) for slot in range(buffers.count)]
        reply("done", None)
        while message := recv():
            slot, first, indices, epoch = pickle.loads(message)
            reply("done", (slot, sample_loader.load_into(arrays[slot], first, indices, epoch)))
    except BrokenPipeError:
        pass                                        # the training has ended
    except Exception as error:
        hint = ("(a class that worker processes use must be in a module of its own, not in the program itself; or use workers=0)\n"
                if isinstance(error, AttributeError) and "__main__" in str(error) else "")
        with contextlib.suppress(OSError):
            reply("failed", traceback.format_exc() + hint)


def recv():
    """The next message from the parent process; b"" at the end of the input."""
    size = sys.stdin.buffer.read(8)
    return sys.stdin.buffer.read(int.from_bytes(size, "little")) if len(size) == 8 else b""
