"""Packaging of mmfeatdistill."""
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION: dict[str, str] = {}
exec((HERE / 'mmfeatdistill' / 'version.py').read_text(), VERSION)

# Neither family of the MM libraries is a hard requirement: they have the same import names and overwrite each other.
EXTRAS = {
    'maintained': ['torch==2.11.0', 'torchvision==0.26.0', 'onedl-mmengine==0.10.12', 'onedl-mmcv==2.3.6',
                   'onedl-mmdetection==3.5.1', 'onedl-mmsegmentation==1.4.2', 'onedl-mmpretrain==1.3.6'],
    'original': ['torch==2.1.2', 'torchvision==0.16.2', 'numpy<2', 'opencv-python<4.12', 'mmengine==0.10.7',
                 'mmcv==2.1.0', 'mmdet==3.3.0', 'mmsegmentation==1.2.2', 'mmpretrain==1.2.0', 'ftfy', 'regex'],
    'demo': ['scikit-learn', 'matplotlib'],
    'docs': ['sphinx>=7.3,<11', 'myst-parser', 'furo'],
    # A new rule of a linter is no reason for the checks to fail.
    'dev': ['pytest', 'ruff==0.17.*', 'mypy==2.4.*', 'types-tqdm', 'types-PyYAML', 'tensorboard'],
}

setup(
    name='mmfeatdistill',
    version=VERSION['__version__'],
    description='Feature distillation for OpenMMLab detectors, segmenters and classifiers',
    long_description=(HERE / 'README.md').read_text() if (HERE / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    install_requires=['tqdm'],
    packages=find_packages(include=['mmfeatdistill', 'mmfeatdistill.*']),
    extras_require=EXTRAS,
)
