"""Layers own parameters and call ops, nothing else.

Constructor arguments have PyTorch's names and order, where PyTorch has the argument.
"""

import numpy as np

from minicnn import init, ops
from minicnn.autograd import hooks
from minicnn.backend import is_array, to_device
from minicnn.ops.layout import pair
from minicnn.tensor import Tensor


class Module:
    """A part of a network: parameters (tensors with requires_grad) and parts of its own, found as attributes.

    Subclass it, set parameters and parts in `__init__`, and write `forward`.
    """

    training = True

    def __setattr__(self, name, value):
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        if any(isinstance(v, Module) for v in inside):
            raise TypeError(f"{type(self).__name__}.{name}: layers in a {type(value).__name__} would not be found, and would not learn; "
                            "use Sequential(*layers), or an attribute for each")
        super().__setattr__(name, value)

    def forward(self, *inputs):
        """The output for these inputs."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *inputs):
        for hook in hooks():
            hook.before_module(self, inputs)
        output = self.forward(*inputs)
        for hook in hooks():
            hook.after_module(self, inputs, output)
        return output

    def children(self):
        """(name, module) for each direct part."""
        return [(name, value) for name, value in vars(self).items() if isinstance(value, Module)]

    def named_modules(self, prefix=""):
        """(dotted name, module) for this module and every part of it, in order."""
        yield prefix, self
        for name, child in self.children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self):
        """(dotted name, tensor) for every parameter, in order; one that is shared is listed once."""
        seen = set()
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Tensor) and value.requires_grad and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{prefix}.{name}" if prefix else name), value

    def parameters(self):
        """Every parameter, in order."""
        return [p for _, p in self.named_parameters()]

    def state_dict(self):
        """Every parameter's array by name, as they are (not copies)."""
        return {name: p.data for name, p in self.named_parameters()}

    def load_state_dict(self, state):
        """Copy arrays, by name, into the parameters.

        Raises ValueError that says which names are missing, unknown or of another shape; then nothing was changed.
        """
        own = dict(self.named_parameters())
        state = {name: a if is_array(a) else np.asarray(a) for name, a in state.items()}
        wrong = [f"{name} is missing" for name in own if name not in state]
        wrong += [f"{name} is unknown" for name in state if name not in own]
        wrong += [f"{name} has shape {tuple(state[name].shape)}, not {p.shape}" for name, p in own.items()
                  if name in state and tuple(state[name].shape) != p.shape]
        wrong += [f"{name} is of dtype {a.dtype}" for name, a in state.items() if a.dtype.kind not in "fiu"]
        if wrong:
            shown = "; ".join(wrong[:4]) + (f"; and {len(wrong) - 4} more" if len(wrong) > 4 else "")
            raise ValueError(f"load_state_dict: these weights are of another network: {shown}")
        for name, p in own.items():
            p.data[...] = to_device(state[name], p.device)

    def train(self, mode=True):
        """Training mode (dropout draws masks) for this module and all its parts; returns the module."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self):
        """Evaluation mode; returns the module."""
        return self.train(False)

    def to(self, device):
        """Move every parameter, in place, to "cpu", "gpu" or "gpu:1"; returns the module. Make optimisers after this."""
        for p in self.parameters():
            p.data = p.to(device).data
            p.grad = None
        return self

    def __repr__(self):
        parts = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.children()]
        return type(self).__name__ + "(" + self.extra_repr() + "".join(f"\n  {part}" for part in parts) + ("\n)" if parts else ")")

    def extra_repr(self):
        """What the constructor was given, for repr."""
        return ""


class Sequential(Module):
    """Modules called one after the other. Give them names with keywords: Sequential(conv1=Conv2d(...), ...); else 0, 1, 2.

    Iterate over it, or index it by number or name, to reach a layer.
    """

    def __init__(self, *layers, **named_layers):
        self.names = [str(i) for i in range(len(layers))] + list(named_layers)
        for name, layer in zip(self.names, [*layers, *named_layers.values()], strict=True):
            if not isinstance(layer, Module):
                raise TypeError(f"Sequential: {name} is a {type(layer).__name__}, not a Module; for relu write ReLU()")
            if hasattr(Sequential, name) or name == "names":
                raise ValueError(f"Sequential: a layer cannot be named {name!r}, that is a method of Sequential")
            setattr(self, name, layer)

    def forward(self, x):
        for layer in self:
            x = layer(x)
        return x

    def __iter__(self):
        return (getattr(self, name) for name in self.names)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, which):
        return getattr(self, which if isinstance(which, str) else self.names[which])


class Conv2d(Module):
    """2-D convolution with `out_channels` filters: see `ops.conv2d`. Weights start with He's Gaussian, biases at 0."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, *, groups=1, bias=True):
        KH, KW = pair("Conv2d", "kernel_size", kernel_size, 1)
        if min(in_channels, out_channels, groups) < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"Conv2d: groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}")
        self.stride, self.padding = pair("Conv2d", "stride", stride, 1), pair("Conv2d", "padding", padding, 0)
        self.groups = groups
        # memory is channels-last here too, so that the filters need not be rearranged for the matrix product
        self.weight = Tensor(np.empty((out_channels, KH, KW, in_channels // groups), np.float32).transpose(0, 3, 1, 2), True)
        self.bias = Tensor(np.zeros(out_channels, np.float32), True) if bias else None
        init.he_normal(self.weight)

    def forward(self, x):
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.groups)

    def extra_repr(self):
        O, C, KH, KW = self.weight.shape
        return (f"{C * self.groups}, {O}, kernel_size={(KH, KW)}, stride={self.stride}, padding={self.padding}"
                + (f", groups={self.groups}" if self.groups > 1 else "") + ("" if self.bias is not None else ", bias=False"))


class Linear(Module):
    """Fully connected, (N, in_features) -> (N, out_features). Weights start with He's Gaussian, biases at 0."""

    def __init__(self, in_features, out_features, bias=True):
        if min(in_features, out_features) < 1:
            raise ValueError(f"Linear: in_features={in_features} and out_features={out_features} must be positive")
        self.weight = Tensor(np.empty((out_features, in_features), np.float32), True)
        self.bias = Tensor(np.zeros(out_features, np.float32), True) if bias else None
        init.he_normal(self.weight)

    def forward(self, x):
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self):
        O, I = self.weight.shape
        return f"{I}, {O}" + ("" if self.bias is not None else ", bias=False")


class MaxPool2d(Module):
    """The maximum of each window: see `ops.max_pool2d`."""

    def __init__(self, kernel_size, stride=None, padding=0, *, ceil_mode=False):
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode

    def forward(self, x):
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode)

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, ceil_mode={self.ceil_mode}"


