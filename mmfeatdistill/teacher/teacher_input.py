"""What images a teacher takes, and what is made of the student's for it."""
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.teacher.input_conversion import InputConversion, InputSpace, disagreement
from mmfeatdistill.teacher.input_size import InputSize, split_options
from mmfeatdistill.teacher.input_space import RAW, agree, how_to_state, pipeline_space
from mmfeatdistill.teacher.sources.timm import timm_normalization
from mmfeatdistill.zoo.configs import has_own_preprocessor

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


class TeacherInput:
    """The input space of a teacher, that of the batches it is given, and the conversion between them.

    Args:
        model (nn.Module): The teacher's network.
        cfg (Config): Its config.
        stated (dict, optional): What images the network takes, in place of what its config says, and at which size.
        student_preprocessor (nn.Module): The data preprocessor that makes the batches.
        student_stated (dict, optional): What these batches are, in place of what is found.
        key (str): Of the teacher, for messages.

    Attributes:
        batch_space (InputSpace): What the student's batches are.
        is_stated (bool): Whether ``stated`` says what the pixels are.
        size (InputSize): At which size it sees the batches.
        fixes_size (bool): Whether no other will do: the config states it, or the network takes one only.
        convert (InputConversion): Makes the teacher's images of the student's.

    Raises:
        ConfigError: What one of the two takes is unknown, or what is stated has no sense.
    """

    def __init__(self, model: nn.Module, cfg: Config, stated: Optional[Mapping], student_preprocessor: nn.Module,
                 student_stated: Optional[Mapping], key: str) -> None:
        self._model = model
        self._student_preprocessor = student_preprocessor
        self._student_stated = student_stated
        self._key = key
        self._looked = False
        with config_key(f'{key}.input'):
            if stated is not None and not isinstance(stated, Mapping):
                raise TypeError(f'expected a dict such as dict(multiple_of=32), got {stated!r}.')
            pixels, size = split_options(stated)
            self.is_stated = bool(pixels)
            self.size = InputSize.stated(size, model)
            self.fixes_size = bool(size) or self.size.size is not None
            self._space = InputSpace.stated(pixels, RAW) if self.is_stated else self._find_space(cfg)
        self.follow_pipeline(RAW)
        if self._space is None:
            self._say_what_is_taken()

    @property
    def space(self) -> InputSpace:
        """What the network takes."""
        return self._space or self.batch_space

    @property
    def is_own(self) -> bool:
        """Whether its own config, or ``input``, tells what it takes; otherwise it takes what the student does."""
        return self._space is not None

    def follow_pipeline(self, space: InputSpace) -> None:
        """Converts from what the student's pipeline and its data preprocessor make of pixels together.

        Args:
            space (InputSpace): What the pipeline makes of them (see
                :func:`mmfeatdistill.teacher.input_space.pipeline_space`); without effect where ``student_input`` is
                stated.

        Raises:
            ConfigError: What the student's data preprocessor does is unknown.
        """
        key = f'{self._key}.student_input'
        with config_key(key):
            try:
                own = InputSpace.of(self._student_preprocessor)
            except ValueError as error:
                if self._student_stated is None and self._space is not None:
                    raise ValueError(f"the student's {error} {how_to_state(key)}") from error
                own = RAW
            stated = self._student_stated
            self.batch_space = own.after(space) if stated is None else InputSpace.stated(stated, own)
        # Where the teacher has no input space of its own it takes whatever the student takes.
        convert = InputConversion(self.batch_space, self.space)
        parameter = next(self._model.parameters(), convert.scale)
        self.convert = convert.to(parameter.device, parameter.dtype)

    def images(self, inputs: Tensor, data_samples: Optional[Sequence[Any]] = None) -> Tensor:
        """The teacher's images: of its own input space, at its own size.

        Args:
            inputs (Tensor): From the student's data preprocessor, shape (N, C, H, W).
            data_samples (Sequence, optional): Its data samples.

        Returns:
            Tensor: The same tensor where nothing has to be changed.
        """
        return self.size.apply(self.convert(inputs, data_samples), self.space.pad_value)

    def look_once(self, inputs: Any, data_samples: Optional[Sequence[Any]]) -> None:
        """Looks at the first batch: its values may show that it is not what was concluded.

        Args:
            inputs (Tensor): From the student's data preprocessor.
            data_samples (Sequence, optional): Its data samples.

        Raises:
            ConfigError: They show it.
        """
        if self._looked or self._space is None or not isinstance(inputs, Tensor) or inputs.is_meta:
            return
        self._looked = True
        found = disagreement(inputs, data_samples, self.batch_space)
        if found is not None:
            raise ConfigError(
                f"{self._key}: the student's batches seem to have {self.batch_space}, by which the first one has "
                f"values {found}. {how_to_state(f'{self._key}.student_input')}")

    def _say_what_is_taken(self) -> None:
        """Says that the teacher takes the student's images, and whether its weights may have been made for others.

        Configs of mmpretrain have their data preprocessor next to the model, so a copied model has none.
        """
        text = f"{self._key}: its config has no data_preprocessor, so it takes the student's images: {self.space}"
        trained = timm_normalization(self._model)
        if trained is None or agree(self.space, InputSpace.stated(trained._asdict(), self.space)):
            print_log(f'{text}.', logger='current', level=logging.INFO)
            return
        means, stds = ([round(v, 3) for v in values] for values in (trained.mean, trained.std))
        print_log(f"{text}. timm's own weights of the network in it are of other images. If it has these, state it: "
                  f"{self._key}.input=dict(mean={means}, std={stds}, channel_order='rgb').", logger='current',
                  level=logging.WARNING)

    def _find_space(self, cfg: Config) -> Optional[InputSpace]:
        """What the network takes; None where its config does not say it, and it takes what the student does."""
        has_own = has_own_preprocessor(cfg, self._model)
        try:
            pipeline = pipeline_space(next((cfg[name].get('dataset') for name in _LOADERS if cfg.get(name)), None))
            if not has_own:
                return None if pipeline.is_raw else pipeline
            own = InputSpace.of(self._model.data_preprocessor)
            if pipeline.normalizes and own.normalizes:
                raise ValueError(f'its pipeline and its data preprocessor both normalize ({pipeline}, and {own}).')
        except ValueError as error:
            raise ValueError(f"the teacher's {error} {how_to_state(f'{self._key}.input')}") from error
        return own.after(pipeline)
