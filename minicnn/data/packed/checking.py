"""Is a packed set still what was written? Everything is read and decoded once."""

from tqdm import tqdm

from minicnn import parallel
from minicnn.data.datasets import DataError
from minicnn.data.packed.files import CONTENTS, MEND, ahead, fingerprint, read_end, shard_path
from minicnn.data.packed.reading import Packed


def verify(root, workers=None, progress=True):
    """Read and decode a whole packed set. A list of what is wrong with it, one sentence each; empty if it is as it was written."""
    try:
        packed = Packed(root)
    except DataError as error:
        return str(error).splitlines()
    problems = []
    try:
        paths = [shard_path(packed.root, number) for number in range(len(packed.shards))]
        found = [(len(rows), table) for rows, table, _ in map(read_end, paths)]
        said = [(shard["images"], shard["table"]) for shard in packed.shards]
        if found != said or fingerprint(packed.contents, paths) != packed.fingerprint():
            problems.append(f"{packed.root / CONTENTS}: does not fit the shards, or was changed; {MEND}")
    except DataError as error:
        problems.append(str(error))

    def check(i):
        try:
            packed.picture(i)
        except DataError as error:
            return str(error)

    answers = ahead(check, range(len(packed)), workers or parallel.cores())
    bar = tqdm(answers, total=len(packed), unit=" images", dynamic_ncols=True, disable=not progress)
    return problems + [problem for problem in bar if problem]
