"""Running something on a CUDA stream of its own, in parallel with what the current stream does."""
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class SideStream:
    """A CUDA stream next to the current one.

    What is started in :meth:`parallel` begins once all that was queued before has ended, and overlaps all that is
    queued after it, until :meth:`join`. Nothing waits on the host.

    Examples:
        >>> side = SideStream()
        >>> if torch.cuda.is_available():
        ...     images = torch.ones(2, device='cuda')
        ...     with side.parallel(images):
        ...         features = images * 2
        ...     side.join([features])
    """

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    @contextmanager
    def parallel(self, inputs: Tensor) -> Iterator[None]:
        """Queues what is computed in this context on the side.

        Args:
            inputs (Tensor): What it reads, made on the current stream of its CUDA device.
        """
        if inputs.device not in self._streams:
            self._streams[inputs.device] = torch.cuda.Stream(inputs.device)
        stream = self._streams[inputs.device]
        stream.wait_stream(torch.cuda.current_stream(inputs.device))
        # Their memory must not be given to others before this stream has read them.
        inputs.record_stream(stream)
        with torch.cuda.stream(stream):
            yield

    def join(self, outputs: Iterable[Tensor]) -> None:
        """Lets the current stream of each device wait for what was queued on the side, before it reads the outputs.

        Args:
            outputs (Iterable[Tensor]): What was made there.
        """
        for device, stream in self._streams.items():
            torch.cuda.current_stream(device).wait_stream(stream)
        for tensor in outputs:
            tensor.record_stream(torch.cuda.current_stream(tensor.device))
