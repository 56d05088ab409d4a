"""Decoupled knowledge distillation: logits, and the labels that split them."""
from collections.abc import Iterator, Sequence
from typing import Optional

import torch
from torch import Tensor

from mmfeatdistill.errors import config_key
from mmfeatdistill.losses import decoupled
from mmfeatdistill.losses.logit_standardization import standardized_pair
from mmfeatdistill.objectives.base import Objective, Taps
from mmfeatdistill.objectives.class_scores import check_softmax
from mmfeatdistill.objectives.labels import single_labels
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.reader import TappedPass


@MODELS.register_module(name=['Decoupled', 'DKD', 'DKDLoss'])
class Decoupled(Objective):
    r"""Pulls a classifier's logits to the teacher's, the labeled class and the other classes weighted apart (DKD).

    .. math:: L = w \tau^2 \left[ \alpha \, \mathrm{KL}(b^t \Vert b^s) + \beta \, \mathrm{KL}(q^t \Vert q^s) \right]

    as :func:`mmfeatdistill.losses.decoupled` defines it, with the labels of the batch. Decoupled knowledge
    distillation (arXiv 2203.08679). It needs one class for each image, so it is for classifiers; of images that were
    mixed (Mixup, CutMix) the class with the greatest share counts. Logged as ``loss_0``, ...: in the order of the
    taps, and of the teachers. The authors raise the weight linearly over the first 20 epochs:
    ``dict(type='ObjectiveScheduleHook', objective='logits', warmup=20)``.

    Args:
        taps (list): Where the logits are: ``['head.fc']``.
        alpha (float): Weight of the labeled class against all others. Defaults to 1, as in the authors' code.
        beta (float): Weight of the other classes. Defaults to 8, the authors' on CIFAR-100; 0.5 on ImageNet.
        tau (float): Temperature. Defaults to 4, the authors' on CIFAR-100; 1 on ImageNet.
        loss_weight (float): Factor of the loss. Defaults to 1.
        teacher (int, optional): Which of several teachers is mimicked. Defaults to None: all of them.
        standardize (bool): Whether :func:`mmfeatdistill.losses.standardize_logits` comes first on both sides. Defaults
            to False.

    Raises:
        TypeError: ``taps`` or ``teacher`` is of another type.
        ValueError: ``taps`` is empty or does not follow the grammar.
    """

    needs_labels = True

    def __init__(self, taps: Taps, alpha: float = 1.0, beta: float = 8.0, tau: float = 4.0,
                 loss_weight: float = 1.0, teacher: Optional[int] = None, standardize: bool = False) -> None:
        super().__init__(taps, teacher)
        self.alpha = alpha
        self.beta = beta
        self.tau = tau
        self.loss_weight = loss_weight
        self.standardize = standardize

    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Compares the logits of the dry run, as if its image were of class 0 (see :class:`Objective`)."""
        with config_key(key):
            for pair in self._pairs(student, teachers):
                rows = max(logits.shape[0] for logits in pair)
                if rows != 1:
                    raise ValueError(f'taps: a tap gives {rows} rows for one image, as box heads do for its regions; '
                                     "expected the logits of a classifier, as in taps=['head.fc'].")
                self._compare(*pair, torch.zeros(1, dtype=torch.int64, device=pair[0].device))
        check_softmax(type(self).__name__, self.taps, student, teachers, f'{key}.taps')

    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        return {f'loss_{i}': self._compare(*pair, single_labels(student.data_samples).to(pair[0].device))
                for i, pair in enumerate(self._pairs(student, teachers))}

    def _compare(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        if self.standardize:
            student, teacher = standardized_pair(student, teacher)
        return self.loss_weight * decoupled(student, teacher, labels=labels, alpha=self.alpha, beta=self.beta,
                                            tau=self.tau)

    def _pairs(self, student: TappedPass, teachers: Sequence[TappedPass]) -> Iterator[tuple[Tensor, Tensor]]:
        for teacher in teachers:
            for pair in self.taps:
                yield _logits(student, pair.student.text), _logits(teacher, pair.teacher.text)


def _logits(tapped: TappedPass, tap: str) -> Tensor:
    tensors = tapped[tap]
    if len(tensors) != 1 or tensors[0].dim() != 2:
        raise ValueError(f'taps: {tap!r} gives {[tuple(tensor.shape) for tensor in tensors]}; expected the logits of a '
                         "classifier, one tensor of shape (N, K), as in taps=['head.fc'].")
    return tensors[0]
