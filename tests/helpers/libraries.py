"""Small networks of other libraries, with random weights, as teachers."""
from pathlib import Path

from torch import nn

STATED = dict(mean=[120., 110., 100.], std=[60., 50., 40.], channel_order='rgb')
KINDS = ('timm', 'torchvision', 'transformers', 'module')
TAPS = dict(timm='backbone.layer3', torchvision='backbone.layer3', transformers='backbone.encoder', module='backbone.1')


def build(width: int = 8) -> nn.Module:
    """What a user may have."""
    return nn.Sequential(nn.Conv2d(3, width, 3, 4, 1), nn.Conv2d(width, width, 3, 4, 1), nn.Flatten())


def vit_folder(folder: Path, patch: int = 16) -> str:
    """A vision transformer as transformers saves it, without the pooling layer, as classifiers have it."""
    import transformers
    config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                                    image_size=4 * patch, patch_size=patch)
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    transformers.ViTImageProcessor(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3]).save_pretrained(folder)
    return str(folder)


def library_teacher(kind: str, folder: Path, **options) -> dict:
    """The config of one of the four kinds."""
    if kind == 'transformers':
        own = dict(transformers=vit_folder(folder / 'vit'), checkpoint='pretrained')
    elif kind == 'module':
        own = dict(module='tests.helpers.libraries:build', arguments=dict(width=4), checkpoint=None, input=STATED)
    else:
        own = {kind: 'resnet18', 'checkpoint': None}
    return own | options
