"""The classes of a dataset, held against those that a teacher was trained on."""
import logging
from typing import Any

from mmengine.logging import print_log

from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.teacher.teacher import class_names


def check_class_order(metainfo: Any, model: FeatureDistiller) -> None:
    """Refuses to compare predictions of a teacher that counts the classes of the training in another order.

    Args:
        metainfo (dict): Of the training dataset.
        model (FeatureDistiller): What is trained.

    Raises:
        ConfigError: The classes are the same, and their order is not.
    """
    own = class_names(metainfo)
    for index, teacher in enumerate(model.teachers):
        theirs = teacher.classes
        pairs = list(zip(own, theirs))
        if len(own) != len(theirs) or all(one.lower() == other.lower() for one, other in pairs):
            continue
        for name, objective in model.objectives.items():
            reads = index in objective.teachers_read(len(model.teachers))
            if not (reads and model.reader.predictions.intersection(objective.student_taps)
                    and teacher.predictions.intersection(objective.teacher_taps)):
                continue
            place, (one, other) = next((i, pair) for i, pair in enumerate(pairs) if pair[0].lower() != pair[1].lower())
            said = (f"model.objectives.{name}.taps: compares predictions, but class {place} is {one!r} in the training "
                    f'dataset and {other!r} in the checkpoint of the teacher')
            if sorted(map(str.lower, own)) == sorted(map(str.lower, theirs)):
                raise ConfigError(f'{said}, which has the same classes in another order. Give metainfo.classes of the '
                                  'dataset in that order, or match features.')
            print_log(f'{said}.', logger='current', level=logging.WARNING)
