#!/usr/bin/env bash
# Trains backbones without labels, then networks from them and from scratch:
#     [TASK=classification|detection] [EPOCHS=5] tools/label_free.sh [SEED...]
# Started again, it trains what is not finished. EPOCHS is that of each stage.
set -euo pipefail
cd "$(dirname "$0")/.."
# Threads that wait for each other take more than their work where a processor is shared.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" OMP_WAIT_POLICY=passive
EPOCHS="${EPOCHS:-5}"
TASK="${TASK:-classification}"
TEACHER=configs/digits/resnet18-w32_digits.py
UNLABELED=configs/label_free/channel-mlp_resnet18-w8_digits-unlabeled.py
case "$TASK" in
    classification)
        PRETRAINED=configs/label_free/resnet18-w8_digits-pretrained.py
        SCRATCH=configs/digits/resnet18-w8_digits.py
        METRIC=accuracy/top1 ;;
    detection)
        PRETRAINED=configs/label_free/faster-rcnn_r18-w8_fpn_digits-pretrained.py
        SCRATCH=configs/digits/faster-rcnn_r18-w8_fpn_digits.py
        METRIC=coco/bbox_mAP ;;
    *) echo "TASK=$TASK: give classification or detection." >&2; exit 2 ;;
esac

train() {
    [ -f "$2/finished" ] && return
    "${PYTHON:-python}" -W ignore tools/train.py "$1" --work-dir "$2" --resume --cfg-options "${@:3}"
    touch "$2/finished"
}
score() {
    cat "$1"/*/vis_data/scalars.json | grep -o "\"$METRIC\": [0-9.]*" | tail -n 1 | grep -o '[0-9.]*$'
}

for task in classification "$TASK"; do
    "${PYTHON:-python}" tools/dataset_converters/digit_scenes.py data/digits --task "$task"
done
train "$TEACHER" work_dirs/resnet18-w32_digits randomness.seed=1
lines=""
for seed in "${@:-1}"; do
    out="work_dirs/label_free/epochs_$EPOCHS/seed_$seed"
    options=("train_cfg.max_epochs=$EPOCHS" "randomness.seed=$seed")
    train "$UNLABELED" "$out/unlabeled" "${options[@]}"
    train "$PRETRAINED" "$out/$TASK/pretrained" "${options[@]}" \
        "model.backbone.init_cfg.checkpoint=$out/unlabeled/epoch_$EPOCHS.pth"
    train "$SCRATCH" "$out/$TASK/scratch" "${options[@]}"
    train "$SCRATCH" "$out/$TASK/scratch_longer" "${options[@]}" "train_cfg.max_epochs=$((2 * EPOCHS))"
    lines+="| $seed | $(score "$out/$TASK/scratch") | $(score "$out/$TASK/scratch_longer") "
    lines+="| $(score "$out/$TASK/pretrained") |"$'\n'
done
printf '| seed | %s epochs from scratch | %s epochs from scratch | %s without labels, then %s |\n' \
    "$EPOCHS" "$((2 * EPOCHS))" "$EPOCHS" "$EPOCHS"
printf '| --- | --- | --- | --- |\n%s' "$lines"
