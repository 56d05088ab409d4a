#!/usr/bin/env bash
# Measures all of docs/step_costs.md anew, an hour on a CPU: tools/step_costs.sh [options of benchmark_step.py]
set -euo pipefail
cd "$(dirname "$0")/.."
# Threads that wait for each other take more than their work where a processor is shared.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
measure() {
    "${PYTHON:-python}" -W ignore tools/benchmark_step.py "$@" --json docs/step_costs.json
}

MLP=configs/channel_mlp/channel-mlp
DIGITS=("${MLP}_resnet18-w8_digits.py" "${MLP}_faster-rcnn_r18-w8_fpn_digits.py" "${MLP}_mask-rcnn_r18-w8_fpn_digits.py"
        "${MLP}_pspnet_r18-w8-d8_digits.py")
RANDOM_TEACHER=(--cfg-options model.teacher.checkpoint=None)
R50_R18=("${MLP}_resnet18_from-resnet34_100e_in1k.py" --images 16 224 224)
R50=(--cfg-options model.teacher.config=mmpretrain::resnet/resnet50_8xb32_in1k.py)
MOBILENET=("${MLP}_mobilenet-v1_from-resnet50_100e_in1k.py" --images 16 224 224)
FASTER_RCNN=(configs/pkd/pkd_faster-rcnn_r50_fpn_from-r101_2x_coco.py --images 2 320 480)
PSPNET=(configs/cwd/cwd_pspnet_r18_from-pspnet-r101_80k_cityscapes-512x1024.py)
PSPNET_MLP=("${MLP}_pspnet_r18_from-pspnet-r101_80k_cityscapes-512x1024.py")
SMALL=(--images 2 128 256 --cfg-options 'model.student.data_preprocessor.size=(128,256)')

"${PYTHON:-python}" tools/dataset_converters/digit_scenes.py data/digits
rm -f docs/step_costs.json
measure "${DIGITS[@]}" --rounds 200 --build "${RANDOM_TEACHER[@]}" "$@"
measure "${R50_R18[@]}" --rounds 12 --build "${R50[@]}" "$@"
measure "${MOBILENET[@]}" --rounds 12 --build "$@"
measure "${FASTER_RCNN[@]}" --rounds 12 --warmup 1 --build "$@"
measure "${PSPNET[@]}" --images 2 512 1024 --rounds 3 --warmup 1 --build "$@"
measure "${PSPNET[@]}" "${PSPNET_MLP[@]}" --rounds 20 --warmup 1 --build "${SMALL[@]}" "$@"

for option in fuse_conv_bn=True channels_last=True dtype=bfloat16 compile=True; do
    measure "${R50_R18[@]}" --rounds 6 "${R50[@]}" "model.teacher.acceleration.$option" "$@"
done

measure "${DIGITS[@]}" --rounds 60 --teachers 4 "${RANDOM_TEACHER[@]}" "$@"
measure "${FASTER_RCNN[@]}" --rounds 3 --warmup 1 --teachers 4 "$@"
measure "${PSPNET[@]}" --rounds 10 --warmup 1 --teachers 4 "${SMALL[@]}" \
    --plot docs/step_costs.png --report docs/step_costs.md "$@"
