about = "CrossKD: what the teacher's dense head makes of the middle of the student's"
ratio = None
detection = dict(cross=dict(type='CrossHead', taps=['bbox_head.cls_convs.2:each', 'bbox_head.reg_convs.2:each']))
