# The teacher's patch tokens with mean 0 and a mean variance of 1, so that the loss begins near 2e-5 times their 768 x 16
# x 16 values, which is 4, whatever the scale of the teacher; weight chosen, untried.
_base_ = 'channel-mlp_resnet50_from-dinov2-base_100e_in1k.py'
model = dict(objectives=dict(stage4=dict(standardize='isotropic')))
