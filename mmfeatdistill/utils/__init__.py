"""What mmengine asks of every MM library by name."""
from mmfeatdistill.utils.setup_env import register_all_modules

__all__ = ['register_all_modules']
