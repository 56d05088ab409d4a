"""Training without labels in two processes."""
from tests.engine.test_runner import same_tensors


def test_heads_that_do_not_run_hold_up_no_process(pair):
    first, second = pair.results('label_free')
    assert len(first) == len(second) == 3
    assert all(same_tensors(*gradients) for gradients in zip(first, second))
    assert {name.partition('.')[0] for name in first[0]} == {'backbone', 'neck', 'distiller'}
    of_neck = [sum(value.abs().sum() for name, value in step.items() if name.startswith('neck.')) for step in first]
    assert of_neck[0] > 0 == of_neck[1] < of_neck[2]
