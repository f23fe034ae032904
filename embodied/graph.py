"""Work on a GPU that is captured once and then launched as one, as a CUDA graph."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

State = dict[str, Tensor]


class Captured:
    """A function of tensors alone, from its third call on a single launch; on the CPU just a call.

    What lives from call to call is what `read` gives and `write` takes: a graph works on the same
    memory every time, so that is copied back to where it was. The function may not ask the host
    anything: no branch on a value, no shape that follows from one. `generators` are those that it
    draws from; `around` is entered during the capture.
    """

    def __init__(
        self,
        function: Callable[[], None],
        read: Callable[[], State],
        write: Callable[[State], None],
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._function, self._read, self._write = function, read, write
        self._generators = generators if device.type == "cuda" else ()
        self._around = around
        self._calls = 0
        self._plain = device.type != "cuda"
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        self._calls += 1
        if self._plain or self._calls < 3:  # the first calls compile, and make what is made once
            self._function()
            return
        if self._graph is None:
            self._graph = self._capture()
        self._graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        static = {name: value.clone() for name, value in self._read().items()}
        self._write(static)
        gc.collect()
        gc.disable()  # what it frees during a capture would be freed within it
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream()), self._around():
                self._function()
                for name, value in self._read().items():
                    static[name].copy_(value)
        finally:
            gc.enable()
        self._write(static)
        return graph
