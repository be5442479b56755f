"""A look at every image of a data set before a long training: what is there, what cannot be read, what is there twice.

    report = verify("photos")               # the folder with train/ and val/, say
    print(describe(report))

    which images there are      everything.py
    a look at one               looking.py
    images that are the same    repeated.py
    all of it                   verifying.py
    in words                    words.py
"""

from minicnn.data.check.verifying import verify
from minicnn.data.check.words import describe

__all__ = ["describe", "verify"]
