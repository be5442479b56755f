"""A run as one page for any browser: its facts and curves, and every layer's forward and backward, step by step through the training.

    python examples/train_alexnet.py            # leaves runs/mini-1/report.html
    minicnn report runs/mini-1                  # writes it anew

    frame.py        one moment of a training: what each layer did with a few images then, and what came back
    album.py        takes frames while a run trains
    pictures.py     arrays as small pictures
    facts.py        what is the same at every moment: the network, its formulas, its speed, the log, the test
    curves.py       the log as a drawing
    page.py         all of it in one file: page.html, page.css and page.js with the numbers beside
    command.py      minicnn report
"""

from minicnn.study.report.album import Album
from minicnn.study.report.page import write

__all__ = ["Album", "write"]
