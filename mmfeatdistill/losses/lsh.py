"""Agreement of random half-spaces: locality-sensitive hashing (LSH)."""
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfeatdistill.losses._pair import full_precision, matching_pair, require_floating
from mmfeatdistill.losses._parts import sum_in_parts

_PROJECTIONS = 2**22
"""Projections that exist at a time: 16 MiB in each of the tensors that they go through."""


def lsh(student: Tensor, teacher: Tensor, *, weight: Tensor, bias: Tensor,
        kind: Literal['bce', 'l1', 'l2'] = 'bce', with_l2: bool = False,
        sample_mask: Tensor | None = None) -> Tensor:
    r"""Classifies on which side of random hyperplanes the teacher's feature lies.

    .. math:: L = \frac{1}{N M} \sum_{n,m} \mathrm{bce}\big((W s_n + b)_m, [(W t_n + b)_m > 0]\big)

    with M hashes. Mimicking features by locality-sensitive hashing (arXiv 2011.01424), which asks
    for the direction of a feature more than for its length. The kinds ``'l1'`` and ``'l2'`` take
    the mean absolute or squared difference of the projections; ``with_l2`` adds the mean squared
    error of the features themselves (LSHL2, the paper's best). Finite features give a finite loss
    and gradient, yet the authors saw detectors turn to NaN with this loss alone: clip gradients.

    Args:
        student (Tensor): Feature, shape (N, D, ...), flattened per sample.
        teacher (Tensor): Feature of the same shape; receives no gradient.
        weight (Tensor): Random directions W, shape (M, D), frozen.
        bias (Tensor): Offsets b, shape (M), frozen (see :func:`lsh_bias`).
        kind (str): Distance of the projections: ``'bce'``, ``'l1'`` or ``'l2'``. Defaults to
            ``'bce'``.
        with_l2 (bool): Whether the mean squared error of the features is added. Defaults to False.
        sample_mask (Tensor, optional): Samples that count, bool of shape (N): the paper's variant
            "S" takes those that the teacher classifies rightly. The mean is over them; without
            any, the loss is 0 and so is its gradient, where the authors' code divides by zero.
            Defaults to None: all.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: A feature or the hash is no floating-point tensor, or the mask not a bool one.
        ValueError: The shapes do not fit each other, or there is no such ``kind``.

    Examples:
        >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, -1.0]])
        >>> lsh(student, teacher, weight=torch.eye(2), bias=torch.zeros(2))  # undecided: log 2
        tensor(0.6931)
        >>> lsh(student, teacher, weight=torch.eye(2), bias=torch.zeros(2), kind='l2')
        tensor(1.)
    """
    student, teacher = matching_pair(student, teacher, '(N, D, ...)')
    student, teacher = student.flatten(1), teacher.flatten(1)
    _check(student, weight, bias, sample_mask)
    weight, bias = weight.detach().to(student.dtype), bias.detach().to(student.dtype)

    def total(student: Tensor, teacher: Tensor, *mask: Tensor) -> Tensor:
        loss = _projected(student, teacher, weight, bias, kind)
        if with_l2:
            loss = loss + F.mse_loss(student, teacher, reduction='none').mean(1)
        return (loss.masked_fill(~mask[0], 0) if mask else loss).sum()

    size = max(1, _PROJECTIONS // max(len(weight), 1))
    with full_precision(student):
        if sample_mask is None:
            return sum_in_parts(total, student, teacher, size=size) / max(student.shape[0], 1)
        return sum_in_parts(total, student, teacher, sample_mask, size=size) / sample_mask.sum().clamp(min=1)


def lsh_bias(projections: Tensor, *, kind: Literal['median', 'mean', 'zero'] = 'median') -> Tensor:
    r"""Offsets that place each hyperplane in the middle of the teacher's features.

    .. math:: b_m = -\mathrm{median}_n \, (W t_n)_m

    LSH (arXiv 2011.01424). Of an even number of samples the lower of the two middle values is
    taken, which leaves exactly half of them above.

    Args:
        projections (Tensor): :math:`W t` of the training samples, shape (samples, M).
        kind (str): ``'median'`` (CIFAR-100 and multi-label in the paper), ``'mean'`` or ``'zero'``
            (ImageNet, detection). Defaults to ``'median'``.

    Returns:
        Tensor: Offsets of shape (M), without gradient; float32 or wider.

    Raises:
        TypeError: The projections are no floating-point tensor.
        ValueError: They are no matrix with at least one row, or there is no such ``kind``.

    Examples:
        >>> lsh_bias(torch.tensor([[1.0, 0.0], [2.0, 0.0], [6.0, 3.0]]))
        tensor([-2., -0.])
        >>> lsh_bias(torch.tensor([[1.0, 0.0], [2.0, 0.0], [6.0, 3.0]]), kind='mean')
        tensor([-3., -1.])
    """
    _, projections = matching_pair(projections, projections, '(samples, M)')
    if not projections.shape[0]:
        raise ValueError(f'at least one sample is needed, got {tuple(projections.shape)}.')
    if kind == 'median':
        return -projections.median(dim=0).values
    if kind == 'mean':
        return -projections.mean(dim=0)
    if kind == 'zero':
        return projections.new_zeros(projections.shape[1])
    raise ValueError(f"kind must be 'median', 'mean' or 'zero', got {kind!r}.")


def _projected(student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor, kind: str) -> Tensor:
    """Distance of the projections of each sample, averaged over the hashes; (N)."""
    if kind == 'bce':
        above = F.linear(teacher, weight, bias).gt_(0)
        logits = F.linear(student, weight, bias)
        return F.binary_cross_entropy_with_logits(logits, above, reduction='none').mean(1)
    difference = F.linear(student - teacher, weight)  # the offset cancels
    if kind == 'l1':
        return difference.abs().mean(1)
    if kind == 'l2':
        return difference.square().mean(1)
    raise ValueError(f"kind must be 'bce', 'l1' or 'l2', got {kind!r}.")


def _check(feature: Tensor, weight: Tensor, bias: Tensor, sample_mask: Tensor | None) -> None:
    """Checks the hash and the mask against a flattened feature."""
    require_floating(weight=weight, bias=bias)
    if weight.dim() != 2 or weight.shape[1] != feature.shape[1] or bias.shape != weight.shape[:1]:
        raise ValueError(f'a feature {tuple(feature.shape)} needs weight (M, {feature.shape[1]}) '
                         f'and bias (M), got {tuple(weight.shape)} and {tuple(bias.shape)}.')
    if sample_mask is None:
        return
    if sample_mask.dtype != torch.bool:
        raise TypeError(f'sample_mask: expected a bool tensor, got {sample_mask.dtype}.')
    if sample_mask.shape != feature.shape[:1]:
        raise ValueError('sample_mask must have one value for each sample of '
                         f'{tuple(feature.shape)}, got {tuple(sample_mask.shape)}.')
