"""What tests of faults share: the log of a build."""
import logging

import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def log(caplog):
    """What is logged; loggers of mmengine do not pass records on."""
    logger = MMLogger.get_current_instance()
    caplog.handler.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    before = logger.level
    logger.setLevel(logging.INFO)
    yield caplog
    logger.setLevel(before)
    logger.removeHandler(caplog.handler)


def said(caplog, *words):
    """Whether one line of the log has all these words."""
    return any(all(word in record.getMessage() for word in words) for record in caplog.records)
