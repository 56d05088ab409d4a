"""The parts of a distillation config, each ready to be built by itself."""
import copy

from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from mmfeatdistill.teacher import teacher_options


def buildable(cfg: Config) -> ConfigDict:
    """The config of a distiller as a runner builds it, whose student and teachers can also be built by themselves.

    Args:
        cfg (Config): A distillation config, which is left as it is; its ``default_scope`` becomes the current one.

    Returns:
        ConfigDict: A copy of its ``model``, with the data preprocessor in the student too, and the teachers as a list
        of dicts.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
        model.student.setdefault('data_preprocessor', cfg.data_preprocessor)
    model.teacher = list(teacher_options(model.teacher).values())
    return model
