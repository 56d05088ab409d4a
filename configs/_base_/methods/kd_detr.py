about = 'KD-DETR: what the decoders of two DETRs answer to the same queries'
ratio = None
detection = dict(queries=dict(type='SharedQueries'))
