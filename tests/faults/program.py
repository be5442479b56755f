"""The training program in forked child processes, which start at once and receive a signal at a chosen moment.

The test's side is `Program`: a call runs examples/train_alexnet.py with its arguments. The other side, this file run as a program,
has imported everything, forks a child for each call, and waits for it. A child writes to shared memory what it is doing (its phase:
"step", "write", ...), so that a signal can be sent in the middle of it; nothing else about the program is changed, unless a call asks
for a fault.
"""

import contextlib
import dataclasses
import errno
import json
import mmap
import os
import pathlib
import pkgutil
import signal
import struct
import subprocess
import sys
import time
import traceback

ROOT = pathlib.Path(__file__).parents[2]
HERE = ["--device", "cpu", "--checkpoint-steps", "2", "--no-report"]          # not saved in checkpoints: also needed with --resume
SHORT = [*HERE, "--max-images", "64", "--batch-size", "8"]                   # 8 steps an epoch
STEPS = 12
PATIENCE = 150                      # seconds until a child is considered hung
PHASES = ["start", "data", "step", "validation", "batch", "save", "write", "sync", "rename", "remove", "draw"]


@dataclasses.dataclass
class Blow:
    """A signal to send `delay` seconds after the child begins `phase` for the n-th time; None: at once, sent by the child itself."""

    phase: str
    nth: int = 1
    delay: float | None = None
    signal: int = signal.SIGKILL


@dataclasses.dataclass
class Result:
    """How a child ended: exit code (minus the signal, if one killed it), stdout, stderr, and its last phase."""

    code: int
    out: str
    err: str
    phase: str


