# Two DETRs that answer the same queries.
_base_ = 'transformer_detector.py'
model = dict(objectives=dict(target_aware=None, queries=dict(type='SharedQueries', general=6)))
