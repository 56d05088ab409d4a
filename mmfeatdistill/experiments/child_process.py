"""Child processes that report to their parent, write to a log file, and do not outlive it."""
import multiprocessing
import os
import os.path as osp
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Optional

import torch
from mmengine.device import is_cuda_available

Send = Callable[[Any], None]

_receivers: 'weakref.WeakSet[Connection]' = weakref.WeakSet()
"""Of all children; a forked child inherits those of its siblings and has to let go of them."""


class Child:
    """A function at work in a process of its own.

    It is forked where that is possible, so that the libraries are imported once for all; a process that has
    looked for a GPU cannot be forked and go on using it, so with a GPU it is started afresh.

    Args:
        function (Callable): Called in the child with a function that sends a message to the parent. Sending
            fails, and so ends the child, once the parent is gone.
        console (str): File to which everything that the child prints is appended.
        threads (int): Number of torch threads of the child. Defaults to 1.

    Attributes:
        receiver (Connection): Gives the messages; at its end of file the child has ended or is about to.
        console (str): The file.
    """

    def __init__(self, function: Callable[[Send], None], console: str, threads: int = 1) -> None:
        os.makedirs(osp.dirname(console), exist_ok=True)
        context: Any = multiprocessing.get_context('spawn' if is_cuda_available() else 'fork')
        self.console = console
        self.receiver, sender = context.Pipe(duplex=False)
        _receivers.add(self.receiver)
        self._process = context.Process(target=_main, args=(function, sender, console, threads))
        self._process.start()
        sender.close()

    def receive(self) -> Optional[Any]:
        """The next message; waits for it.

        Returns:
            Any: What the child sent, or None if nothing more will come.
        """
        try:
            return self.receiver.recv()
        except EOFError:
            self.receiver.close()
            return None

    def join(self) -> int:
        """Waits for the end of the child.

        Returns:
            int: Its exit code, negative where a signal ended it.
        """
        self._process.join()
        return self._process.exitcode

    def kill(self) -> None:
        """Ends the child, if it has not ended, and whatever processes it has started."""
        if self._process.exitcode is not None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not got as far as its own process group
            self._process.kill()
        self._process.join()

    def last_lines(self, count: int = 20) -> str:
        """The end of what the child has printed.

        Args:
            count (int): Number of lines. Defaults to 20.

        Returns:
            str: The lines.
        """
        with open(self.console, errors='replace') as file:
            return ''.join(file.readlines()[-count:])


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Lets SIGTERM unwind the stack as Ctrl-C does, so that children can be ended; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _main(function: Callable[[Send], None], sender: Connection, console: str, threads: int) -> None:
    # Of its own group: Ctrl-C in a terminal reaches the parent alone, which ends the entire group.
    os.setpgrp()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for receiver in list(_receivers):
        receiver.close()
    # Both what libraries write to the descriptors and what Python writes, wherever the parent had that go.
    sys.stdout = sys.stderr = open(console, 'a', buffering=1)
    for descriptor in (1, 2):
        os.dup2(sys.stdout.fileno(), descriptor)
    torch.set_num_threads(threads)
    code = 1
    try:
        function(sender.send)
        code = 0
    except BaseException:  # noqa: BLE001  # whatever it was, it is printed, and this process ends
        traceback.print_exc()
    # Data workers would notice only within seconds, and hold the pipe open meanwhile.
    for worker in multiprocessing.active_children():
        worker.kill()
    sys.stdout.flush()
    # A forked process must not run the parent's exit handlers.
    os._exit(code)
