"""Pictures of a run and of what its network sees, as PNG files. They need matplotlib.

    minicnn figures runs/mini-1             # all of them, into runs/mini-1/figures/

    how it learned          training_curves     loss and accuracy over the steps                        curves.py
                            histograms          gradients and updates of every parameter                histograms.py
    what it has learned     filters             the filters of the first layer                          filters.py
    what it sees            feature_maps        the answer of every layer to one image                  feature_maps.py
                            saliency            which pixels a class's score hangs on                   saliency.py
                            occlusion           what must not be covered                                occlusion.py
    what it answers         predictions         images, and the five classes it thinks likeliest        predictions.py
                            confusion           who is taken for whom                                   confusion.py
                            nearest             the training images that it finds most like another     nearest.py

Each writes one file and returns matplotlib's Figure. The numbers behind a picture have a function of their own beside it: saliency_map,
occlusion_map, step_sizes, nearest_images. The command is in command.py.
"""

from minicnn.study.figures.canvas import figure_class
from minicnn.study.figures.confusion import confusion
from minicnn.study.figures.curves import running_mean, training_curves
from minicnn.study.figures.feature_maps import feature_maps
from minicnn.study.figures.filters import filters
from minicnn.study.figures.histograms import histograms, step_sizes
from minicnn.study.figures.nearest import nearest, nearest_images
from minicnn.study.figures.occlusion import occlusion, occlusion_map
from minicnn.study.figures.predictions import predictions
from minicnn.study.figures.saliency import saliency, saliency_map

__all__ = ["confusion", "feature_maps", "figure_class", "filters", "histograms", "nearest", "nearest_images", "occlusion", "occlusion_map",
           "predictions", "running_mean", "saliency", "saliency_map", "step_sizes", "training_curves"]
