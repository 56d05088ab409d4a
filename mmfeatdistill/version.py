"""Version of mmfeatdistill."""
__version__ = '0.4.0'
