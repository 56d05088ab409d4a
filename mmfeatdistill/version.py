"""Version of mmfeatdistill."""
__version__ = '0.2.0'
