"""A run that is killed at any moment and resumed ends with the same bits as one that was never killed.

By SIGKILL, which no program can handle: a hundred of them while the program starts, reads its data, computes a step, validates, and
writes, renames and removes checkpoints; many hit a run that was killed before.
"""

import collections
import os
import pathlib
import shutil
import threading

import numpy as np
import pytest
from bits import differences
from program import HERE, PHASES, SHORT, STEPS, Blow, Program

from minicnn.train.checkpoint_manager import list_checkpoints, load_latest
from minicnn.train.log import read_log

KILLS = 100
LANES = 2                   # runs in parallel
MOST_PER_RUN = 8
# {phase: (weight of being chosen, up to which occurrence, up to how many seconds after its start)}. The delay is about as long as the
# phase lasts; None: at once.
AIMS = {"start": (8, 1, 0.03), "data": (8, 1, 0.1), "step": (26, 5, 0.04), "validation": (14, 1, 0.12), "batch": (4, 8, None),
        "save": (12, 3, 0.02), "write": (16, 90, None), "sync": (8, 6, None), "rename": (8, 3, None), "remove": (8, 3, None),
        "draw": (4, 1, 0.5)}


def aim(rng):
    """A kill at a random moment."""
    weights = np.array([AIMS[phase][0] for phase in AIMS])
    phase = str(rng.choice(list(AIMS), p=weights / weights.sum()))
    _, most, longest = AIMS[phase]
    return Blow(phase, int(rng.integers(1, most + 1)), None if longest is None else float(rng.uniform(0, longest)))


def surroundings(folder, but):
    """{path: (size, time of modification, contents)} of everything in a folder, except inside the path `but`."""
    found = {}
    for where, folders, files in os.walk(folder):
        if pathlib.Path(where) == but:
            folders.clear()
            continue
        for name in [*folders, *files]:
            path = pathlib.Path(where) / name
            stat = path.lstat()
            if path.is_file():
                found[str(path)] = (stat.st_size, stat.st_mtime_ns, path.read_bytes())
            else:
                found[str(path)] = None             # (a folder's time changes with its contents, which are compared)
    return found


def start_or_resume(run, steps):
    """The command line that a user, or a script, would use next."""
    begun = run.is_dir() and list_checkpoints(run)
    return ["--resume", run, *HERE, "--max-steps", steps] if begun else [*SHORT, "--max-steps", steps, "--out", run]


def check_log(records, straight):
    """Every step once, with the same numbers as in an uninterrupted run."""
    steps = [r for r in records if r["kind"] == "train"]
    assert [r["step"] for r in steps] == list(range(1, STEPS + 1))
    for kind in ("train", "val"):
        numbers, expected = ([{k: v for k, v in r.items() if k != "seconds"} for r in log if r["kind"] == kind]
                           for log in (records, straight))
        assert numbers == expected, kind


class Lane(threading.Thread):
    """A thread of runs, one after the other, that are killed until all kills of this lane are done."""

    def __init__(self, number, folder, straight, kills):
        super().__init__()
        self.rng = np.random.default_rng([number, 2012])
        self.folder, self.straight, self.kills = folder, straight, kills
        self.killed_in: collections.Counter = collections.Counter()
        self.runs = self.tries = 0
        self.error = None

    def run(self):
        try:
            program = Program(self.folder / "user")
            try:
                while self.killed_in.total() < self.kills:
                    self.one_run(program)
            finally:
                program.close()
        except BaseException as error:
            self.error = error

    def one_run(self, program):
        """Start, kill, resume, kill, ..., and at the end compare."""
        here = self.folder / "user" / "work"
        here.mkdir(exist_ok=True)
        (here / "mine.txt").write_text("not a file of the run")
        (here / "checkpoint-000000001.npz").write_text("neither is this")
        run = here / "run"
        before = surroundings(self.folder / "user", run)
        killed = 0
        while True:
            self.tries += 1
            assert self.tries < 4 * KILLS
            blow = aim(self.rng) if killed < MOST_PER_RUN and self.killed_in.total() < self.kills else None
            result = program(*start_or_resume(run, STEPS), cwd=here, blows=[blow] if blow else [])
            if result.code == 0:
                break
            assert (result.code, result.err.count("Traceback")) == (-9, 0), result.err
            self.killed_in[result.phase] += 1
            killed += 1
        contents, records = load_latest(run)[1], read_log(run / "log.jsonl")
        assert differences(contents, self.straight[0]) == []
        check_log(records, self.straight[1])
        assert surroundings(self.folder / "user", run) == {**before, str(run): None}
        left = {p.name for p in run.iterdir() if not p.name.endswith(".png")} - {"log.jsonl"}
        last = {f"checkpoint-{s:09}.npz" for s in range(STEPS - 4, STEPS + 1, 2)}
        # One more, if the kill came just before it was removed; but no incomplete one, however many saves were interrupted.
        assert last <= left <= {f"checkpoint-{s:09}.npz" for s in range(2, STEPS + 1, 2)}
        assert len(left) <= len(last) + 2
        shutil.rmtree(run)
        self.runs += 1


