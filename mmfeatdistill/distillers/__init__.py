"""Distillers: the model that a runner trains."""
from mmfeatdistill.distillers.feature_distiller import FeatureDistiller
from mmfeatdistill.distillers.label_free import LabelFreeDistiller

__all__ = ['FeatureDistiller', 'LabelFreeDistiller']
