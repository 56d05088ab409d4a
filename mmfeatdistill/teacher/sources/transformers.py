"""Vision networks of Hugging Face's transformers."""
import inspect
from collections.abc import Mapping
from typing import Any, Optional

from torch import Tensor, nn

from mmfeatdistill.registry import MODELS, TEACHER_SOURCES
from mmfeatdistill.teacher.sources.library_network import LibraryNetwork, Normalization, import_library


@MODELS.register_module()
@TEACHER_SOURCES.register_module(name='transformers')
class TransformersNetwork(LibraryNetwork):
    """A vision network of transformers, with the normalization of its image processor.

    Of a network for images and texts, such as CLIP or SigLIP, it is the one for images. Code that comes with weights
    is not run.

    Args:
        name (str): A local folder as ``save_pretrained()`` leaves it, or a name on the Hub.
        arguments (dict, optional): Changes of the config, such as ``num_hidden_layers``.
        pretrained (bool): Whether the weights of the folder, or the Hub, are loaded. Defaults to False.

    Raises:
        ImportError: transformers is not installed.
        OSError: There is no such folder or name.
        ValueError: The weights lack some of the network's tensors.
    """

    def __init__(self, name: str, arguments: Optional[Mapping[str, Any]] = None, pretrained: bool = False) -> None:
        transformers = import_library('transformers')
        config = transformers.AutoConfig.from_pretrained(name)
        config = getattr(config, 'vision_config', config)
        config.update(dict(arguments or {}))
        network = _load(transformers, name, config) if pretrained else transformers.AutoModel.from_config(config)
        super().__init__(network, _normalization(transformers, name))
        parameters = inspect.signature(network.forward).parameters
        # Without it, position embeddings fit images of one size only.
        self._options = dict(interpolate_pos_encoding=True) if 'interpolate_pos_encoding' in parameters else {}

    def run(self, inputs: Tensor) -> Any:
        """Calls the network on images of any size."""
        return self.backbone(pixel_values=inputs, **self._options)


def _load(transformers: Any, name: str, config: Any) -> nn.Module:
    network, found = transformers.AutoModel.from_pretrained(name, config=config, output_loading_info=True)
    missing = [key for key in found['missing_keys'] if not key.startswith('pooler.')]
    if len(missing) < len(found['missing_keys']):
        network.pooler = None  # the checkpoint of a classifier has none, and features do not go through it
    if missing or found['mismatched_keys']:
        lacking = ', '.join(map(str, [*missing, *found['mismatched_keys']][:3]))
        raise ValueError(f'the weights of {name!r} do not fit: missing or of another shape are {lacking}.')
    return network


def _normalization(transformers: Any, name: str) -> Optional[Normalization]:
    """What the image processor does, or None where there is none."""
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError):
        return None
    factor = processor.rescale_factor if getattr(processor, 'do_rescale', False) else 1.0
    normalizes = getattr(processor, 'do_normalize', False)
    mean, std = (processor.image_mean, processor.image_std) if normalizes else ([0.0] * 3, [1.0] * 3)
    order = 'bgr' if getattr(processor, 'do_flip_channel_order', False) else 'rgb'
    return Normalization([value / factor for value in mean], [value / factor for value in std], order)
