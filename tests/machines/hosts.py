"""Hosts on one machine: each has a network, processes, mounts and a name of its own, and ends with the tests.

The kernel removes the namespaces once their last process is gone, and every process here is told to die with its
parent. So nothing has to be cleaned up, however the tests end.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
NETWORK = '10.77.0.'
_DIES_WITH_PARENT = ('setpriv', '--pdeathsig', 'KILL', '--')
_NAMESPACES = ('unshare', '--net', '--uts', '--pid', '--mount', '--fork', '--kill-child', '--mount-proc')


def missing() -> str:
    """Why there can be no hosts here; empty where there can."""
    absent = [name for name in ('setpriv', 'unshare', 'nsenter', 'ip') if shutil.which(name) is None]
    if absent:
        return f'needs {", ".join(absent)} (util-linux, iproute2)'
    if subprocess.run([*_NAMESPACES, 'true'], capture_output=True).returncode:
        return 'needs the right to make namespaces, as root has'
    return ''


class _Machine:
    """The namespaces, kept by a process that sleeps; it is the first of its own, so with it all others end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder = subprocess.Popen(
            [*_DIES_WITH_PARENT, *_NAMESPACES, 'sh', '-c',
             'hostname "$0"; ip link set lo up; echo; exec sleep infinity', name], stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL)  # at its end it may complain of being killed
        assert self._holder.stdout and self._holder.stdout.readline(), f'{name} does not start'
        children = Path(f'/proc/{self._holder.pid}/task/{self._holder.pid}/children').read_text()
        self.pid = int(children)

    def inside(self, *command: object) -> list[str]:
        """A command line that runs another one in here."""
        return ['nsenter', f'--target={self.pid}', '--net', '--uts', '--pid', '--mount', f'--wd={os.getcwd()}',
                *_DIES_WITH_PARENT, *map(str, command)]

    def run(self, *command: object) -> str:
        """Runs a command to its end; what it has printed."""
        done = subprocess.run(self.inside(*command), text=True, capture_output=True)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def power_off(self) -> None:
        """All processes end at once, as nobody tells them to."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._holder.wait()


class Host(_Machine):
    """One of them, plugged into a switch.

    Attributes:
        address: In the network of the switch.
    """

    def __init__(self, name: str, switch: 'Switch', number: int) -> None:
        super().__init__(name)
        self.address, self._switch, self._port = f'{NETWORK}{number}', switch, f'port{number}'
        subprocess.run(['ip', 'link', 'add', 'eth0', 'netns', str(self.pid), 'type', 'veth',
                        'peer', 'name', self._port, 'netns', str(switch.pid)], check=True)
        self.run('ip', 'address', 'add', f'{self.address}/24', 'dev', 'eth0')
        self.run('ip', 'link', 'set', 'eth0', 'up')
        switch.run('ip', 'link', 'set', self._port, 'master', 'bridge', 'up')

    def start(self, command: Sequence[object], cwd: Path, output: Path, environment: Mapping[str, str]) -> 'Job':
        """Starts a command whose output goes to a file."""
        with output.open('wb') as file:
            process = subprocess.Popen(
                self.inside('env', f'--chdir={cwd}', *command), stdout=file, stderr=subprocess.STDOUT,
                env=os.environ | dict(
                    PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}', PYTHONPATH=str(ROOT),
                    PYTHONWARNINGS='ignore', OMP_NUM_THREADS='1', OMP_WAIT_POLICY='passive') | environment)
        return Job(process, output)

    def pull_cable(self) -> None:
        self._switch.run('ip', 'link', 'set', self._port, 'down')

    def plug_cable(self) -> None:
        self._switch.run('ip', 'link', 'set', self._port, 'up')

    def sent(self) -> int:
        """Bytes that have left it so far."""
        return json.loads(self.run('ip', '-json', '-stats', 'link', 'show', 'eth0'))[0]['stats64']['tx']['bytes']


class Switch(_Machine):
    """What the cables end in."""

    def __init__(self) -> None:
        super().__init__('switch')
        self.run('ip', 'link', 'add', 'bridge', 'up', 'type', 'bridge')


class Job:
    """A command at work on a host."""

    def __init__(self, process: subprocess.Popen, output: Path) -> None:
        self.process, self._output = process, output

    @property
    def output(self) -> str:
        return self._output.read_text(errors='replace')

    def wait(self, seconds: float = 300) -> int:
        """Its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f'after {seconds} s it was still running:\n{self.output[-3000:]}') from None


class Hosts:
    """Some hosts and their switch; a context manager."""

    def __init__(self, count: int) -> None:
        self.switch = Switch()
        self.all = [Host(f'host{number}', self.switch, number) for number in range(1, count + 1)]

    def __enter__(self) -> list[Host]:
        return self.all

    def __exit__(self, *error: object) -> None:
        for machine in (*self.all, self.switch):
            machine.power_off()


def wait_until(condition: Callable[[], bool], job: Job, seconds: float = 240) -> None:
    """Fails if something does not come true while a job is running."""
    end = time.monotonic() + seconds
    while not condition():
        assert job.process.poll() is None and time.monotonic() < end, job.output[-3000:]
        time.sleep(0.05)
