"""A training step on random images, where the data of a config are not at hand."""
import torch
from mmengine import registry as root
from mmengine.config import Config
from mmengine.logging import MessageHub

from mmfeatdistill.checks.loss_balance import LossMeasurement
from mmfeatdistill.distill_config import buildable
from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.objectives.logged import losses_of, task_loss
from mmfeatdistill.step_costs.random_batch import random_batch
from mmfeatdistill.taps.dry_run import SIZES
from mmfeatdistill.teacher.initialization import init_without_loading

_IMAGES = 2
"""BatchNorm of vectors needs two."""


def trial_step(cfg: Config) -> LossMeasurement:
    """Builds a distiller and makes a training step, up to the gradients, on small random images.

    Args:
        cfg (Config): A distillation config.

    Returns:
        LossMeasurement: What the losses were; on images that show nothing and weights that know nothing.

    Raises:
        ConfigError: The distiller cannot be built, or no step can be made.
    """
    # What a runner keeps there, and some preprocessors, heads and losses ask for.
    for name, value in dict(iter=0, epoch=0, max_iters=1000, max_epochs=10).items():
        MessageHub.get_current_instance().update_info(name, value)
    distiller: FeatureDistiller = root.MODELS.build(buildable(cfg))
    init_without_loading(distiller.student)
    distiller.train()
    failure = None
    for size in _sizes(distiller):
        try:
            return _step(distiller, cfg, size)
        except Exception as error:  # noqa: BLE001 - each network refuses a size in its own way
            failure = failure or error
    raise ConfigError(f'model: it is built, but makes no step on random images ({type(failure).__name__}: {failure}).')


def _sizes(distiller: FeatureDistiller) -> list[int]:
    """Sides of images, first that at which the dry runs of all networks ended well, then larger ones.

    The first failure is the one that is told, and of smaller images it may only be that they are too small.
    """
    side = distiller.reader.side or SIZES[0]
    return sorted({side, *SIZES}, key=lambda size: (size < side, size))


def _step(distiller: FeatureDistiller, cfg: Config, size: int) -> LossMeasurement:
    preprocessor = distiller.data_preprocessor
    if getattr(preprocessor, 'size', None) is not None:
        preprocessor.size = (size, size)  # to which a segmenter's pads crops
    batch = preprocessor(random_batch(cfg, _IMAGES, size, size), True)
    wanted = distiller.images_wanted()
    if wanted:
        distiller.update_statistics(batch['inputs'], batch['data_samples'], wanted)
        distiller.finish_statistics(wanted)
    total, logged = distiller.parse_losses(distiller(**batch, mode='loss'))
    total.backward()
    if not torch.isfinite(total):
        raise ValueError(f'the loss is {total.item()}.')
    losses = {name: {loss: float(value) for loss, value in losses_of(logged, name).items()}
              for name in distiller.objectives}
    return LossMeasurement(float(task_loss(logged, list(distiller.objectives))), losses, {}, _IMAGES)
