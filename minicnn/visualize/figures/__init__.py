"""Figures of a run and its network, as PNG files. They need matplotlib.

    minicnn figures runs/mini-1             # all of them, into runs/mini-1/figures/

    the training            training_curves     loss and accuracy over the steps                            curves.py
                            histograms          gradients and updates of every parameter                    histograms.py
    the weights             filters             the filters of the first layer                              filters.py
    one image               feature_maps        the output of every layer                                   feature_maps.py
                            saliency            the gradient of a class score with respect to the pixels    saliency.py
                            occlusion           the probability while a patch covers part of the image      occlusion.py
    the predictions         predictions         images, and their five most probable classes                predictions.py
                            confusion_matrix    true classes against predicted ones                         confusion_matrix.py
                            nearest_neighbours  the training images with the nearest features               nearest_neighbours.py

Each writes one file and returns matplotlib's Figure. The numbers behind a figure have a function of their own: saliency_map,
occlusion_map, update_ratios, nearest_images.
"""

from minicnn.visualize.figures.common import figure_class
from minicnn.visualize.figures.confusion_matrix import confusion_matrix
from minicnn.visualize.figures.curves import binned_mean, training_curves
from minicnn.visualize.figures.feature_maps import feature_maps
from minicnn.visualize.figures.filters import filters
from minicnn.visualize.figures.histograms import ParameterUpdate, histograms, update_ratios
from minicnn.visualize.figures.nearest_neighbours import nearest_images, nearest_neighbours
from minicnn.visualize.figures.occlusion import occlusion, occlusion_map
from minicnn.visualize.figures.predictions import predictions
from minicnn.visualize.figures.saliency import saliency, saliency_map

__all__ = ["ParameterUpdate", "binned_mean", "confusion_matrix", "feature_maps", "figure_class", "filters", "histograms", "nearest_images",
           "nearest_neighbours", "occlusion", "occlusion_map", "predictions", "saliency", "saliency_map", "training_curves",
           "update_ratios"]
