"""Worker processes make the same batches as one process, whatever their number, and never hang, whatever happens to them."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from loader_cases import Broken, Numbers, RandomShift

from minicnn.data import DataError, DataLoader, workers
from minicnn.data.samples import SampleError
from minicnn.data.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip
from minicnn.data.workers import WorkerError

TRANSFORM = Compose(RandomCrop(3), RandomHorizontalFlip(), RandomShift(), Normalize(3, 2.0))


@pytest.fixture
def loader():
    """A function that makes loaders, which are closed after the test."""
    made = []

    def make(*args, **kwargs):
        made.append(DataLoader(*args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


def epoch(loader, number=0, start=0):
    return [(images.copy(), labels.copy()) for images, labels in loader.epoch(number, start)]


def same(a, b):
    assert len(a) == len(b)
    for (x, i), (y, j) in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(i, j)


def test_the_same_batches_for_any_number_of_workers(loader):
    wanted = None
    for count in (0, 1, 2, 5):
        made = loader(Numbers(50), 8, TRANSFORM, shuffle=True, seed=3, workers=count)
        epochs = [epoch(made, 0), epoch(made, 1), epoch(made, 1, start=4)]
        wanted = wanted or epochs
        for got, want in zip(epochs, wanted, strict=True):
            same(got, want)
        same(epochs[2], epochs[1][4:])
    assert [len(labels) for _, labels in wanted[0]] == [8] * 6 + [2]
    assert any((x != y).any() for (x, _), (y, _) in zip(wanted[0], wanted[1], strict=True))


def test_images_are_float32_in_channels_last_memory_and_belong_to_the_caller(loader):
    batches = list(loader(Numbers(), 4, Compose(RandomHorizontalFlip(), Normalize(0)), workers=2).epoch(0))
    for number, (images, labels) in enumerate(batches):             # all are still what they were when they were handed out
        assert (images.shape, images.dtype, images.strides[1]) == ((4, 3, 4, 4), np.float32, 4)
        np.testing.assert_array_equal(labels, np.arange(4 * number, 4 * number + 4))
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)


def test_an_epoch_that_was_left_early_does_not_disturb_the_next(loader):
    made = loader(Numbers(60), 4, TRANSFORM, workers=2)
    wanted = epoch(loader(Numbers(60), 4, TRANSFORM, workers=0))
    for leave_after in (1, 3):
        coming = made.epoch(0)
        for _ in range(leave_after):
            next(coming)
        coming.close()
        same(epoch(made), wanted)
    assert len(made.idle_pools) == 1                                      # the same processes served all of it


def test_two_epochs_at_once_do_not_mix(loader):
    made = loader(Numbers(40), 4, TRANSFORM, shuffle=True, workers=2)
    wanted = [epoch(loader(Numbers(40), 4, TRANSFORM, shuffle=True, workers=0), e) for e in (0, 1)]
    got = list(zip(made.epoch(0), made.epoch(1), strict=True))
    same([a for a, _ in got], wanted[0])
    same([b for _, b in got], wanted[1])


@pytest.mark.parametrize(("how", "message"), [
    ("raises", r"(?s)failed:.*ZeroDivisionError: no such thing.*number-7\.jpg: ZeroDivisionError"),
    ("dies", r"killed by signal 9 \(Killed\) while it prepared these images: .*number-7\.jpg.*use fewer workers"),
    ("exits", r"ended with exit code 3 while it prepared these images: .*number-7\.jpg"),
    ("is larger", r"(?s)number-7\.jpg is \(9, 9, 3\) uint8 after the transform, others are \(4, 4, 3\) uint8; end the .* with a crop"),
])
@pytest.mark.parametrize("count", [1, 3])
def test_a_worker_that_fails_ends_the_run_with_the_reason_and_the_file(loader, how, message, count):
    made = loader(Broken(how), 5, Normalize(0), workers=count)
    start = time.monotonic()
    with pytest.raises(WorkerError, match=message):
        epoch(made)
    assert time.monotonic() - start < 20
    assert not made.idle_pools                                            # these processes are not used again
    same(epoch(made, 0, start=2), epoch(loader(Numbers(), 5, Normalize(0), workers=0), 0, start=2))    # new ones are


def test_without_workers_the_error_is_the_same(loader):
    with pytest.raises(SampleError, match=r"number-7\.jpg: ZeroDivisionError: no such thing"):
        epoch(loader(Broken("raises"), 5, Normalize(0), workers=0))


@pytest.mark.parametrize("count", [0, 2])
class TestUnreadableImages:
    def test_raise(self, loader, count):
        made = loader(Broken("is unreadable"), 5, Normalize(0), workers=count)
        batches = made.epoch(0)
        assert next(batches)[1].tolist() == [0, 1, 2, 3, 4]
        with pytest.raises(DataError, match=r"^number-7\.jpg: this image cannot be read"):
            next(batches)

    @pytest.mark.parametrize("on_error", ["skip", "warn"])
    def test_skip_and_warn(self, loader, count, on_error, capsys):
        made = loader(Broken("is unreadable"), 5, Normalize(0), workers=count, on_error=on_error)
        for _ in range(2):
            batches = epoch(made)
            assert [labels.tolist() for _, labels in batches] == [[0, 1, 2, 3, 4], [5, 6, 8, 9], [10, 11, 12, 13, 14], [15, 16, 17, 18, 19]]
            np.testing.assert_array_equal(batches[1][0][:, 0, 0, 0], [5, 6, 8, 9])
        assert list(made.bad) == ["number-7.jpg"]
        assert "it is a test" in made.bad["number-7.jpg"]
        assert capsys.readouterr().err.count("skipped: number-7.jpg") == (on_error == "warn")

    def test_too_many(self, loader, count):
        with pytest.raises(DataError, match=r"4 images cannot be read, more than max_errors=3; the last: number-3\.jpg"):
            epoch(loader(Broken("is all unreadable"), 2, Normalize(0), workers=count, on_error="skip", max_errors=3))
        with pytest.raises(DataError, match=r"not one image of this data set can be read; the first: number-0\.jpg"):
            epoch(loader(Broken("is all unreadable"), 2, Normalize(0), workers=count, on_error="skip"))


def test_what_a_data_set_prints_does_not_disturb_the_replies(loader):
    same(epoch(loader(Broken("prints"), 5, Normalize(0), workers=2)), epoch(loader(Numbers(), 5, Normalize(0), workers=0)))


def test_a_data_set_that_cannot_be_pickled_is_named(loader):
    class Local(Numbers):
        pass
    with pytest.raises(TypeError, match=r"cannot be sent to worker processes .*Local.*workers=0"):
        epoch(loader(Local(), 5, Normalize(0), workers=1))


def test_no_room_in_shared_memory(monkeypatch, tmp_path):
    def full(handle, offset, size):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"no room for 3 MB of shared memory.*use a smaller batch_size, or workers=0"):
        workers.shared_file(3_000_000)


def program(tmp_path, body):
    """Start a program that uses a loader; `pids(loader)` in it prints its workers' process ids."""
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent("""
        import sys, time
        from loader_cases import Broken, Numbers
        from minicnn.data import DataLoader
        from minicnn.data.transforms import Normalize
        def pids(loader): print(*[p.pid for w in loader.idle_pools for p in w.processes], flush=True)
    """) + textwrap.dedent(body))
    return subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=default_sigint,
                            env={**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])})


