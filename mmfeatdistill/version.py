"""Version of mmfeatdistill."""
__version__ = '0.3.0'
