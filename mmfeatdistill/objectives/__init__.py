"""Objectives: what of the student is matched to what of the teacher, and how."""
from mmfeatdistill.objectives.base import Objective, TapPair
from mmfeatdistill.objectives.feature_match import FeatureMatch

__all__ = ['FeatureMatch', 'Objective', 'TapPair']