def test_a_hundred_kills_change_nothing(program, straight, tmp_path, capsys):
    lanes = []
    for number in range(LANES):
        (tmp_path / f"lane-{number}").mkdir()
        lanes.append(Lane(number, tmp_path / f"lane-{number}", straight, KILLS // LANES))
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    killed_in = sum((lane.killed_in for lane in lanes), collections.Counter())
    with capsys.disabled():
        print(f"\n{killed_in.total()} kills of {sum(lane.runs for lane in lanes)} runs, in {sum(lane.tries for lane in lanes)} tries: "
              + ", ".join(f"{phase} {killed_in[phase]}" for phase in PHASES))
    for lane in lanes:
        if lane.error:
            raise lane.error
    assert killed_in.total() == KILLS
    assert {"data", "step", "validation", "write", "sync", "rename", "remove"} <= set(killed_in)       # the chosen moments were hit


def test_the_comparison_detects_differences(straight):
    """Negative control: one bit of one weight, a repeated step, a repeated validation, another loss, a missing step."""
    contents, records = straight
    check_log(records, records)
    assert differences(contents, contents) == []
    weight = contents["model"]["conv1.weight"].copy()
    weight.view(np.uint32)[0, 0, 0, 0] ^= 1
    assert differences({**contents, "model": {**contents["model"], "conv1.weight": weight}}, contents) == ["/model/conv1.weight"]
    train = next(r for r in records if r["kind"] == "train")
    val = next(r for r in records if r["kind"] == "val")
    for wrong in ([train, *records], [*records, val], [{**r, "loss": r["loss"] + 1e-6} if r is train else r for r in records], records[1:]):
        with pytest.raises(AssertionError):
            check_log(wrong, records)


@pytest.mark.parametrize("blow", [
    pytest.param(Blow("save", 5), id="after the validation, before its checkpoint"),
    pytest.param(Blow("rename", 5), id="its checkpoint is written, but not renamed yet"),
    pytest.param(Blow("remove", 1), id="it is renamed, and an older one not removed yet"),
    pytest.param(Blow("save", 1), id="before the first checkpoint"),
])
def test_a_kill_at_a_critical_moment_changes_nothing(blow, program, straight, tmp_path):
    run = tmp_path / "run"
    assert program(*start_or_resume(run, STEPS), cwd=tmp_path, blows=[blow]).code == -9
    result = program(*start_or_resume(run, STEPS), cwd=tmp_path)
    assert result.code == 0, result.err
    assert differences(load_latest(run)[1], straight[0]) == []
    check_log(read_log(run / "log.jsonl"), straight[1])
    assert not list(run.glob("*.tmp"))


def test_a_run_killed_before_its_first_checkpoint_must_be_started_again(program, tmp_path):
    assert program(*SHORT, "--max-steps", STEPS, "--out", "run", cwd=tmp_path, blows=[Blow("save")]).code == -9
    result = program("--resume", "run", *HERE, cwd=tmp_path)
    assert result.code == 2
    assert result.err == ("error: run: no checkpoint of a run is here; if the run was stopped before its first one, start it again "
                          "with --out\n")
