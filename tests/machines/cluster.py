"""A Slurm cluster of hosts on this machine, with its own munge, its own state, and GPUs that are only counted."""
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.machines import hosts
from tests.machines.hosts import Host, Job

_CPUS = 2
_DAEMONS = ('munged', 'slurmctld', 'slurmd')
_CONFIG = """\
ClusterName=tests
SlurmctldHost={first.name}({first.address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# How long a job that was put back in the queue waits there; two minutes otherwise.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
KillWait=5
MinJobAge=36000
GresTypes=gpu
PartitionName=main Nodes=ALL Default=YES State=UP
"""


def missing() -> str:
    """Why there can be no cluster here; empty where there can."""
    absent = [name for name in (*_DAEMONS, 'sbatch') if shutil.which(name) is None]
    return f'needs {", ".join(absent)}: apt-get install slurm-wlm munge' if absent else hosts.missing()


class Cluster:
    """Each host is a node of two processors and two GPUs; the first one has the queue. It ends with the hosts.

    Args:
        machines: The hosts.
        folder: For its files; all hosts see it.
    """

    def __init__(self, machines: list[Host], folder: Path) -> None:
        self._first, self._folder = machines[0], folder
        (folder / 'state').mkdir()
        (folder / 'hosts').write_text('127.0.0.1 localhost\n' + ''.join(
            f'{host.address} {host.name}\n' for host in machines))
        (folder / 'munge.key').write_bytes(secrets.token_bytes(128))
        (folder / 'munge.key').chmod(0o400)
        (folder / 'slurm.conf').write_text(_CONFIG.format(first=machines[0], folder=folder) + ''.join(
            f'NodeName={host.name} NodeAddr={host.address} CPUs={_CPUS} Gres=gpu:{_CPUS}\n' for host in machines))
        (folder / 'gres.conf').write_text('Name=gpu File=/dev/tty[1-2]\n')
        for host in machines:
            host.run('mount', '--bind', folder / 'hosts', '/etc/hosts')
        # One for all hosts, as its socket is a file.
        self._daemons = [self._start(machines[0], 'munged', '--foreground', '--force', *(
            f'--{name}-file={folder / name}' for name in ('pid', 'log', 'seed')),
            f'--key-file={folder / "munge.key"}', f'--socket={folder / "munge.socket"}')]
        self.wait_until((folder / 'munge.socket').exists)
        self._daemons.append(self._start(machines[0], 'slurmctld', '-D'))
        self._daemons += [self._start(host, 'slurmd', '-D', '-N', host.name) for host in machines]
        self.wait_until(lambda: self._nodes() == ['idle'] * len(machines))

    def start(self, command: list[object], cwd: Path, output: Path, **environment: str) -> Job:
        """Starts a command of a user on the first host."""
        return self._first.start(command, cwd, output, self._environment() | environment)

    def run(self, *command: object) -> str:
        """Runs a command of a user on the first host to its end; what it has printed."""
        return self._first.run('env', *_words(self._environment()), *command)

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        words = self.run('scontrol', 'show', 'job', '--oneliner', number).split()
        return dict(word.split('=', 1) for word in words if '=' in word)

    def wait_until(self, condition: Callable[[], bool], seconds: float = 1800) -> None:
        """Fails if something does not come true, or a part of the cluster ends."""
        end = time.monotonic() + seconds
        while not condition():
            said = [job.output[-1000:] for job in self._daemons]
            assert time.monotonic() < end and all(job.process.poll() is None for job in self._daemons), said
            time.sleep(0.5)

    def _environment(self) -> Mapping[str, str]:
        return dict(SLURM_CONF=str(self._folder / 'slurm.conf'))

    def _start(self, host: Host, *command: object) -> Job:
        return host.start(command, self._folder, self._folder / f'{host.name}_{command[0]}.log', self._environment())

    def _nodes(self) -> list[str]:
        """The states of the nodes; none while the queue is starting."""
        command = ('env', *_words(self._environment()), 'sinfo', '-h', '-N', '-o', '%T')
        return subprocess.run(self._first.inside(*command), text=True, capture_output=True).stdout.split()


def _words(environment: Mapping[str, str]) -> list[str]:
    return [f'{name}={value}' for name, value in environment.items()]
