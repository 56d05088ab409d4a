# DKD of standardized logits on CIFAR-100, WRN-40-2 to WRN-16-2: alpha and beta are nine times DKD's own, as in the
# authors' code, and rise over 20 epochs as in DKD's.
_base_ = '../_base_/pairs/wrn-16-2_from-wrn-40-2_240e_cifar100.py'
model = dict(
    objectives=dict(
        logits=dict(type='Decoupled', taps=['head.fc'], alpha=9, beta=72, tau=2, standardize=True)))
custom_hooks = _base_.custom_hooks + [
    dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='logits', warmup=20)]
