"""Version of mmfeatdistill."""
__version__ = '0.1.0'
