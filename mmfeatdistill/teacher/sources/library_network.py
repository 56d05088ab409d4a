"""What a network of another library has to be to teach: an MM model with a data preprocessor of its own."""
import importlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Optional

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel, ImgDataPreprocessor
from torch import Tensor, nn


class Normalization(NamedTuple):
    """What a library says of the images that a network takes.

    Attributes:
        mean (Sequence[float]): Of pixels from 0 to 255, for each channel.
        std (Sequence[float]): Likewise.
        channel_order (str): ``'rgb'`` or ``'bgr'``.
    """

    mean: Sequence[float]
    std: Sequence[float]
    channel_order: str = 'rgb'

    @classmethod
    def of_unit_range(cls, mean: Sequence[float], std: Sequence[float]) -> 'Normalization':
        """From mean and std of RGB pixels from 0 to 1, as most libraries give them.

        Examples:
            >>> Normalization.of_unit_range([0.5], [0.5])
            Normalization(mean=[127.5], std=[127.5], channel_order='rgb')
        """
        return cls([255 * value for value in mean], [255 * value for value in std])


class LibraryNetwork(BaseModel):
    """Wears the network of another library as the backbone of an MM model.

    So taps, dry run, early exit, checkpoints and acceleration work as with the networks of the MM libraries. A tap is
    ``'backbone.'`` and the name that the library's own ``named_modules()`` gives; ``'backbone'`` is what the entire
    network returns.

    A source of teachers is one file: a class that inherits from this one, builds a network by its name, and is
    registered under the key by which configs ask for it (see :mod:`mmfeatdistill.teacher.sources.torchvision`).

    Args:
        network (nn.Module): The network, with or without trained weights.
        normalization (Normalization, optional): Of the images that it takes; None where nothing tells, so that it has
            to be stated.
        num_classes (int, optional): How many classes its output has scores of; None where it gives something else.
        image_size (int, optional): Side of the images, where it takes square ones of this size only.

    Examples:
        >>> model = LibraryNetwork(nn.Conv2d(3, 4, 1), Normalization([127.5], [127.5]))
        >>> model.extract_feat(torch.zeros(1, 3, 8, 8)).shape
        torch.Size([1, 4, 8, 8])
    """

    brings_preprocessor = True

    def __init__(self, network: nn.Module, normalization: Optional[Normalization], num_classes: Optional[int] = None,
                 image_size: Optional[int] = None) -> None:
        super().__init__(_preprocessor(normalization))
        self.backbone = network
        self.num_classes = num_classes or None
        self.image_size = image_size

    def run(self, inputs: Tensor) -> Any:
        """Calls the network as its library does.

        Args:
            inputs (Tensor): Shape (N, C, H, W).

        Returns:
            Any: What the network returns.
        """
        return self.backbone(inputs)

    def extract_feat(self, inputs: Tensor) -> Any:
        """Runs the entire network; whoever reads taps ends the pass at the last of them."""
        return self.run(inputs)

    def forward(self, inputs: Tensor, data_samples: Optional[list] = None, mode: str = 'tensor') -> Any:
        """Runs the network, in ``mode='predict'`` into mmpretrain's data samples.

        Args:
            inputs (Tensor): Shape (N, C, H, W).
            data_samples (list, optional): Of mmpretrain, for predictions.
            mode (str): ``'tensor'`` or ``'predict'``: it is not trained.

        Returns:
            Any: What the network returns, or data samples with scores.

        Raises:
            ValueError: Another mode.
        """
        if mode not in ('tensor', 'predict'):
            raise ValueError(f"mode: expected 'tensor' or 'predict', got {mode!r}; a teacher is not trained.")
        outputs = self.run(inputs)
        return outputs if mode == 'tensor' else _classified(outputs, data_samples)

    def init_weights(self) -> None:
        """Does nothing: libraries initialize their networks when they build them."""

    def own_names(self, names: Iterable[str]) -> dict[str, str]:
        """What the tensors of a file are called here: a file of the library has its own names.

        Args:
            names (Iterable[str]): In the file.

        Returns:
            dict[str, str]: In this model, by those in the file.
        """
        names, own = list(names), set(self.state_dict())
        is_of_library = sum(f'backbone.{name}' in own for name in names) > sum(name in own for name in names)
        return {name: f'backbone.{name}' if is_of_library else name for name in names}


class UnknownInput(BaseDataPreprocessor):
    """Stands for the data preprocessor of a network of which nothing tells what images it takes."""

    def forward(self, data: Any, training: bool = False) -> Any:
        """Refuses.

        Raises:
            ValueError: Always.
        """
        raise ValueError('what images this network takes is unknown.')


def import_library(name: str) -> Any:
    """Imports an optional library.

    Args:
        name (str): Its import name, which is also that of the extra.

    Returns:
        ModuleType: The library.

    Raises:
        ImportError: It is not installed; says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ImportError(f"{name} is not installed: pip install 'mmfeatdistill[{name}]'.") from error


def _preprocessor(normalization: Optional[Normalization]) -> nn.Module:
    if normalization is None:
        return UnknownInput()
    return ImgDataPreprocessor(mean=normalization.mean, std=normalization.std,
                               bgr_to_rgb=normalization.channel_order == 'rgb' and len(normalization.mean) == 3)


def _classified(outputs: Any, data_samples: Optional[list]) -> list:
    """Data samples with the scores of classes, for mmpretrain's evaluators."""
    from mmpretrain.structures import DataSample
    scores = torch.softmax(outputs.float(), dim=1)
    samples = data_samples or [DataSample() for _ in scores]
    return [sample.set_pred_score(score).set_pred_label(score.argmax(0, keepdim=True))
            for sample, score in zip(samples, scores)]
