"""A function of tensors as the list of kernels that it calls.

Legend: B batch, D inputs of the model.
"""

from __future__ import annotations

import logging
import operator
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_aggregate
from torch.utils._python_dispatch import TorchDispatchMode

Batch = tuple[Tensor, ...]              # x_BD; and present_BD where values are missing

aten = torch.ops.aten


class Gradients(Protocol):
    def __call__(self, weights: list[Tensor], kl_weight: float | Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """A gradient for each weight, and last reconstruction and KL as one tensor. Weights need gradients."""


def traced(gradients: Gradients, weights: list[Tensor], batch: Batch) -> Gradients | None:
    """The same, for batches of this shape alone, without autograd and Python between the kernels: the same calls in
    the same order, so the same bits. None where this torch cannot; then the function does as it is.

    TorchScript runs a list of calls some three times as fast as Python does. torch.compile would too, and takes most of
    a minute, and a C++ compiler, to begin.
    """
    given = torch.ones(()), *batch, *weights
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")                     # TorchScript is called deprecated
            with Recorder(given) as recorder:
                found = gradients(weights, given[0], batch)
            of_kl_weight, rest = recorder.listed(found)
            with torch.no_grad():
                first = of_kl_weight(given[0])
                script = torch.jit.trace(  # type: ignore[no-untyped-call]
                    lambda *given: rest(*given), (*first, *(tensor.detach() for tensor in given[1:])),
                    check_trace=False,
                )
    except Exception:       # parts of torch that may change
        logging.getLogger(__name__).debug("steps are not traced", exc_info=True)
        return None

    @lru_cache(maxsize=1)
    def made_of(kl_weight: float) -> tuple[Tensor, ...]:
        made: tuple[Tensor, ...] = of_kl_weight(torch.as_tensor(kl_weight))
        return made

    @torch.inference_mode()             # each call does a little less then
    def called(weights: list[Tensor], kl_weight: float | Tensor, batch: Batch) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = script(*made_of(float(kl_weight)), *batch, *weights)
        return found

    return called


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every kernel that is called, those of the backward pass too, while it is called."""

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph, self._root = Graph(), nn.Module()
        self._nodes: dict[int, Node] = {}
        self._kept: list[Tensor] = []
        for number, tensor in enumerate(given):
            self._nodes[id(self._keep(tensor))] = self._graph.placeholder(f"given_{number}")

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: it would load torch.compile's half of torch, some seconds of it, to tell it to stay away."""
        return False

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if self._is_constant(func, args):
            return found
        same = self._unchanged(func, args)
        if same is not None:
            self._nodes[id(self._keep(found))] = same
            return found
        called_with = map_aggregate(args, self._node), map_aggregate(kwargs or {}, self._node)
        node = self._graph.call_function(func, *called_with)
        if isinstance(found, Tensor):
            self._nodes[id(self._keep(found))] = node
        else:
            for number, part in enumerate(found):
                self._nodes[id(self._keep(part))] = self._graph.call_function(operator.getitem, (node, number))
        return found

    def _is_constant(self, func: Any, args: tuple[Any, ...]) -> bool:
        """Whether the result is the same at every step: the gradient of the loss by itself, and what is made of it."""
        tensors: list[Tensor] = []
        map_aggregate(args, lambda value: tensors.append(value) if isinstance(value, Tensor) else None)
        known = any(id(tensor) in self._nodes for tensor in tensors)
        drawn = torch.Tag.nondeterministic_seeded in func.tags
        return func is aten.ones_like.default or (bool(tensors) and not known and not drawn)

    def _unchanged(self, func: Any, args: tuple[Any, ...]) -> Node | None:
        """What a call was given, where it gives just that back: autograd leaves many of these."""
        if func in (aten.alias.default, aten.detach.default) or (func is aten.pow.Tensor_Scalar and args[1] == 1):
            return self._nodes[id(args[0])]
        if func is aten.t.default and (before := self._nodes[id(args[0])]).target is aten.t.default:
            twice = before.args[0]
            return twice if isinstance(twice, Node) else None
        return None

    def listed(self, found: tuple[Tensor, ...]) -> tuple[GraphModule, GraphModule]:
        """The calls that lead from what was given to what was found, in two parts: those on the first that was given
        alone, which need not be made again while that is the same; and the rest, which is given what comes of them.
        """
        self._graph.output(tuple(self._node(tensor) for tensor in found))
        first, *others = (node for node in self._graph.nodes if node.op == "placeholder")
        early = {first: None}
        for node in self._graph.nodes:
            inputs = [before for before in node.all_input_nodes if before.op != "get_attr"]
            if inputs and node.op == "call_function" and all(before in early for before in inputs):
                early[node] = None
        late = [node for node in self._graph.nodes if node not in early]
        handed = [node for node in early if any(user not in early for user in node.users)]
        constants = [node for node in late if node.op == "get_attr"]
        return (
            self._part([first], [*constants, *early], handed),
            self._part([*handed, *others], late, self._graph.output_node().args[0]),
        )

    def _part(self, given: Sequence[Node], calls: Sequence[Node], found: Any) -> GraphModule:
        """These calls, which lead from the ones to the others."""
        part = Graph()
        copies = {node: part.placeholder(f"given_{number}") for number, node in enumerate(given)}
        for node in calls:
            if node.op in ("call_function", "get_attr"):
                copies[node] = part.node_copy(node, copies.__getitem__)
        part.output(tuple(copies[node] for node in found))
        return GraphModule(self._root, part)

    def _keep(self, tensor: Tensor) -> Tensor:
        """So that an id stays that of one tensor."""
        self._kept.append(tensor)
        return tensor

    def _node(self, value: Any) -> Any:
        """In place of a tensor, where it comes from; a constant otherwise."""
        if not isinstance(value, Tensor):
            return value
        if id(value) in self._nodes:
            return self._nodes[id(value)]
        name = f"constant_{len(self._kept)}"
        self._root.register_buffer(name, self._keep(value))
        return self._graph.get_attr(name)