class AdaptiveAvgPool2d(Module):
    """The mean over a fixed number of bins: see `ops.adaptive_avg_pool2d`."""

    def __init__(self, output_size):
        self.output_size = output_size

    def forward(self, x):
        return ops.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self):
        return f"{self.output_size}"


class LocalResponseNorm(Module):
    """Local response normalisation, by default with the paper's constants and rule: see `ops.local_response_norm`.

    (PyTorch's layer divides alpha by size and has k = 1: LocalResponseNorm(5, k=1.0, alpha_over_size=True).)
    """

    def __init__(self, size=5, alpha=1e-4, beta=0.75, k=2.0, *, alpha_over_size=False):
        self.size, self.alpha, self.beta, self.k, self.alpha_over_size = size, alpha, beta, k, alpha_over_size

    def forward(self, x):
        return ops.local_response_norm(x, self.size, self.alpha, self.beta, self.k, self.alpha_over_size)

    def extra_repr(self):
        return (f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
                + (", alpha_over_size=True" if self.alpha_over_size else ""))


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x):
        return ops.relu(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x):
        return ops.tanh(x)


class Sigmoid(Module):
    """The logistic function."""

    def forward(self, x):
        return ops.sigmoid(x)


class Dropout(Module):
    """Zeroes each element with probability `p` in training mode: see `ops.dropout`."""

    def __init__(self, p=0.5):
        self.p = p

    def forward(self, x):
        return ops.dropout(x, self.p, self.training)

    def extra_repr(self):
        return f"p={self.p}"


class Flatten(Module):
    """(N, C, H, W) -> (N, C*H*W)."""

    def __init__(self, start_dim=1):
        self.start_dim = start_dim

    def forward(self, x):
        return ops.flatten(x, self.start_dim)
