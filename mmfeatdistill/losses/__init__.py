"""Loss functions, and the registered modules over them; every one is ``loss(student, teacher)``."""
from mmfeatdistill.losses.squared_error import SquaredError, squared_error

__all__ = ['SquaredError', 'squared_error']
