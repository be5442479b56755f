"""The report of a run: one HTML page with its curves, and the forward and backward of every layer, snapshot by snapshot of the training.

    python examples/train_alexnet.py            # writes runs/mini-1/report.html
    minicnn report runs/mini-1                  # rewrites it

    snapshots.py        a snapshot: the outputs and gradients of every layer for a few test images, at one step of the training
    recorder.py         SnapshotRecorder records snapshots while a run trains
    thumbnails.py       arrays as small images
    static_sections.py  what does not change over the steps: the network, its formulas, its speed, the run's settings, the test
    curves.py           loss and accuracy as SVG
    html.py             all of it in one file: page.html, page.css and page.js, with the data
"""

from minicnn.visualize.report.html import write
from minicnn.visualize.report.recorder import SnapshotRecorder

__all__ = ["SnapshotRecorder", "write"]
