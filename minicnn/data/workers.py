"""Processes that prepare images beside the training.

Each is a Python of its own, so they do not wait for each other or for the training loop. Images never travel through a pipe: all
processes look at the same memory, and only the numbers of the images to prepare go one way, and "done" the other.

A worker ends when its input ends, so none outlives the training, however that ends. It ignores Ctrl-C, which is for the training
to answer.
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
from typing import Any

from minicnn.parallel import keep_freed_memory


class WorkerError(RuntimeError):
    """A loader process failed; the message has its traceback, or how it ended."""


class Workers:
    """`count` processes that fill the slots of one shared memory.

    Args:
        preparer: does the work; it is pickled, once.
        slots: how the memory is laid out.
    """

    def __init__(self, count, preparer, slots):
        self.slots, self.preparer = slots, preparer
        self.replies: queue.SimpleQueue = queue.SimpleQueue()
        self.jobs: list[list[tuple]] = [[] for _ in range(count)]          # what each worker has been asked for and not answered
        self.processes: list[subprocess.Popen] = []
        self.listeners: list[threading.Thread] = []
        file, path = shared_file(slots.nbytes)
        self.memory = mmap.mmap(file.fileno(), slots.nbytes)
        file.close()
        try:
            try:
                payload = pickle.dumps((preparer, slots, path))
            except Exception as error:
                raise TypeError(f"DataLoader: the data set or the transform cannot be sent to worker processes ({error}); "
                                "define its class at the top of a module of its own, or use workers=0") from error
            for number in range(count):
                self.start(number, payload)
            for _ in range(count):
                self.reply()                        # each says that it is ready; then the file needs no name any more
        except BaseException:
            self.kill()
            raise
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def start(self, number, payload):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, "-c", "from minicnn.data.workers import work; work()"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, env=environment)
        self.processes.append(process)
        self.jobs[number].append(("start",))
        self.listeners.append(threading.Thread(target=self.listen, args=(number, process), name=f"loader-{number}", daemon=True))
        self.listeners[-1].start()
        self.tell(process, payload)

    def tell(self, process, message):
        with contextlib.suppress(BrokenPipeError, ValueError):      # it is gone: `listen` notices, and says so
            pipe(process.stdin).write(len(message).to_bytes(8, "little") + message)
            pipe(process.stdin).flush()

    def listen(self, number, process):
        """Hand on what a worker says, until it ends; runs in a thread of its own."""
        with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError, ValueError):
            while True:
                self.replies.put((number, pickle.load(process.stdout)))
        self.replies.put((number, None))

    def ask(self, share, slot, first, numbers, epoch):
        """Have images `numbers` put into rows `first`, first + 1, ... of a slot, by worker number `share`."""
        job = (slot, first, numbers, epoch)
        self.jobs[share].append(job)
        self.tell(self.processes[share], pickle.dumps(job))

    def reply(self):
        """Wait for the next answer: (slot, [(row, reason), ...]). Raises WorkerError if a worker failed or ended."""
        number, said = self.replies.get()
        if said is None:
            process = self.processes[number]
            code = process.wait()
            doing: tuple = self.jobs[number][0] if self.jobs[number] else ("nothing",)
            what = "was starting" if doing == ("start",) else "had nothing to do"
            if doing[1:]:
                what = f"prepared these images: {', '.join(self.preparer.name(i) for i in doing[2])}"
            how = f"was killed by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"ended with exit code {code}"
            raise WorkerError(f"a loader process {how} while it {what}. If the system killed it, memory may have run out: "
                              "use fewer workers")
        self.jobs[number].pop(0)
        kind, answer = said
        if kind == "failed":
            raise WorkerError(f"a loader process failed:\n{answer.rstrip()}")
        return answer

    def busy(self):
        """How many answers are still to come."""
        return sum(map(len, self.jobs))

    def kill(self):
        """End the processes at once, in the middle of whatever they do."""
        for process in self.processes:
            process.kill()
        self.close()

    def close(self):
        """End the processes when they have done what they were asked for."""
        for process in self.processes:
            with contextlib.suppress(OSError):
                pipe(process.stdin).close()
        for process in self.processes:
            process.wait()
        for process, listener in zip(self.processes, self.listeners, strict=True):
            listener.join()
            pipe(process.stdout).close()


def pipe(end) -> Any:
    """A pipe to or from a process; it was started with one."""
    return end


def shared_file(nbytes):
    """An open file of this size, whose memory other processes can map, and its path: in memory where the system has a place for that."""
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
                  "use a smaller batch, or workers=0")


def work():
    """What a worker process runs: prepare what it is asked for, until there is nobody left to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()                             # photographs come and go, each some hundred pages
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)                                   # what a data set prints must not get between the answers

    def say(*message):
        pickle.dump(message, replies)
        replies.flush()

    try:
        preparer, slots, path = pickle.loads(heard())
        with open(path, "r+b") as file:
            memory = mmap.mmap(file.fileno(), slots.nbytes)
        arrays = [slots.arrays(memory, slot) for slot in range(slots.count)]
        say("done", None)
        while message := heard():
            slot, first, numbers, epoch = pickle.loads(message)
            say("done", (slot, preparer.fill(arrays[slot], first, numbers, epoch)))
    except BrokenPipeError:
        pass                                        # the training has ended
    except Exception as error:
        hint = ("(a class that worker processes shall use must be in a module of its own, not in the program itself; or use workers=0)\n"
                if isinstance(error, AttributeError) and "__main__" in str(error) else "")
        with contextlib.suppress(OSError):
            say("failed", traceback.format_exc() + hint)


def heard():
    """The next message, or b"" if there is none any more."""
    size = sys.stdin.buffer.read(8)
    return sys.stdin.buffer.read(int.from_bytes(size, "little")) if len(size) == 8 else b""