class Program:
    """The training program, run again and again. Close it when done."""

    def __init__(self, home):
        """home: a folder for the child's home and temporary folders."""
        for name in ("home", "tmp"):
            (home / name).mkdir(parents=True, exist_ok=True)
        self.output = {name: home.parent / f"{home.name}-{name}" for name in ("out", "err")}
        environment = {**os.environ, "HOME": str(home / "home"), "TMPDIR": str(home / "tmp"), "COLUMNS": "120",
                       "PYTHONDONTWRITEBYTECODE": "1", "MPLCONFIGDIR": str(home.parent / "matplotlib"), "MPLBACKEND": "agg",
                       "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        self.process = subprocess.Popen([sys.executable, "-W", "error", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=environment)

    def __call__(self, *argv, cwd, blows=(), faults=None):
        """Run it with these arguments in folder `cwd`. faults: {name in FAULTS: its arguments}, applied in the child."""
        request = {"argv": [str(a) for a in argv], "cwd": str(cwd), "blows": [dataclasses.asdict(b) for b in blows], "faults": faults or {},
                   "out": str(self.output["out"]), "err": str(self.output["err"])}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        reply = self.process.stdout.readline()
        assert reply, "the process that forks the children has ended"
        reply = json.loads(reply)
        result = Result(reply["code"], *(path.read_text() for path in self.output.values()), reply["phase"])
        assert not reply["hung"], f"hung in phase {result.phase}\n{result.err}"
        return result

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


class Shared:
    """Memory shared with the parent: the child's phase, and how often it began each phase."""

    def __init__(self):
        self.memory = mmap.mmap(-1, 8 * (1 + len(PHASES)))

    def get(self, i):
        return struct.unpack_from("q", self.memory, 8 * i)[0]

    def put(self, i, value):
        struct.pack_into("q", self.memory, 8 * i, value)

    def phase(self):
        return PHASES[self.get(0)]

    def count(self, phase):
        return self.get(1 + PHASES.index(phase))


# ---- the child ----

def child(request, shared):
    """Run the program, then exit without returning to the parent's code."""
    code = 120
    try:
        for number, name, flags in ((0, os.devnull, os.O_RDONLY), (1, request["out"], os.O_WRONLY), (2, request["err"], os.O_WRONLY)):
            handle = os.open(name, flags | (os.O_CREAT | os.O_TRUNC if flags else 0))
            os.dup2(handle, number)
            os.close(handle)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(request["cwd"])
        own = [b for b in request["blows"] if b["delay"] is None]
        for name, what in request["faults"].items():
            FAULTS[name](*what)
        announce_phases(shared, own)
        from minicnn.examples import train_alexnet
        sys.argv = ["train_alexnet.py", *request["argv"]]
        code = train_alexnet.main(request["argv"])
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 121
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def announce_phases(shared, blows):
    """Wrap the function that each phase is named after, so that it writes the phase when it begins."""
    import minicnn as mc
    from minicnn.examples import bookkeeping, train_alexnet
    from minicnn.train import checkpoint_manager

    def begin(phase):
        i = PHASES.index(phase)
        shared.put(0, i)
        shared.put(1 + i, shared.get(1 + i) + 1)
        for blow in blows:
            if blow["phase"] == phase and blow["nth"] == shared.get(1 + i):
                os.kill(os.getpid(), blow["signal"])

    def announce(phase, owner, name):
        function = getattr(owner, name)

        def announced(*args, **kwargs):
            before = shared.get(0)
            begin(phase)
            result = function(*args, **kwargs)
            shared.put(0, before)
            return result
        setattr(owner, name, announced)

    import numpy as np
    begin("start")
    announce("data", train_alexnet, "Data")
    announce("validation", train_alexnet, "evaluate")
    announce("batch", mc.ops, "softmax")            # called by `evaluate` only
    announce("save", checkpoint_manager, "save_checkpoint")
    announce("write", np.lib.format, "write_array")
    announce("sync", os, "fsync")
    announce("rename", os, "replace")
    announce("remove", os, "unlink")
    announce("draw", bookkeeping.Bookkeeping, "draw")
    step = mc.optim.SGD.step

    def announced_step(self):
        begin("step")
        step(self)
    mc.optim.SGD.step = announced_step


def clock(now, tick):
    """All clocks are wrong: they start at `now`, and each reading is `tick` seconds after the last."""
    state = [now]

    def read():
        state[0] += tick
        return state[0]
    time.time = time.monotonic = time.perf_counter = read


def failing(name, nth, number):
    """The n-th call of os.<name> and all later ones fail with this errno."""
    function, calls = getattr(os, name), [0]

    def fails(*args, **kwargs):
        calls[0] += 1
        if calls[0] >= nth:
            raise OSError(number, os.strerror(number))
        return function(*args, **kwargs)
    setattr(os, name, fails)


def forgetting(name):
    """The function with this dotted name does nothing."""
    owner, _, name = name.rpartition(".")
    setattr(pkgutil.resolve_name(owner), name, lambda *args, **kwargs: None)


FAULTS = {"clock": clock, "failing": failing, "forgetting": forgetting}
ERRNOS = [errno.ENOSPC, errno.EROFS, errno.EIO]


# ---- its parent ----

def serve():
    """Fork a child for each line of the input; write a line about each."""
    import warnings

    import matplotlib.pyplot  # noqa: F401 (so that children need not import it)

    import minicnn.visualize.figures  # noqa: F401
    from minicnn.examples import train_alexnet  # noqa: F401
    warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork")      # OpenBLAS has threads, and handles forks
    for line in sys.stdin:
        request = json.loads(line)
        shared = Shared()
        pid = os.fork()
        if pid == 0:
            child(request, shared)
        print(json.dumps(supervise(pid, request, shared)), flush=True)


def supervise(pid, request, shared):
    """Send the signals that are due, until the child ends or its time is over."""
    blows = [b for b in request["blows"] if b["delay"] is not None]
    end = time.monotonic() + PATIENCE
    hung = False
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return {"code": os.waitstatus_to_exitcode(status), "phase": shared.phase(), "hung": hung}
        if blows and shared.count(blows[0]["phase"]) >= blows[0]["nth"]:
            blow = blows.pop(0)
            time.sleep(blow["delay"])
            os.kill(pid, blow["signal"])            # it is not waited for yet, so its pid is still valid
        elif time.monotonic() > end:
            hung = True
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.0003 if blows else 0.003)


if __name__ == "__main__":
    serve()
