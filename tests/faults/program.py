"""The training program in forked children, which begin at once; a signal strikes them at a chosen moment.

The test's side is `Program`: a call runs examples/train_alexnet.py with these arguments. The other side, this file run as a program,
has imported everything, forks a child for each call, and looks after it. A child tells in shared memory what it is doing ("step",
"write", ...), so that a blow can be aimed at the middle of it; nothing else about the program is changed, unless a call asks for a fault.
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
HERE = ["--device", "cpu", "--save-steps", "2", "--no-report"]          # what a resumed run has to be told again
SHORT = [*HERE, "--limit", "64", "--batch-size", "8"]                   # 8 steps an epoch
STEPS = 12
PATIENCE = 150                      # seconds until a child counts as hung
PHASES = ["start", "data", "step", "validation", "batch", "save", "write", "sync", "rename", "remove", "draw"]


@dataclasses.dataclass
class Blow:
    """A signal: when the child begins `phase` for the n-th time, `delay` seconds later; None: at once, by its own hand."""

    phase: str
    nth: int = 1
    delay: float | None = None
    signal: int = signal.SIGKILL


@dataclasses.dataclass
class Result:
    """How a child ended: exit code (minus the signal, if one ended it), what it printed and complained, and what it was doing."""

    code: int
    out: str
    err: str
    phase: str


class Program:
    """The training program, run again and again. Close it when done."""

    def __init__(self, home):
        """`home`: a folder for what a user's home and the system's place for temporary files would hold."""
        for name in ("home", "tmp"):
            (home / name).mkdir(parents=True, exist_ok=True)
        self.said = {name: home.parent / f"{home.name}-{name}" for name in ("out", "err")}
        environment = {**os.environ, "HOME": str(home / "home"), "TMPDIR": str(home / "tmp"), "COLUMNS": "120",
                       "PYTHONDONTWRITEBYTECODE": "1", "MPLCONFIGDIR": str(home.parent / "matplotlib"), "MPLBACKEND": "agg",
                       "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")])}
        self.process = subprocess.Popen([sys.executable, "-W", "error", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=environment)

    def __call__(self, *argv, cwd, blows=(), faults=None):
        """Run it with these arguments in folder `cwd`. `faults`: for the child, a name of FAULTS and what it is called with."""
        request = {"argv": [str(a) for a in argv], "cwd": str(cwd), "blows": [dataclasses.asdict(b) for b in blows], "faults": faults or {},
                   "out": str(self.said["out"]), "err": str(self.said["err"])}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        reply = self.process.stdout.readline()
        assert reply, "the server of forked programs is gone"
        reply = json.loads(reply)
        result = Result(reply["code"], *(path.read_text() for path in self.said.values()), reply["phase"])
        assert not reply["hung"], f"hung while it did this: {result.phase}\n{result.err}"
        return result

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


class Shared:
    """What a child is doing, and how often it began each thing; seen by its parent too."""

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
    """Be the program, to the end; then exit without a word to the parent's Python."""
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
        tell_what_is_done(shared, own)
        import train_alexnet
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


def tell_what_is_done(shared, blows):
    """Have the functions that the phases are named after say so when they begin."""
    import train_alexnet

    import minicnn as mc
    from minicnn import keeper

    def begin(phase):
        i = PHASES.index(phase)
        shared.put(0, i)
        shared.put(1 + i, shared.get(1 + i) + 1)
        for blow in blows:
            if blow["phase"] == phase and blow["nth"] == shared.get(1 + i):
                os.kill(os.getpid(), blow["signal"])

    def told(phase, owner, name):
        function = getattr(owner, name)

        def telling(*args, **kwargs):
            before = shared.get(0)
            begin(phase)
            result = function(*args, **kwargs)
            shared.put(0, before)
            return result
        setattr(owner, name, telling)

    import numpy as np
    begin("start")
    told("data", train_alexnet, "Data")
    told("validation", train_alexnet, "evaluate")
    told("batch", mc.ops, "softmax")            # only `evaluate` calls it
    told("save", keeper, "save_checkpoint")
    told("write", np.lib.format, "write_array")
    told("sync", os, "fsync")
    told("rename", os, "replace")
    told("remove", os, "unlink")
    told("draw", train_alexnet, "draw")
    step = mc.optim.SGD.step

    def telling_step(self):
        begin("step")
        step(self)
    mc.optim.SGD.step = telling_step


def clock(now, tick):
    """All clocks are wrong: they begin at `now` and every look at one is `tick` seconds after the last."""
    state = [now]

    def look():
        state[0] += tick
        return state[0]
    time.time = time.monotonic = time.perf_counter = look


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
    """A child for each line of the input; a line of output about each."""
    import warnings

    import matplotlib.pyplot  # noqa: F401 (so that children need not import it)
    import train_alexnet  # noqa: F401

    import minicnn.study.figures  # noqa: F401
    warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork")      # OpenBLAS has threads, and knows about forks
    for line in sys.stdin:
        request = json.loads(line)
        shared = Shared()
        pid = os.fork()
        if pid == 0:
            child(request, shared)
        print(json.dumps(look_after(pid, request, shared)), flush=True)


def look_after(pid, request, shared):
    """Deal the blows that are due, until the child ends or has had its time."""
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
            os.kill(pid, blow["signal"])            # it is not waited for yet, so the number is still its own
        elif time.monotonic() > end:
            hung = True
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.0003 if blows else 0.003)


if __name__ == "__main__":
    serve()
