"""Module: a tree of layers that owns parameters. Sequential: modules called one after the other."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from minicnn.autograd import no_grad
from minicnn.backend.arrays import is_array, to_device
from minicnn.hooks import active_hooks
from minicnn.tensor import Tensor

M = TypeVar("M", bound="Module")

# Methods of PyTorch's modules that this class lacks, and what to write instead.
HINTS = {
    "cuda": 'model.to("gpu")',
    "children": "[child for _, child in model.named_children()]",
    "modules": "[module for _, module in model.named_modules()]",
    "requires_grad_": "optim.SGD(parameters_to_train, ...), which leaves the other parameters as they are",
}


class Module:
    """A layer or network: it owns parameters (tensors with requires_grad) and submodules, its attributes.

    Subclass it, assign parameters and submodules to attributes in `__init__`, and write `forward`. Call the module, not `forward`:
    net(x) calls the hooks too.
    """

    training = True

    def __setattr__(self, name: str, value: Any) -> None:
        elements = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        if any(isinstance(v, Module) for v in elements):
            raise TypeError(f"{type(self).__name__}.{name}: layers in a {type(value).__name__} would not be found, and would not learn; "
                            "use Sequential(*layers), or an attribute for each")
        super().__setattr__(name, value)

    def forward(self, *inputs: Any) -> Any:
        """The output for these input tensors."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *inputs: Any) -> Tensor:
        for hook in active_hooks():
            hook.before_module(self, inputs)
        output = self.forward(*inputs)
        for hook in active_hooks():
            hook.after_module(self, inputs, output)
        return output

    def named_children(self) -> "list[tuple[str, Module]]":
        """(name, module) for each direct submodule."""
        return [(name, value) for name, value in vars(self).items() if isinstance(value, Module)]

    def named_modules(self, prefix: str = "") -> "Iterator[tuple[str, Module]]":
        """(dotted name, module) for this module, whose name is `prefix`, and all its submodules, in order."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(dotted name, tensor) for every parameter, in order; a shared one is listed once."""
        seen = set()
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Tensor) and value.requires_grad and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{prefix}.{name}" if prefix else name), value

    def parameters(self) -> list[Tensor]:
        """Every parameter, in order."""
        return [p for _, p in self.named_parameters()]

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for p in self.parameters():
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The array of every parameter by name (not copies)."""
        return {name: p.data for name, p in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy arrays, by name, into the parameters.

        Raises ValueError, with nothing changed, that lists the names which are missing, unknown, or of another shape or dtype.
        """
        own = dict(self.named_parameters())
        state = {name: a if is_array(a) else np.asarray(a) for name, a in state.items()}
        problems = [f"{name} is missing" for name in own if name not in state]
        problems += [f"{name} is unknown" for name in state if name not in own]
        problems += [f"{name} must have shape {p.shape}, got {tuple(state[name].shape)}" for name, p in own.items()
                     if name in state and tuple(state[name].shape) != p.shape]
        problems += [f"{name} must be an array of numbers, got dtype {a.dtype}" for name, a in state.items() if a.dtype.kind not in "fiu"]
        if problems:
            shown = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
            raise ValueError(f"load_state_dict: {torchvision_hint(own, state) or f'this state is of another network: {shown}'}")
        for name, p in own.items():
            p.data[...] = to_device(state[name], p.device)

    @property
    def device(self) -> str:
        """The device of the parameters, "cpu", "gpu" or "gpu:1"; "cpu" if there are none."""
        return next((p.device for p in self.parameters()), "cpu")

    def train(self: M, mode: bool = True) -> M:
        """Set this module and all its submodules to training mode (dropout is active); returns the module."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Set this module and all its submodules to evaluation mode (dropout does nothing); returns the module."""
        return self.train(False)

    def to(self: M, device: str) -> M:
        """Move every parameter, in place, to "cpu", "gpu" or "gpu:1"; returns the module. Gradients are dropped."""
        for p in self.parameters():
            p.data = p.to(device).data
            p.grad = None
        return self

    def cpu(self: M) -> M:
        """The same as `.to("cpu")`."""
        return self.to("cpu")

    def __repr__(self) -> str:
        children = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        return type(self).__name__ + "(" + self.extra_repr() + "".join(f"\n  {text}" for text in children) + ("\n)" if children else ")")

    def extra_repr(self) -> str:
        """The constructor's arguments, for repr."""
        return ""

    if not TYPE_CHECKING:           # type checkers reject unknown attributes themselves
        def __getattr__(self, name: str) -> Any:
            """Called for attributes that do not exist: the error says what to write instead."""
            hint = f"; write {HINTS[name]}" if name in HINTS else ""
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{hint}", name=name, obj=self)


class Sequential(Module):
    """Modules called one after the other. Name them by keywords, Sequential(conv1=Conv2d(...), ...); otherwise the names are 0, 1, 2.

    A layer is an attribute; iteration gives all layers, and an index or a name in brackets gives one.
    """

    def __init__(self, *layers: Module, **named_layers: Module) -> None:
        self.names = [str(i) for i in range(len(layers))] + list(named_layers)
        for name, layer in zip(self.names, [*layers, *named_layers.values()], strict=True):
            if not isinstance(layer, Module):
                raise TypeError(f"Sequential: {name} must be a Module, got {type(layer).__name__}; for relu write ReLU()")
            if hasattr(Sequential, name) or name == "names":
                raise ValueError(f"Sequential: a layer cannot be named {name!r}, that is a method of Sequential")
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x

    def __iter__(self) -> Iterator[Module]:
        return (getattr(self, name) for name in self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int | str) -> Any:
        return getattr(self, index if isinstance(index, str) else self.names[index])

    if TYPE_CHECKING:
        def __getattr__(self, name: str) -> Any:
            """The layers are attributes."""


def torchvision_hint(own: Mapping[str, Tensor], state: Mapping[str, Any]) -> str:
    """What to do with weights that have torchvision's names, if `state` has these; its AlexNet lists its parameters in our order."""
    names = [name for name in state if re.match(r"(features|classifier)\.\d+\.", name)]
    if not names:
        return ""
    hint = f"these are torchvision's names ({names[0]}, ...)"
    pairs = list(zip(own.items(), state.items(), strict=False))
    differences = [f"{name} has shape {p.shape}, {their_name} {tuple(a.shape)}" for (name, p), (their_name, a) in pairs
                   if p.shape != tuple(a.shape)]
    if differences or len(own) != len(state):
        reason = differences[0] if differences else f"it has {len(own)} parameters instead of {len(state)}"
        return f'{hint}; its AlexNet is alexnet("torchvision"), and this network differs: {reason}'
    return f"{hint}; the shapes are those of this network, so load dict(zip(model.state_dict(), state.values(), strict=True))"


@contextlib.contextmanager
def train_mode(model: M, training: bool = True) -> Iterator[M]:
    """A context manager: the model is in training mode (or not) inside; afterwards each submodule's mode is restored."""
    before = [(module, module.training) for _, module in model.named_modules()]
    try:
        yield model.train(training)
    finally:
        for module, mode in before:
            module.training = mode


@contextlib.contextmanager
def eval_mode(model: M) -> Iterator[M]:
    """A context manager: the model is in evaluation mode and no graph is recorded inside; afterwards each submodule's mode is restored."""
    with train_mode(model, False), no_grad():
        yield model
