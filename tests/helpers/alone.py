"""Runs a script where this project cannot be imported, but for the operators that mmcv has taken from it by then."""
import runpy
import sys

import mmcv.ops  # noqa: F401

if __name__ == '__main__':
    for name in [name for name in sys.modules if name.partition('.')[0] == 'mmfeatdistill']:
        del sys.modules[name]
    sys.modules['mmfeatdistill'] = None  # type: ignore[assignment]
    sys.argv.pop(0)
    runpy.run_path(sys.argv[0], run_name='__main__')
