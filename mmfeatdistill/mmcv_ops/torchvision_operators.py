"""The operators that torchvision has compiled, imported when the first of them is called."""
from collections.abc import Callable


def torchvision_operator(name: str) -> Callable:
    """A compiled operator of torchvision.

    Args:
        name (str): Such as ``'nms'`` or ``'_roi_align_backward'``.

    Returns:
        Callable: Takes positional arguments.

    Raises:
        ImportError: torchvision is missing, or is of another torch, so that its operators cannot be loaded.

    Examples:
        >>> boxes = torch.tensor([[0., 0., 4., 4.], [0., 0., 4., 5.], [8., 8., 9., 9.]])
        >>> torchvision_operator('nms')(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5)
        tensor([1, 2])
    """
    import torch
    try:
        import torchvision  # noqa: F401
        return getattr(torch.ops.torchvision, name)
    except (ImportError, AttributeError, RuntimeError) as error:
        raise ImportError(
            f'mmcv was installed without compiled operators, and {name!r} of torchvision, which stands in, cannot be '
            f'loaded ({error}); install the torchvision that belongs to torch {torch.__version__}.') from error
