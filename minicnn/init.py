"""Where learning starts from: the first values of weights and biases.

`paper`, `caffe` and `he` fill a whole network. What each needs to learn at all is measured in
benchmarks/overfit_one_batch.py and told in the README: with the paper's biases of 1 the loss stands at ln(classes)
unless the learning rate is small, and AlexNet's Gaussian of 0.01 is made for pixels of 0 to 255 minus their mean.
"""

import math

from minicnn import random
from minicnn.backend import to_device


def normal(p, std):
    """Fill a parameter with N(0, std^2): the next draw of the seed."""
    values = random.next_generator("parameters").standard_normal(p.shape, dtype="float32")
    values *= std
    p.data[...] = to_device(values, p.device)


def constant(p, value):
    """Fill a parameter with one value."""
    p.data[...] = value


def he_normal(p):
    """Gaussian with variance 2 / fan_in: keeps the size of what passes through a ReLU layer (He et al. 2015, eq. 10)."""
    normal(p, math.sqrt(2 / math.prod(p.shape[1:])))


def paper(model):
    """AlexNet, section 5: weights N(0, 0.01^2); biases 1 in conv2, conv4, conv5, fc6 and fc7, 0 elsewhere."""
    for layer, bias in zip(alexnet_layers("paper", model), (0, 1, 0, 1, 1, 1, 1, 0), strict=True):
        normal(layer.weight, 0.01)
        constant(layer.bias, bias)


def caffe(model):
    """Caffe's bvlc_alexnet: as the paper, but biases 0.1 where the paper has 1, and N(0, 0.005^2) in fc6 and fc7.

    Its authors found that initialising to 1 "gave flat loss".
    """
    stds = (0.01, 0.01, 0.01, 0.01, 0.01, 0.005, 0.005, 0.01)
    for layer, std, bias in zip(alexnet_layers("caffe", model), stds, (0, 0.1, 0, 0.1, 0.1, 0.1, 0.1, 0), strict=True):
        normal(layer.weight, std)
        constant(layer.bias, bias)


def he(model):
    """He's Gaussian for every layer with weights but the last, which starts at N(0, 0.01^2); biases 0.

    Inputs of about unit variance keep it through the layers. A small last layer makes the first loss ln(classes): the
    network begins with no opinion, rather than with strong and wrong ones.
    """
    layers = layers_with_weights(model)
    if not layers:
        raise ValueError("init.he: this network has no layer with a weight")
    for layer in layers[:-1]:
        he_normal(layer.weight)
    normal(layers[-1].weight, 0.01)
    for layer in layers:
        if layer.bias is not None:
            constant(layer.bias, 0)


def layers_with_weights(model):
    """The layers that have a weight, in order."""
    return [m for _, m in model.named_modules() if getattr(m, "weight", None) is not None]


def alexnet_layers(rule, model):
    """conv1 ... conv5, fc6, fc7, fc8; ValueError if the network is not of this form."""
    layers = layers_with_weights(model)
    if [layer.weight.ndim for layer in layers] != [4] * 5 + [2] * 3:
        raise ValueError(f"init.{rule}: it says what the five convolutions and three linear layers of AlexNet start from, "
                         "and this network is not built so; use init.he")
    return layers
