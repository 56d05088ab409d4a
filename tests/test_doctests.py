import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import mmfeatdistill

MODULES = ['mmfeatdistill'] + [
    module.name for module in pkgutil.walk_packages(mmfeatdistill.__path__, 'mmfeatdistill.')]


@pytest.mark.parametrize('name', MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    torch.manual_seed(0)
    result = doctest.testmod(module, extraglobs=dict(torch=torch), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0, f'{result.failed} of {result.attempted} examples in {name}'


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    assert sum(len(test.examples) for name in MODULES
               for test in finder.find(importlib.import_module(name), globs={})) > 30


def public_objects():
    for name in MODULES:
        module = importlib.import_module(name)
        yield name, module
        for member, value in vars(module).items():
            if member.startswith('_') or getattr(value, '__module__', None) != name:
                continue
            if inspect.isclass(value) or inspect.isfunction(value):
                yield f'{name}.{member}', value
            if inspect.isclass(value):
                for method, function in vars(value).items():
                    function = getattr(function, '__func__', function)
                    function = function.fget if isinstance(function, property) else function
                    # What overrides a method is documented there, and says here what differs, if anything does.
                    overrides = any(method in vars(base) for base in value.__mro__[1:])
                    if not method.startswith('_') and inspect.isfunction(function) and not overrides:
                        yield f'{name}.{member}.{method}', function


def test_everything_public_is_documented():
    undocumented = [name for name, value in public_objects()
                    if not (value.__doc__ or '').strip() and '<locals>' not in getattr(value, '__qualname__', '')]
    assert not undocumented