def default_sigint():
    """In the child process: Ctrl-C is not ignored, even if it is in the process that runs the tests (a job in the background)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def has_ended(pid):
    """Whether this process has ended within five seconds."""
    for _ in range(100):
        state = pathlib.Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


needs_proc = pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="reads /proc")


@needs_proc
def test_a_program_without_a_main_guard_works_and_leaves_no_process_behind(tmp_path):
    with program(tmp_path, """
        loader = DataLoader(Numbers(), 5, Normalize(0), workers=2)
        assert sum(len(labels) for _, labels in loader.epoch(0)) == 20
        pids(loader)
    """) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert len(out.split()) == 2
    assert all(has_ended(pid) for pid in out.split())


def test_a_data_set_in_the_program_itself_gets_a_hint(tmp_path):
    with program(tmp_path, """
        class Mine(Numbers):
            pass
        list(DataLoader(Mine(), 5, Normalize(0), workers=1).epoch(0))
    """) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "must be in a module of its own, not in the program itself; or use workers=0" in err


@needs_proc
@pytest.mark.parametrize(("end", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, -2)])
def test_workers_end_with_the_program_however_it_ends(tmp_path, end, code):
    with program(tmp_path, """
        loader = DataLoader(Numbers(250), 5, Normalize(0), workers=2)
        list(loader.epoch(0))
        pids(loader)
        for _ in loader.epoch(1):
            time.sleep(0.3)
    """) as process:
        pids = process.stdout.readline().split()
        assert len(pids) == 2
        time.sleep(0.5)
        process.send_signal(end)
        _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert all(has_ended(pid) for pid in pids)
    assert err.count("Traceback") == (end == signal.SIGINT), err           # one KeyboardInterrupt, the program's own


@needs_proc
def test_ctrl_c_while_waiting_for_a_slow_image_ends_at_once(tmp_path):
    with program(tmp_path, """
        loader = DataLoader(Broken("sleeps"), 5, Normalize(0), workers=2)
        batches = loader.epoch(0)
        print(len(next(batches)[1]), flush=True)
        next(batches)
    """) as process:
        assert process.stdout.readline() == "5\n"
        time.sleep(0.3)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == -2
    assert time.monotonic() - start < 15
