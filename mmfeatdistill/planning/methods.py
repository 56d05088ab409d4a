"""The methods as they declare themselves, in ``configs/_base_/methods``: what each matches in which task.

A file is a config. ``about`` says what the method is, ``detection``, ``segmentation`` and ``classification`` hold its
objectives, as they would stand in ``model.objectives``, with a role in angle brackets where a place of the networks
belongs: ``taps='<features>'`` (see :func:`mmfeatdistill.planning.tap_proposals.propose`). ``ratio`` is the loss of each
objective over the student's own at the start of a training, by which its weight is found: 1 where the file says
nothing, a number, a dict of numbers by task, or None, which keeps the weights of the file, for losses whose published
weights mean the same in every pair.
"""
import copy
import os.path as osp
import re
from collections.abc import Callable, Mapping
from glob import glob
from typing import Any, NamedTuple, Optional, Union

import torch

from mmfeatdistill.distillers.building import build_objectives
from mmfeatdistill.distillers.preparing import prepare_objectives
from mmfeatdistill.errors import ConfigError, config_key, did_you_mean
from mmfeatdistill.planning.networks import TASKS, Network
from mmfeatdistill.planning.tap_proposals import ROLES, NoTaps, Proposal, propose
from mmfeatdistill.taps.dry_run import probe
from mmfeatdistill.taps.reader import TapReader
from mmfeatdistill.teacher.teacher import Teacher
from mmfeatdistill.zoo.configs import load_config
from mmfeatdistill.zoo.packages import config_folder

_ROLE = re.compile(r'<(\w+)>')


class Method(NamedTuple):
    """A way to distill.

    Attributes:
        name (str): Of its file, and of its folder in ``configs``.
        about (str): One line for people.
        objectives (dict[str, dict]): By task, what stands in ``model.objectives``, with roles for places.
        ratios (dict[str, float | None]): By task, see above.
    """

    name: str
    about: str
    objectives: Mapping[str, Mapping[str, Any]]
    ratios: Mapping[str, Optional[float]]


class Fit(NamedTuple):
    """A method for a pair of networks.

    Attributes:
        method (Method): Which.
        objectives (dict[str, dict]): As they stand in a config; empty where the method does not fit.
        reason (str): What is matched, and why that; or why the method does not fit.
    """

    method: Method
    objectives: Mapping[str, Any]
    reason: str


def methods() -> dict[str, Method]:
    """All methods by name."""
    folder = osp.join(config_folder('mmfeatdistill'), '_base_', 'methods')
    return {method.name: method for method in map(load_method, sorted(glob(osp.join(folder, '*.py'))))}


def find_method(name: str) -> Method:
    """A method by name.

    Args:
        name (str): Of one that is shipped, or a file of the same form.

    Returns:
        Method: What it declares.

    Raises:
        ConfigError: There is no such method; names the nearest.
    """
    if name.endswith('.py'):
        return load_method(name)
    known = methods()
    if name not in known:
        raise ConfigError(f'--method: there is no {name!r}{did_you_mean(name, known)} There are {", ".join(known)}; a '
                          'method of your own is a file like those in configs/_base_/methods.')
    return known[name]


def load_method(file: str) -> Method:
    """Reads what a method declares.

    Args:
        file (str): Its file.

    Returns:
        Method: What it says.

    Raises:
        ConfigError: It has another form.
    """
    with config_key(f'--method {file}'):
        cfg = load_config(file).to_dict()
        tasks = {task: cfg.pop(task) for task in TASKS.values() if task in cfg}
        about, ratio = cfg.pop('about', None), cfg.pop('ratio', 1.0)
        if cfg or not about or not tasks or not all(_are_objectives(entry) for entry in tasks.values()):
            raise ValueError("expected 'about', a dict of objectives for each task that the method is for "
                             f"({', '.join(TASKS.values())}), and perhaps 'ratio'; "
                             + (f'got also {", ".join(sorted(cfg))}.' if cfg else 'one of these is missing.'))
        ratios = {task: ratio.get(task, 1.0) if isinstance(ratio, Mapping) else ratio for task in tasks}
        return Method(osp.splitext(osp.basename(file))[0], about, tasks, ratios)


def _are_objectives(entry: Any) -> bool:
    return isinstance(entry, Mapping) and bool(entry) and all(
        isinstance(objective, Mapping) and 'type' in objective for objective in entry.values())


class Matchmaker:
    """Tries methods on a pair of networks. What one method has looked for is not looked for again.

    Args:
        student (Network): The student.
        teacher (Network): Its teacher.
        network (Teacher): The teacher as objectives see it.
    """

    def __init__(self, student: Network, teacher: Network, network: Teacher) -> None:
        self._student = student
        self._teacher = teacher
        self._network = network
        self._proposed: dict[str, Union[Proposal, NoTaps]] = {}

    def fit(self, method: Method, taps: Optional[list[Any]] = None) -> Fit:
        """Looks for the places of a method, builds its objectives and lets them prepare.

        Args:
            method (Method): The method.
            taps (list, optional): In place of what would be proposed where the method has ``taps``. Defaults to None.

        Returns:
            Fit: With objectives if it fits.
        """
        declared = method.objectives.get(self._student.task)
        if declared is None:
            return Fit(method, {}, f'it is for {" and ".join(method.objectives)}')
        reasons: dict[str, None] = {}
        matched = {str(objective.get('taps')) for objective in declared.values()}
        if taps and (len(matched) > 1 or 'None' in matched):
            return Fit(method, {}, f'{method.name} finds its places itself, or matches several kinds of them; leave '
                       '--taps out, and change what is written')
        try:
            objectives = {name: _resolve(entry, self._propose, taps, reasons) for name, entry in declared.items()}
            _try(objectives, self._student, self._network)
        except (NoTaps, ConfigError) as error:
            return Fit(method, {}, str(error))
        given = 'the taps that were given' if taps else ''
        return Fit(method, objectives, given or '; '.join(reasons) or 'places that the objective finds itself')

    def _propose(self, role: str) -> Proposal:
        if role not in self._proposed:
            try:
                self._proposed[role] = propose(role, self._student, self._teacher)
            except NoTaps as error:
                self._proposed[role] = error
        found = self._proposed[role]
        if isinstance(found, NoTaps):
            raise found
        return found


def _resolve(value: Any, propose_taps: Callable[[str], Proposal], taps: Optional[list[Any]], reasons: dict[str, None],
             key: str = '') -> Any:
    """An objective with taps in place of roles; notes the reasons of those that were proposed."""
    if isinstance(value, Mapping):
        return {name: _resolve(item, propose_taps, taps, reasons, name) for name, item in value.items()}
    if key == 'taps' and taps:
        return taps
    role = _ROLE.fullmatch(value) if isinstance(value, str) else None
    if role is None:
        return copy.deepcopy(value)
    if role[1] not in ROLES:
        raise ConfigError(f'{value} is no role; there is {", ".join(ROLES)}{did_you_mean(role[1], ROLES)}')
    found, reason = propose_taps(role[1])
    reasons[reason] = None
    return copy.deepcopy(found if key == 'taps' else found[-1])


def _try(objectives: Mapping[str, Any], student: Network, network: Teacher) -> None:
    with torch.random.fork_rng(devices=[]):
        prepare_objectives(build_objectives(objectives), lambda taps: probe(
            student.model, TapReader(student.model, taps, 'student'))[0], [network])
