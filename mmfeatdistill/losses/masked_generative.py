"""Generating the teacher's feature from a masked one of the student (MGD)."""
from collections.abc import Callable

from torch import Tensor

from mmfeatdistill.losses._pair import check_pair
from mmfeatdistill.losses.squared_error import squared_error


def masked(feature: Tensor, *, noise: Tensor, mask_ratio: float) -> Tensor:
    r"""Hides a random part of a feature.

    .. math:: m \odot x, \qquad m = 0 \text{ where } u > 1 - \lambda \text{, else } 1

    Args:
        feature (Tensor): Shape (N, C, ...).
        noise (Tensor): u, uniform on [0, 1), of the feature's shape or 1 along some dimensions of it.
        mask_ratio (float): The share :math:`\lambda` that is hidden, from 0 to 1.

    Returns:
        Tensor: A new tensor of the feature's shape and type.

    Raises:
        ValueError: The noise does not fit the feature, or ``mask_ratio`` is no share.

    Examples:
        >>> masked(torch.ones(1, 2, 2), noise=torch.tensor([[[0.1, 0.9]]]), mask_ratio=0.5)
        tensor([[[1., 0.],
                 [1., 0.]]])
    """
    if not 0 <= mask_ratio <= 1:
        raise ValueError(f'mask_ratio must be from 0 to 1, got {mask_ratio}.')
    fits = all(n in (1, size) for n, size in zip(noise.shape, feature.shape))
    if noise.dim() != feature.dim() or not fits:
        raise ValueError(f'noise {tuple(noise.shape)} does not fit the student {tuple(feature.shape)}.')
    return feature.masked_fill(noise > 1 - mask_ratio, 0)


def masked_generative(student: Tensor, teacher: Tensor, *, generator: Callable[[Tensor], Tensor],
                      noise: Tensor, mask_ratio: float) -> Tensor:
    r"""Squared error of a feature generated from the partly hidden student's.

    .. math:: L = \frac{1}{N} \sum_{n} \lVert G(m_n \odot s_n) - t_n \rVert_2^2,
        \qquad m = 0 \text{ where } u > 1 - \lambda \text{, else } 1

    Masked generative distillation (arXiv 2205.01529); G is two 3x3 convolutions with a ReLU in
    between. The noise u is an argument, so that the function has no hidden state: the authors draw
    one value per position (N, 1, H, W) for dense prediction and one per channel (N, C, 1, 1) for
    classification. :class:`mmfeatdistill.connectors.MaskedGenerator` holds G and draws u.

    Args:
        student (Tensor): Feature in the teacher's width, shape (N, C, H, W).
        teacher (Tensor): Feature of the same shape; receives no gradient.
        generator (Callable): Maps the masked feature to one of the same shape; its parameters are
            trained.
        noise (Tensor): Uniform on [0, 1), of the feature's shape or 1 along some dimensions of it.
        mask_ratio (float): The share that is hidden, from 0 to 1. The authors use 0.65 for
            RetinaNet, 0.45 for Faster R-CNN, 0.75 for segmentation and 0.15 for classification.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: A feature is no floating-point tensor.
        ValueError: The shapes differ, the noise does not fit the feature, or ``mask_ratio`` is no
            share.

    Examples:
        >>> student, noise = torch.ones(1, 3, 2, 2), torch.tensor([[[[0.1, 0.3], [0.6, 0.9]]]])
        >>> masked_generative(student, torch.zeros(1, 3, 2, 2), generator=torch.nn.Identity(),
        ...                   noise=noise, mask_ratio=0.5)  # two of four positions stay
        tensor(6.)
    """
    check_pair(student, teacher, '(N, C, ...)')
    # The generator is a network: it sees the precision that the model trains in.
    return squared_error(generator(masked(student, noise=noise, mask_ratio=mask_ratio)), teacher)
