"""The stand-ins, also where mmcv is compiled."""
import sys

import pytest


@pytest.fixture
def stand_ins(monkeypatch):
    """Lets all of ``mmcv.ops`` call the stand-ins; a compiled mmcv would call its own operators."""
    import mmfeatdistill  # noqa: F401, I001 - first, as it lets the next be imported
    import mmcv.ops  # noqa: F401
    from mmfeatdistill.mmcv_ops import stand_in

    patched = 0
    for name, module in list(sys.modules.items()):
        if name.startswith('mmcv.ops.') and hasattr(module, 'ext_module'):
            monkeypatch.setattr(module, 'ext_module', stand_in)
            patched += 1
    assert patched > 40
    return stand_in
